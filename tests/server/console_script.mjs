// Runs parts of the console's script, the very files that the page is made of. Each line of the
// input is a question, {"read": [base64, …], "id": text} or {"call": name, "with": […]}; each line
// of the output is its answer.
import { createInterface } from 'node:readline'
import { FrameReader, changesOf } from '../../events_app/console_page/frames.mjs'
import { isForGood, pauseAfter } from '../../events_app/console_page/follower.mjs'
import { age, partsOf } from '../../events_app/console_page/text.mjs'

const CALLS = { age, changesOf, isForGood, partsOf, pauseAfter }

function read(chunks, id) {
  const reader = new FrameReader(id)
  return chunks.flatMap((chunk) => reader.feed(Buffer.from(chunk, 'base64')))
}

function call(name, given) {
  try {
    return { value: CALLS[name](...given) }
  } catch (error) {
    return { error: error.name }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line)
  const answer = question.read ? read(question.read, question.id) : call(question.call, question.with)
  console.log(JSON.stringify(answer))
}
