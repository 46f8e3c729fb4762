// Follows a folder as docs/reference/protocol.md asks of a client: resumes by Last-Event-ID, comes
// back when it should, and ends when it must. Knows no page: whoever makes it is told.

const SECOND = 1000
const LONGEST_PAUSE = 60 * SECOND
// A worker that is full lets a request wait for 10 seconds before it answers.
const LEAST_ANSWER = 20 * SECOND
const ASKED_BACK = 'the server asked to come back'

// How many milliseconds to wait after so many failures in a row; `retry` is what the server said.
export function pauseAfter(failures, retry, chance) {
  const first = Math.max(retry ?? SECOND * (1 + chance), SECOND)
  return Math.min(first * 2 ** failures, LONGEST_PAUSE)
}

// What an answer that is no stream says: {status, sentence, code, correlationId, retryAfter}.
export async function problemOf(answer) {
  const retryAfter = answer.headers.get('Retry-After') ?? ''
  const problem = {
    status: answer.status,
    sentence: '',
    retryAfter: /^[0-9]+$/.test(retryAfter) ? SECOND * Number(retryAfter) : null,
  }
  try {
    const { msg, code, correlation_id: correlationId } = await answer.json()
    return { ...problem, sentence: String(msg ?? ''), code, correlationId }
  } catch {
    return problem // by something between us and the server, which speaks no JSON
  }
}

// Whether to come back after such an answer: not where the request itself is what is wrong.
export function isForGood(status) {
  return status < 500 && status !== 408 && status !== 429
}

class Refused extends Error {
  constructor(problem) {
    super(problem.sentence)
    this.problem = problem
  }
}

export class Follower {
  #address
  #headers
  #silence
  #tell
  #hear
  #id
  #retry
  #failures = 0
  #isStopped = false
  #hasBegun = false
  #abort = new AbortController()
  #wake = () => {}

  // `keepAlive` is in seconds; `id` is the Last-Event-ID of the first connection. `tell` is called
  // with each state: {name, why, problem, milliseconds}; `hear` with each frame.
  constructor({ address, headers, keepAlive, id, tell, hear }) {
    this.#address = address
    this.#headers = headers
    this.#silence = 2 * SECOND * keepAlive
    this.#id = id
    this.#tell = tell
    this.#hear = hear
  }

  // Returns when it has ended, and never throws.
  async run() {
    while (!this.#isStopped) {
      const { why, problem = null } = await this.#connection()
      if (this.#isStopped) return
      if (problem !== null && isForGood(problem.status)) {
        this.#isStopped = true
        this.#tell({ name: 'ended', why, problem })
        return
      }
      await this.#pause(why, problem)
    }
  }

  stop() {
    this.#isStopped = true
    this.#abort.abort()
    this.#wake()
  }

  async #connection() {
    this.#tell({ name: 'connecting' })
    this.#hasBegun = false
    this.#abort = new AbortController()
    const silence = new Silence(this.#abort)
    try {
      silence.atMost(Math.max(this.#silence, LEAST_ANSWER))
      const body = await this.#open()
      silence.atMost(this.#silence)
      return { why: await this.#read(body, silence) }
    } catch (error) {
      if (error instanceof Refused) return { why: 'the server refuses', problem: error.problem }
      if (silence.seconds > 0) return { why: `nothing came for ${silence.seconds} s` }
      return { why: error.message }
    } finally {
      silence.end()
      this.#abort.abort()
    }
  }

  async #open() {
    const headers = { ...this.#headers, Accept: 'text/event-stream' }
    if (this.#id) headers['Last-Event-ID'] = this.#id
    const answer = await fetch(this.#address, {
      headers,
      signal: this.#abort.signal,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    }).catch(() => {
      throw new Error('the server cannot be reached')
    })
    const media = answer.headers.get('Content-Type') ?? ''
    if (answer.ok && media.startsWith('text/event-stream')) return answer.body.getReader()
    throw new Refused(await problemOf(answer))
  }

  async #read(body, silence) {
    const frames = new FrameReader(this.#id)
    let why = 'the stream ended'
    const broken = () => {
      throw new Error('the connection broke off')
    }
    for (;;) {
      const { done, value } = await body.read().catch(broken)
      if (done) return why
      silence.atMost(this.#silence)
      for (const frame of frames.feed(value)) {
        if (frame.name === 'reconnect-required') why = ASKED_BACK
        this.#take(frame)
      }
    }
  }

  #take(frame) {
    if (this.#isStopped) return
    this.#failures = 0
    this.#retry = frame.retry ?? this.#retry
    this.#id = frame.id
    const isBeginning = frame.name === 'subscribed' || frame.name === 'resumed'
    if (isBeginning) this.#tell({ name: frame.name })
    else if (!this.#hasBegun && frame.name === 'keep-alive') this.#tell({ name: 'held' })
    this.#hasBegun = true
    this.#hear(frame)
  }

  async #pause(why, problem) {
    const chance = Math.random()
    const milliseconds =
      problem !== null && problem.retryAfter !== null
        ? problem.retryAfter + SECOND * chance
        : pauseAfter(this.#failures, this.#retry, chance)
    this.#failures += 1
    this.#tell({ name: 'waiting', why, problem, milliseconds })
    await new Promise((resolve) => {
      this.#wake = resolve
      setTimeout(resolve, milliseconds)
    })
  }
}

// Gives a connection up on which nothing comes.
class Silence {
  #abort
  #timer
  seconds = 0 // of silence, once there was too much of it

  constructor(abort) {
    this.#abort = abort
  }

  atMost(milliseconds) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.seconds = Math.round(milliseconds / SECOND)
      this.#abort.abort()
    }, milliseconds)
  }

  end() {
    clearTimeout(this.#timer)
  }
}
