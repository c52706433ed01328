/**
 * Baileys values as BufferJSON text and back, without a replacer and a reviver: what a hand-tuned store deserves.
 *
 * JSON.stringify calls Buffer.toJSON before any replacer, and a reviver is called for every member of every value.
 */

/** @returns the text `JSON.stringify(value, BufferJSON.replacer)` would give. */
export function encode(value) {
  return JSON.stringify(spell(value))
}

/** @returns the value of a text, with Buffers in place of `{"type":"Buffer","data":"<base64>"}`. */
export function decode(text) {
  const value = JSON.parse(text)
  // Most values of most types hold no bytes; a search of the text is cheaper than a walk through the value.
  return text.includes('"Buffer"') ? revive(value) : value
}

function spell(value) {
  if (value === null || typeof value !== 'object') return value
  if (Buffer.isBuffer(value)) return { type: 'Buffer', data: value.toString('base64') }
  if (value instanceof Uint8Array) return { type: 'Buffer', data: Buffer.from(value).toString('base64') }
  if (Array.isArray(value)) return value.map(spell)
  if (typeof value.toJSON === 'function') return value.toJSON()
  const plain = {}
  for (const key in value) plain[key] = spell(value[key])
  return plain
}

function revive(value) {
  if (value === null || typeof value !== 'object') return value
  if (value.type === 'Buffer' && typeof value.data === 'string') return Buffer.from(value.data, 'base64')
  for (const key in value) value[key] = revive(value[key])
  return value
}
