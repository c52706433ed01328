/** Texts that are read without JSON.parse, beside it: the same values, and the same refusals, whatever is changed. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import test from 'node:test'
import { decode } from '../dist/esm/index.js'
import { readCommon } from '../dist/esm/common-shapes.js'

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
