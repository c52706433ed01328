/**
 * Baileys values as text and back: `BufferJSON`, read in every spelling found in the wild, written in one.
 *
 *     {"type":"Buffer","data":"<base64>"}      written by us and by Baileys' own replacer
 *     {"type":"Buffer","data":[1,2,3]}         JSON.stringify without a replacer; read by 6.x, not by 7.x
 *     {"buffer":true,"value":"<base64>"|[…]}   older stores; read by 6.x only
 *     {"0":1,"1":2,"2":3}                      a Uint8Array without a replacer; read by 7.x only
 *
 * Baileys 7.x takes any object with numeric keys for bytes, so that `{"5511": 1}` becomes a Buffer; here the keys have
 * to count up from 0 and the values have to be bytes.
 *
 * Neither a replacer nor a reviver: with one V8 leaves its fast path, turns bytes into an array of numbers first, and
 * calls back for each member. Values without bytes, which most are, go through JSON as they are.
 */
import { isUint8Array } from 'node:util/types'
import { readCommon } from './common-shapes.js'
import { recordText } from './record-text.js'

/** What a Baileys release has to bring: `import * as baileys from 'baileys'`. */
export interface BaileysModule {
  initAuthCreds(): object
  proto: { Message: { AppStateSyncKeyData: AppStateSyncKeyDataClass } }
}

/** 7.0.0-rc.2 to rc.5 make their messages with `create` only. */
interface AppStateSyncKeyDataClass {
  fromObject?(plain: Record<string, unknown>): unknown
  create?(plain: Record<string, unknown>): unknown
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Objects within objects: the service takes some 970, less what its own calls need of that. */
const DEEPEST = 800

const BYTES_OPEN = '{"type":"Buffer","data":"'
const BYTES_CLOSE = '"}'
// JSON's own rule; lone surrogates as well-formed JSON.stringify has them.
const TO_ESCAPE = /[\u0000-\u001f"\\\ud800-\udfff]/
/** Found in every text that spells bytes: a name or word of a spelling, or an escape that may hide one. */
const MAY_SPELL_BYTES = /uffer"|"0"|\\u/

/**
 * @returns the JSON text of a value, bytes spelled in base64.
 * @throws TypeError when the value has no JSON form, or its form is `null`.
 */
export function encode(value: unknown): string {
  const text = textOf(value)
  if (text === undefined || text === 'null') throw new TypeError('the value has no JSON form')
  return text
}

/** @returns the value of a JSON text, with Buffers in place of every spelling of bytes. @throws SyntaxError */
export function decode(text: string): unknown {
  return readCommon(text) ?? wholeBytes(text) ?? readAny(text)
}

function readAny(text: string): unknown {
  return MAY_SPELL_BYTES.test(text) ? revive(JSON.parse(text) as Json) : JSON.parse(text)
}

/**
 * @returns a key's value as Baileys expects it from `keys.get`: `app-state-sync-key` as its protobuf message, since its
 * bytes are stored as bare base64 strings, which Baileys would otherwise take for key bytes without an error.
 */
export function decodeKey(type: string, text: string, baileys: BaileysModule): unknown {
  const value = decode(text)
  if (type !== 'app-state-sync-key' || value === null || typeof value !== 'object') return value
  const { AppStateSyncKeyData } = baileys.proto.Message
  const plain = value as Record<string, unknown>
  if (AppStateSyncKeyData.fromObject) return AppStateSyncKeyData.fromObject(plain)
  const { keyData } = plain
  if (typeof keyData === 'string') plain.keyData = Buffer.from(keyData, 'base64')
  return AppStateSyncKeyData.create?.(plain)
}

function textOf(value: unknown): string | undefined {
  try {
    const record = recordText(value)
    if (record !== undefined) return record
    return isPlain(value, 1) ? (JSON.stringify(value) as string | undefined) : write(value, '', 1)
  } catch (error) {
    // A value within itself: native JSON names it, the walks above it run out of stack.
    if (error instanceof RangeError) throw new TypeError('the value is too deep or holds itself')
    throw error
  }
}

/** @returns whether JSON.stringify alone gives the right text. */
function isPlain(value: unknown, depth: number): boolean {
  if (value === null || typeof value !== 'object') return true
  if (depth > DEEPEST) throw new RangeError('too deep')
  if (Array.isArray(value)) return !('toJSON' in value) && value.every((item) => isPlain(item, depth + 1))
  const prototype = Object.getPrototypeOf(value) as unknown
  if (prototype !== Object.prototype && prototype !== null) return false
  const members = value as Record<string, unknown>
  if (members.type === 'Buffer' || members.buffer === true || hasForm(members)) return false
  // Inherited names are no harm: they could only lead to the careful way.
  for (const key in members) {
    const member = members[key]
    if (typeof member === 'object' && member !== null && !isPlain(member, depth + 1)) return false
  }
  return true
}

/** @returns what JSON.stringify with Baileys' replacer gives; undefined where that leaves the value out. */
function write(value: unknown, key: string, depth: number): string | undefined {
  if (typeof value === 'string') return quote(value)
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  if (isBytes(value)) return bytesText(value)
  if (depth > DEEPEST) throw new RangeError('too deep')
  if (hasForm(value)) return form(value.toJSON(key), depth)
  return writeObject(value, depth)
}

/** What `toJSON` gave is not asked again for another form. */
function form(value: unknown, depth: number): string | undefined {
  const isObject = value !== null && typeof value === 'object' && !isBytes(value)
  return isObject ? writeObject(value, depth) : write(value, '', depth)
}

function writeObject(value: object, depth: number): string {
  if (Array.isArray(value)) {
    // `map` would pass over the holes of a sparse one.
    return `[${Array.from(value, (item, index) => write(item, String(index), depth + 1) ?? 'null').join()}]`
  }
  if (value instanceof ArrayBuffer) return bytesText(new Uint8Array(value))
  const prototype = Object.getPrototypeOf(value) as unknown
  if (prototype !== Object.prototype && isBoxed(value)) return JSON.stringify(value)
  // Not the one of numbers alone: until it has been through JSON such an object is what it looks like.
  const spelled = namedBytes(value as Record<string, Json>)
  if (spelled) return bytesText(spelled)
  let text = ''
  for (const name of Object.keys(value)) {
    const member = write((value as Record<string, unknown>)[name], name, depth + 1)
    if (member !== undefined) text += `${text === '' ? '' : ','}${quote(name)}:${member}`
  }
  return `{${text}}`
}

function hasForm(value: object): value is { toJSON: (key: string) => unknown } {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
}

function isBytes(value: object): value is Uint8Array {
  return ArrayBuffer.isView(value) && isUint8Array(value)
}

function isBoxed(value: object): boolean {
  return value instanceof Number || value instanceof String || value instanceof Boolean
}

function quote(text: string): string {
  return TO_ESCAPE.test(text) ? JSON.stringify(text) : `"${text}"`
}

function bytesText(bytes: Uint8Array): string {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return BYTES_OPEN + buffer.toString('base64') + BYTES_CLOSE
}

/** A sender key is hundreds of kilobytes of one Buffer: no need to parse around it. */
function wholeBytes(text: string): Buffer | undefined {
  if (!text.startsWith(BYTES_OPEN)) return undefined
  const from = BYTES_OPEN.length
  const to = text.length - BYTES_CLOSE.length
  if (text.indexOf('"', from) !== to || text.includes('\\')) return undefined
  return Buffer.from(text.slice(from, to), 'base64')
}

function revive(value: Json): unknown {
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) value[index] = revive(value[index] as Json) as Json
    return value
  }
  const bytes = spelledBytes(value)
  if (bytes) return bytes
  for (const key of Object.keys(value)) {
    const member = value[key]
    // An own `__proto__`, which JSON.parse makes, is assigned like any other.
    if (member !== null && typeof member === 'object') value[key] = revive(member) as Json
  }
  return value
}

/** @returns the bytes an object spells, or undefined when it is not one of the spellings. */
function spelledBytes(value: Record<string, Json>): Buffer | undefined {
  if (isByte(value[0]) && isIndexed(value)) return Buffer.from(Object.values(value) as number[])
  return namedBytes(value)
}

function namedBytes(value: Record<string, Json>): Buffer | undefined {
  if (value.type === 'Buffer') return bytesFrom(value.data ?? value.value)
  return value.buffer === true ? bytesFrom(value.value ?? value.data) : undefined
}

function bytesFrom(data: Json | undefined): Buffer | undefined {
  if (typeof data === 'string') return Buffer.from(data, 'base64')
  if (data === null || typeof data !== 'object') return undefined
  if (isBytes(data)) return Buffer.from(data)
  if (Array.isArray(data)) return data.every(isByte) ? Buffer.from(data as number[]) : undefined
  return spelledBytes(data) ?? (Object.keys(data).length === 0 ? Buffer.alloc(0) : undefined)
}

function isIndexed(value: Record<string, Json>): boolean {
  return Object.keys(value).every((key, index) => key === String(index) && isByte(value[key]))
}

function isByte(value: Json | undefined): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}
