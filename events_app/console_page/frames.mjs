// Bytes of a body to frames, as the HTML standard reads text/event-stream: a chunk may end
// anywhere, within a character and between CR and LF too. Knows no network and no page.

export class FrameReader {
  #decoder = new TextDecoder() // drops a byte order mark, and makes U+FFFD of what is no UTF-8
  #line = ''
  #afterReturn = false
  #name = ''
  #data = []
  #id
  #retry

  // `id` is what the request sent as Last-Event-ID: frames without one keep it.
  constructor(id = '') {
    this.#id = id
  }

  // The frames that are complete with these bytes: {name, id, data}, and `retry` in milliseconds
  // where one says it. What is incomplete at the end of the body is no frame.
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true })
    if (text === '') return []
    // The line before has ended with CR already, so that nobody waits for an LF that may not come.
    if (this.#afterReturn && text[0] === '\n') text = text.slice(1)
    this.#afterReturn = text.endsWith('\r')
    const lines = text.split(/\r\n|\r|\n/)
    lines[0] = this.#line + lines[0]
    this.#line = lines.pop()
    return lines.map((line) => this.#take(line)).filter((frame) => frame !== null)
  }

  #take(line) {
    if (line === '') return this.#dispatch()
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.#name = value
    else if (field === 'data') this.#data.push(value)
    else if (field === 'id' && !value.includes('\0')) this.#id = value
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.#retry = Number(value)
    return null
  }

  #dispatch() {
    const frame = { name: this.#name || 'message', id: this.#id, data: this.#data.join('\n') }
    if (this.#retry !== undefined) frame.retry = this.#retry
    const isFrame = this.#data.length > 0
    this.#name = ''
    this.#data = []
    this.#retry = undefined
    return isFrame ? frame : null
  }
}

// The changes of an `event` frame, in array form and in object form. Throws what is none.
export function changesOf(frame) {
  const told = JSON.parse(frame.data)
  const changes = Array.isArray(told) ? told : [told]
  for (const change of changes) {
    for (const key of ['type', 'file_id', 'from', 'to']) {
      if (typeof change?.[key] !== 'string') throw new TypeError(`a change without ${key}`)
    }
  }
  return changes
}
