/** The client's codec beside the `BufferJSON` of each release: the same texts out, the same values back. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import test from 'node:test'
import { decode, encode } from '../dist/esm/index.js'
import { loadRelease, VERSIONS } from './releases.mjs'

const RUNS = 3000

/** A small generator of its own, so that a failure is repeated by its seed. */
class Chance {
  #state
  constructor(seed) {
    this.#state = seed
  }

  below(limit) {
    // Mulberry32.
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
  }

  of(list) {
    return list[this.below(list.length)]
  }

  list(most, make) {
    return Array.from({ length: this.below(most + 1) }, make)
  }
}

const WORDS = ['__proto__', 'constructor', 'toString', 'type', 'data', 'buffer', 'value', 'private', '__index']
const ODDITIES = ['', '0', '1', '2', '5511', '-1', '1e3', '1555:3', 'AL/u5E=', 'a"b', 'x\\y', '\t', 'é', '\ud83d']
const TEXTS = ['', 'Buffer', 'x', '\ud83d', '\ude00\ud83d', '😀', '\u0000\u001f', '"\\/\b', 'AQL9', 'true', '\u2029é']
const NUMBERS = [0, -0, 1, 255, 256, -1, 1e21, 1.5, 5e-324, 2 ** 53, Number.NaN, Infinity]

const bytesOf = (chance) => Uint8Array.from({ length: chance.below(40) }, () => chance.below(256))

/** Shapes of Baileys' own: nothing that only looks like one of the spellings of bytes. */
const LEAVES = [
  (chance) => Buffer.from(bytesOf(chance)),
  (chance) => bytesOf(chance),
  (chance) => new Uint8Array([9, ...bytesOf(chance), 9]).subarray(1, -1),
  (chance) => chance.of(TEXTS),
  (chance) => chance.of(NUMBERS),
  () => true,
  () => false,
  () => null,
  () => undefined,
  (chance) => ({ low: chance.below(1000), high: -1, unsigned: false }),
  () => ({ toJSON: () => ({ keyData: 'AQL9', timestamp: '1700000000', at: new Date(0) }) }),
  () => new Date(1_700_000_000_000),
  (chance) => Object.assign(Object.create({ inherited: 1 }), { own: chance.of(TEXTS) }),
]

function value(chance, depth) {
  if (depth === 0 || chance.below(3) === 0) return chance.of(LEAVES)(chance)
  if (chance.below(4) === 0) return chance.list(4, () => value(chance, depth - 1))
  const members = chance.below(5) === 0 ? Object.create(null) : {}
  for (const name of chance.list(5, () => chance.of([...WORDS, ...ODDITIES]))) {
    const member = value(chance, depth - 1)
    Object.defineProperty(members, name, { value: member, enumerable: true, configurable: true, writable: true })
  }
  // Left to the tests of what each side does with objects that only look like bytes.
  if (members.type === 'Buffer' || members.buffer === true || looksIndexed(members)) return { members: 1 }
  return members
}

/** 7.x revives every object of numeric names and numbers. */
function looksIndexed(members) {
  const names = Object.keys(members).filter((name) => members[name] !== undefined)
  const numeric = names.length > 0 && names.every((name) => !Number.isNaN(Number.parseInt(name, 10)))
  return numeric && names.every((name) => typeof members[name] === 'number')
}

/** deepEqual that tells half characters, own `__proto__` and the sort of bytes apart. */
const hex = (_name, member) => (member?.type === 'Buffer' ? Buffer.from(member.data).toString('hex') : member)
const show = (any) => JSON.stringify(any, hex)

for (const version of VERSIONS) {
  test(`texts and values are those of BufferJSON of ${version}`, async () => {
    const { BufferJSON, initAuthCreds, proto } = await loadRelease(version)
    const check = (given, what) => {
      const expected = JSON.stringify(given, BufferJSON.replacer)
      if (expected === undefined || expected === 'null') {
        assert.throws(() => encode(given), TypeError, what)
        return
      }
      const text = encode(given)
      assert.equal(text, expected, what)
      const [ours, theirs] = [decode(text), JSON.parse(text, BufferJSON.reviver)]
      assert.equal(show(ours), show(theirs), what)
      if (Buffer.isBuffer(theirs)) assert.ok(Buffer.isBuffer(ours), what)
      // Once more, now from what a store hands out.
      assert.equal(encode(ours), expected, what)
    }
    const first = randomInt(2 ** 31)
    for (let seed = first; seed < first + RUNS; seed++) check(value(new Chance(seed), 4), `seed ${seed}`)
    check(initAuthCreds(), 'creds')
    const { AppStateSyncKeyData } = proto.Message
    const plain = { keyData: 'AQL9', fingerprint: { rawId: 1, deviceIndexes: [0, 2] }, timestamp: 1_700_000_000_000 }
    check(AppStateSyncKeyData.fromObject(plain), 'a protobuf message')
  })

  test(`each spelling that ${version} reads is read the same`, async () => {
    const { BufferJSON } = await loadRelease(version)
    const spellings = [
      '{"type":"Buffer","data":"AQL9"}',
      '{"data":"AQL9","type":"Buffer"}',
      ' { "type" : "Buffer" , "data" : "AQL9" } ',
      '{"type":"Buffer","data":"A\\u0051L9"}',
      '{"t\\u0079pe":"\\u0042uffer","data":"AQL9"}',
      '{"type":"Buffer","data":""}',
      '{"type":"Buffer","data":[1,2,253]}',
      '{"type":"Buffer","data":[]}',
      '{"buffer":true,"value":"AQL9"}',
      '{"buffer":true,"data":[1,2,253]}',
      '{"0":1,"1":2,"2":253}',
    ]
    for (const spelling of spellings) {
      const theirs = JSON.parse(spelling, BufferJSON.reviver)
      // What a release does not know as bytes it would hand out as a plain object; no key works as one.
      if (Buffer.isBuffer(theirs)) assert.deepEqual(decode(spelling), theirs, spelling)
      else assert.ok(Buffer.isBuffer(decode(spelling)), spelling)
      assert.match(encode(decode(spelling)), /^\{"type":"Buffer","data":"[^"]*"\}$/)
    }
  })
}
