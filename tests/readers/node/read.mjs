// Reads the stream at argv[2] with npm's `eventsource` and prints each frame as a line of JSON.
// It comes back by itself, with Last-Event-ID; the token is in READER_TOKEN.
import { EventSource } from 'eventsource'

const NAMES = ['subscribed', 'resumed', 'event', 'keep-alive', 'reconnect-required', 'message']

const withToken = (input, init) =>
  fetch(input, {
    ...init,
    headers: { ...init.headers, Authorization: `Bearer ${process.env.READER_TOKEN}` },
  })

const source = new EventSource(process.argv[2], { fetch: withToken })

for (const name of NAMES) {
  source.addEventListener(name, ({ type, lastEventId, data }) => {
    console.log(JSON.stringify({ event: type, id: lastEventId, data }))
  })
}

// CLOSED means that it was refused for good and will not come back: that is a failure.
source.addEventListener('error', ({ code, message }) => {
  console.error(`eventsource: ${code} ${message}`)
  if (source.readyState === EventSource.CLOSED) process.exit(1)
})
