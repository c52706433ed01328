import assert from 'node:assert/strict'
import test from 'node:test'
import { decode, encode } from '../dist/esm/index.js'

const bytes = Buffer.from([1, 2, 253])

test('every spelling of bytes is read', () => {
  const spellings = [
    '{"type":"Buffer","data":"AQL9"}',
    '{"type":"Buffer","data":[1,2,253]}',
    '{"type":"Buffer","data":{"0":1,"1":2,"2":253}}',
    '{"buffer":true,"value":"AQL9"}',
    '{"buffer":true,"data":[1,2,253]}',
    '{"0":1,"1":2,"2":253}',
  ]
  for (const spelling of spellings) assert.deepEqual(decode(`{"key":${spelling}}`), { key: bytes }, spelling)
  assert.deepEqual(decode('{"type":"Buffer","data":""}'), Buffer.alloc(0))
})

test('bytes are written in base64, whatever holds them', () => {
  const expected = '{"type":"Buffer","data":"AQL9"}'
  assert.equal(encode(bytes), expected)
  assert.equal(encode(Uint8Array.from(bytes)), expected)
  assert.equal(encode(new Uint8Array([0, 1, 2, 253, 9]).subarray(1, 4)), expected)
  assert.equal(encode({ type: 'Buffer', data: [1, 2, 253] }), expected)
  assert.equal(encode({ buffer: true, value: 'AQL9' }), expected)
  assert.equal(encode([{ deep: bytes }]), `[{"deep":${expected}}]`)
})

test('what looks like bytes and is none stays what it is', () => {
  for (const value of [{ 5511: 1 }, { 0: 1, 1: 256 }, { 0: 'a' }, { 1: 1, 2: 2 }, {}, [], '', 0, false]) {
    assert.deepEqual(decode(encode(value)), value)
  }
})

test('odd names, half characters and large numbers survive', () => {
  const odd = JSON.parse('{"__proto__":{"a":1},"constructor":"x","toString":[1e21,-0.5]}')
  assert.equal(encode(decode(encode(odd))), encode(odd))
  assert.ok(Object.hasOwn(decode(encode(odd)), '__proto__'))
  assert.equal(decode(encode('\ud83d')), '\ud83d')
})

test('messages with a JSON form of their own are written in it', () => {
  const message = { toJSON: () => ({ keyData: 'AQL9', timestamp: '1700000000' }) }
  assert.equal(encode({ message }), '{"message":{"keyData":"AQL9","timestamp":"1700000000"}}')
})

test('what JSON cannot hold is refused', () => {
  for (const value of [undefined, Number.NaN, () => 1, Symbol('x'), 1n]) assert.throws(() => encode(value), TypeError)
})
