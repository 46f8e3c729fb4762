// The page: what is typed in, what is shown. Nothing that a server or a user wrote becomes anything
// but text, and the token is nowhere but in its field and in the headers of requests.

const MOST_ROWS = 1000
// What has come is drawn in one go, however many frames there are: a replay has thousands.
const DRAW_MILLISECONDS = 50
const ANSWER_MILLISECONDS = 30_000
const LABELS = ['time', 'type', 'from', 'to', 'file-id', 'by', 'position']

const at = (id) => document.getElementById(id)
const { events, history, keepAlive } = document.body.dataset

// -- text ------------------------------------------------------------------------------------------

function element(name, content = '', className = '') {
  const made = document.createElement(name)
  if (className) made.className = className
  made.textContent = content
  return made
}

function told(text) {
  const made = element('bdi', '', 'told')
  for (const part of partsOf(text)) {
    made.append(part.isMark ? element('span', part.text, 'mark') : part.text)
  }
  return made
}

function timeOf(moment) {
  const made = element('time', local(moment))
  made.dateTime = moment.toISOString()
  made.title = moment.toISOString()
  return made
}

function row(cells) {
  const made = element('tr')
  made.setAttribute('role', 'row')
  cells.forEach((content, column) => {
    const cell = element('td', '', LABELS[column])
    cell.setAttribute('role', 'cell')
    cell.append(content)
    made.append(cell)
  })
  return made
}

function rowOf(change, moment, ...more) {
  const kind = element('span', change.type, 'type')
  kind.dataset.type = change.type
  const to = change.to === '' ? '' : told(change.to)
  return row([timeOf(moment), kind, told(change.from), to, told(change.file_id), ...more])
}

// -- what goes wrong -------------------------------------------------------------------------------

function showProblem(place, problem) {
  place.replaceChildren()
  if (problem === null) return
  const sentence = problem.sentence || 'The answer is none of events-app: something is in between.'
  const said = element('p')
  said.append(told(sentence)) // it may quote what was asked for
  place.append(said)
  const numbers = [`status ${problem.status}`]
  if (problem.code !== undefined) numbers.push(`code ${problem.code}`)
  place.append(element('p', numbers.join(', ')))
  if (!problem.correlationId) return
  const line = element('p', 'The server’s log has the details under ')
  line.append(element('code', problem.correlationId))
  place.append(line)
}

// -- what is asked ---------------------------------------------------------------------------------

function headersOfToken() {
  // What is pasted from a curl line begins with the word.
  return { Authorization: `Bearer ${at('token').value.trim().replace(/^Bearer\s+/i, '')}` }
}

function checkToken() {
  const isToken = /^(Bearer\s+)?[!-~]*$/i.test(at('token').value.trim())
  at('token').setCustomValidity(isToken ? '' : 'A token has no spaces and no letters but those of ASCII.')
}

function address(path, parameters) {
  const asked = new URL(path, location.origin)
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== '') asked.searchParams.set(name, value)
  }
  return asked
}

// A version 4 UUID: `crypto.randomUUID` is missing where a page comes by plain HTTP.
function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6] & 0x0f) | 0x40
  bytes[8] = (bytes[8] & 0x3f) | 0x80
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

// -- the stream ------------------------------------------------------------------------------------

const WORDS = {
  idle: () => 'Not following.',
  connecting: () => 'Connecting.',
  held: () => 'Held: the server is there and waits for its database, or works off a backlog.',
  subscribed: () => 'Subscribed: following from here on. A client would list the folder now.',
  resumed: () => 'Resumed: everything since the last position follows. A client would not list.',
  waiting: ({ why, milliseconds }) =>
    `Coming back in ${Math.ceil(milliseconds / 1000)} s: ${why}.`,
  ended: ({ why }) => `Ended: ${why}.`,
}

let follower = null
let state = { name: 'idle', since: null }
let seen = {}
let waiting = [] // rows to be drawn, the oldest first
let isDrawing = false
let isHeldBack = false

function enter(next) {
  state = { ...next, since: Date.now() }
  if (next.name === 'connecting') seen.connections += 1
  at('state').dataset.state = next.name
  at('state').textContent = WORDS[next.name](next)
  // A refusal stands until the next connection has begun: who looks up later wants to read it.
  if (next.name !== 'connecting') showProblem(at('problem'), next.problem ?? null)
  if (next.name === 'ended') idle()
  drawFacts()
}

function hear(frame) {
  const now = Date.now()
  seen.frames += 1
  seen.last = { name: frame.name, at: now }
  seen.cursor = frame.id
  if (frame.name === 'keep-alive') seen.keepAlive = now
  if (frame.name === 'event') note(frame, new Date(now))
  drawSoon()
}

function note(frame, moment) {
  try {
    const changes = changesOf(frame)
    seen.changes += changes.length
    waiting.push(...changes.slice(-MOST_ROWS).map((change) => ({ change, moment })))
    waiting = waiting.slice(-MOST_ROWS)
  } catch {
    seen.unreadable += 1
  }
}

function drawSoon() {
  if (isDrawing) return
  isDrawing = true
  setTimeout(() => {
    isDrawing = false
    if (isHeldBack) drawShown()
    else if (waiting.length > 0) drawRows()
    drawFacts()
  }, DRAW_MILLISECONDS)
}

function drawRows() {
  const body = at('live').tBodies[0]
  const rows = waiting.reverse().map(({ change, moment }) => rowOf(change, moment))
  waiting = []
  body.prepend(...rows)
  while (body.rows.length > MOST_ROWS) body.lastElementChild.remove()
  drawShown()
}

function drawShown() {
  const count = at('live').tBodies[0].rows.length
  const shown = count === MOST_ROWS ? 'The newest 1,000 are shown.' : `${count} shown.`
  const more = waiting.length === MOST_ROWS ? '1,000 or more' : waiting.length
  at('shown').textContent = isHeldBack ? `${shown} Paused: ${more} wait.` : shown
}

function drawFacts() {
  const now = Date.now()
  const ago = (moment) => (moment ? `${age(now - moment)} ago` : 'none yet')
  const frames = seen.unreadable ? `${seen.frames}, ${seen.unreadable} unreadable` : seen.frames
  at('since').replaceChildren('none yet')
  if (state.since) at('since').replaceChildren(timeOf(new Date(state.since)), `, ${age(now - state.since)}`)
  at('last-frame').textContent = seen.last ? `${seen.last.name}, ${ago(seen.last.at)}` : 'none yet'
  at('last-keep-alive').textContent = ago(seen.keepAlive)
  at('connections').textContent = seen.connections
  at('frames').textContent = frames
  at('changes').textContent = seen.changes
  at('cursor').textContent = seen.cursor || 'none yet'
  at('sent-client-id').textContent = seen.clientId || 'none'
}

function forget() {
  seen = { frames: 0, changes: 0, unreadable: 0, connections: 0 }
}

function idle() {
  follower = null
  if (document.activeElement === at('stop')) at('follow').querySelector('.first').focus()
  at('stop').disabled = true
}

at('follow').addEventListener('submit', (event) => {
  event.preventDefault()
  follower?.stop()
  forget()
  const headers = headersOfToken()
  const clientId = at('client-id').value.trim()
  if (clientId) headers['X-Cr-Client-Id'] = clientId
  seen.clientId = clientId
  const mine = new Follower({
    address: address(events, { uri: at('uri').value.trim(), payload: at('payload').value }),
    headers,
    keepAlive: Number(keepAlive),
    id: at('last-event-id').value.trim(),
    tell: (next) => mine === follower && enter(next),
    hear: (frame) => mine === follower && hear(frame),
  })
  follower = mine
  at('stop').disabled = false
  mine.run()
})

at('stop').addEventListener('click', () => {
  follower.stop()
  idle()
  enter({ name: 'idle' })
})

at('token').addEventListener('input', checkToken)

at('new-id').addEventListener('click', () => {
  at('client-id').value = newClientId()
})

at('hold').addEventListener('click', () => {
  isHeldBack = !isHeldBack
  at('hold').setAttribute('aria-pressed', String(isHeldBack))
  if (isHeldBack) drawShown()
  else drawRows()
})

at('clear').addEventListener('click', () => {
  waiting = []
  at('live').tBodies[0].replaceChildren()
  drawShown()
})

setInterval(drawFacts, 1000)

// -- the history -----------------------------------------------------------------------------------

let asked = null // what the pages that are shown were asked for, without `before`
let question = 0

async function page(before) {
  question += 1
  const mine = question
  at('past-state').textContent = 'Asking.'
  showProblem(at('past-problem'), null)
  const { words, problem, data } = await answerTo({ ...asked.parameters, before })
  if (mine !== question) return // another one was asked meanwhile
  showProblem(at('past-problem'), problem ?? null)
  at('past-state').textContent = words
  if (data) drawPast(data)
}

async function answerTo(parameters) {
  try {
    const answer = await fetch(address(history, parameters), {
      headers: asked.headers,
      signal: AbortSignal.timeout(ANSWER_MILLISECONDS),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    })
    if (!answer.ok) {
      const problem = await problemOf(answer)
      const wait = problem.retryAfter
      const later = wait === null ? '' : ` It asks to come again in ${wait / 1000} s.`
      return { words: `The server refuses.${later}`, problem }
    }
    const { data } = await answer.json()
    return { words: '', data }
  } catch {
    return { words: 'The server cannot be reached, or does not answer.' }
  }
}

function drawPast({ events: changes, next }) {
  const body = at('past').tBodies[0]
  body.append(...changes.map((change) => {
    const by = [change.actor_id, change.client_id].filter((each) => each).join(', ')
    return rowOf(change, new Date(change.recorded_at), by && told(by), String(change.position))
  }))
  const count = body.rows.length === 1 ? '1 change' : `${body.rows.length} changes`
  const end = next === null ? 'That is all.' : `Looked back to position ${next}.`
  at('past-state').textContent = `${count}. ${end}`
  at('older').hidden = next === null
  at('older').value = next ?? ''
}

function moment(id) {
  const { value } = at(id)
  return value === '' ? '' : new Date(value).toISOString()
}

at('history').addEventListener('submit', (event) => {
  event.preventDefault()
  if (!at('follow').reportValidity()) return
  asked = {
    headers: headersOfToken(),
    parameters: {
      uri: at('uri').value.trim(),
      since: moment('from-time'),
      until: moment('until-time'),
      type: at('type').value,
    },
  }
  at('past').tBodies[0].replaceChildren()
  at('older').hidden = true
  page('')
})

at('older').addEventListener('click', () => page(at('older').value))

forget()
drawFacts()
