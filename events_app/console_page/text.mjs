// What comes from paths, names and ids, as text that shows what is in it.

// Control characters, what turns the direction of a text, and what has no width. The two joiners
// (200C, 200D) stay: names in Persian and emoji are made with them.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]|\p{Cs}/gu

export function marked(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`
}

// The parts of a text: [{text, isMark}], where a mark stands for a character that nobody would see.
export function partsOf(text) {
  const parts = []
  let begin = 0
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > begin) parts.push({ text: text.slice(begin, found.index), isMark: false })
    parts.push({ text: marked(found[0]), isMark: true })
    begin = found.index + found[0].length
  }
  if (begin < text.length || text === '') parts.push({ text: text.slice(begin), isMark: false })
  return parts
}

export function age(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000))
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

// A moment as people here write it, to the second.
const written = new Intl.DateTimeFormat(undefined, { dateStyle: 'short', timeStyle: 'medium' })

export function local(moment) {
  return written.format(moment)
}
