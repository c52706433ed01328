/** Texts that are read and written without JSON, beside it: the same values and refusals, whatever is changed. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import test from 'node:test'
import { decode, encode } from '../dist/esm/index.js'
import { readCommon } from '../dist/esm/common-shapes.js'
import { recordText } from '../dist/esm/record-text.js'

const RUNS = 200
const CHANGES = 30
const PIECES = ['"', '}', ',', '{', '\\', '0', '-', '1e9', '__proto__', ' ', 'é', '":"', '},', ']', '']

const base64 = (bytes = 33) => randomBytes(bytes).toString('base64')
const bytes = () => ({ type: 'Buffer', data: base64(32) })
const chance = (one) => randomInt(one) === 0

function chain(turn) {
  const key = chance(3) ? {} : { key: base64(32) }
  const messageKeys = chance(2) ? {} : { 3: base64(32), 0: base64(32) }
  return { chainKey: { counter: turn - 1, ...key }, chainType: 2, messageKeys }
}

function session() {
  const names = ['constructor', 'type', '12', '7', base64(), base64()].slice(randomInt(6))
  const baseKey = base64()
  return {
    registrationId: randomInt(16_000),
    currentRatchet: {
      ephemeralKeyPair: { pubKey: base64(), privKey: base64(32) },
      lastRemoteEphemeralKey: base64(),
      previousCounter: randomInt(3),
      rootKey: base64(32),
    },
    indexInfo: {
      baseKey,
      baseKeyType: 2,
      closed: chance(2) ? -1 : 1_795_422_999_123,
      used: 1_795_422_999_123,
      created: 0,
      remoteIdentityKey: base64(),
    },
    _chains: Object.fromEntries(names.map((name, turn) => [name, chain(turn)])),
    ...(chance(2) && { pendingPreKey: { signedKeyId: 1, baseKey, ...(chance(2) && { preKeyId: 7 }) } }),
  }
}

function record() {
  const names = ['buffer', '5', base64()].slice(randomInt(3))
  return { _sessions: Object.fromEntries(names.map((name) => [name, session()])), version: 'v1' }
}

const revive = (_name, value) => (value?.type === 'Buffer' && value.data ? Buffer.from(value.data, 'base64') : value)

function outcome(read) {
  try {
    return { value: read(), text: JSON.stringify(read()) }
  } catch (error) {
    return error.name
  }
}

function assertSame(text) {
  assert.deepStrictEqual(outcome(() => decode(text)), outcome(() => JSON.parse(text, revive)), text)
}

test('a session record and a key pair are read as JSON has them', () => {
  for (let run = 0; run < RUNS; run++) {
    for (const value of [record(), { private: bytes(), public: bytes() }]) {
      const text = JSON.stringify(value)
      assert.notEqual(readCommon(text), undefined, text)
      assertSame(text)
    }
  }
})

test('with anything changed in them they are still what JSON has, or refused', () => {
  for (let run = 0; run < RUNS; run++) {
    for (const value of [record(), { private: bytes(), public: bytes() }]) {
      const text = JSON.stringify(value)
      for (let change = 0; change < CHANGES; change++) {
        const at = randomInt(text.length)
        assertSame(text.slice(0, at) + PIECES[randomInt(PIECES.length)] + text.slice(at + randomInt(2)))
      }
    }
  }
})

test('what is handed out is its own, of the usual prototype', () => {
  const text = JSON.stringify(record())
  const [first, second] = [decode(text), decode(text)]
  assert.equal(Object.getPrototypeOf(first._sessions), Object.prototype)
  for (const name of Object.keys(first._sessions)) delete first._sessions[name]
  assert.equal(JSON.stringify(second), text)
})

const ODD = [
  ...[undefined, null, true, '', 'Buffer', 'AQ==', 'é', '"', '\ud83d', 7, -0, 1.5, 2 ** 60, Number.NaN, () => 1],
  ...[[], [1], {}, { a: 1 }, { 0: 1 }, new Map(), Object.create(null), Object.create({ inherited: 1 }), new Date(0)],
  ...[Buffer.from('x'), new Uint8Array(0), new ArrayBuffer(2), { type: 'Buffer', data: 'AQ==' }],
  { toJSON: () => ({ a: Buffer.from('y') }) },
]
const NAMES = ['type', 'buffer', 'toJSON', 'data', '__proto__', '0', 'é', 'a"b', 'key', 'baseKey', 'AQ==']

function replacer(_name, value) {
  const data = value instanceof ArrayBuffer ? new Uint8Array(value) : value?.type === 'Buffer' ? value.data : value
  if (Array.isArray(data) && data !== value) return { type: 'Buffer', data: Buffer.from(data).toString('base64') }
  return data instanceof Uint8Array ? { type: 'Buffer', data: Buffer.from(data).toString('base64') } : value
}

function places(value, found = []) {
  for (const name of Object.keys(value)) {
    found.push([value, name])
    if (value[name] !== null && typeof value[name] === 'object') places(value[name], found)
  }
  return found
}

test('a session record is written as JSON has it', () => {
  for (let run = 0; run < RUNS; run++) {
    const value = record()
    const text = JSON.stringify(value)
    assert.equal(recordText(decode(text)), chainsHaveKeys(value) ? text : undefined)
    assert.equal(encode(value), text)
  }
})

/** Without one, libsignal's own has an undefined member there. */
function chainsHaveKeys({ _sessions }) {
  return Object.values(_sessions).every(({ _chains }) => Object.values(_chains).every(({ chainKey }) => chainKey.key))
}

test('a closed chain has an undefined key', () => {
  const value = record()
  for (const { _chains } of Object.values(value._sessions)) {
    for (const { chainKey } of Object.values(_chains)) chainKey.key = undefined
  }
  assert.equal(recordText(value), JSON.stringify(value))
})

test('with any member replaced, added or taken away the text is still what JSON has', () => {
  for (let run = 0; run < RUNS * CHANGES; run++) {
    const value = record()
    const all = places(value)
    const [holder, name] = all[randomInt(all.length)]
    const odd = ODD[randomInt(ODD.length)]
    const added = { value: odd, enumerable: true, configurable: true, writable: true }
    if (chance(8)) delete holder[name]
    else Object.defineProperty(holder, chance(2) ? name : NAMES[randomInt(NAMES.length)], added)
    const text = recordText(value)
    if (text !== undefined) assert.equal(text, JSON.stringify(value, replacer))
  }
})
