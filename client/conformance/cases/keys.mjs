/** Which values and ids a store has to keep apart, and give back as they were. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

const bytes = (length) => randomBytes(length)
const sameBytes = (found, given, what) => {
  assert.ok(found instanceof Uint8Array, `${what} came back as ${found === null ? 'null' : typeof found}`)
  assert.deepEqual(Buffer.from(found), Buffer.from(given), what)
}
const keyPair = () => ({ private: bytes(32), public: bytes(32) })

/** Values that differ, so that ids that are mistaken for each other are noticed. */
const apart = (...ids) => Object.fromEntries(ids.map((id, n) => [id, { n, id }]))

/** An object whose names are its own, whatever they are. */
const ownNames = (entries) => JSON.parse(`{${entries.map(([id, n]) => `${JSON.stringify(id)}:${n}`).join()}}`)

export const KEYS_CASES = [
  {
    name: 'ids that are not stored are left out',
    why: 'outside of a transaction Baileys 7.x reads `.public` of a null',
    async run(bed) {
      const { state } = await bed.open()
      const found = await state.keys.get('pre-key', ['1', '2'])
      assert.deepEqual(Object.keys(found), [], `answered with ${JSON.stringify(found)}`)
    },
  },
  {
    name: 'pre-keys come back as Buffers',
    why: 'a Uint8Array or a plain object is no key to libsignal',
    run: (bed) => bed.keeps('pre-key', { 1: keyPair(), 16777215: keyPair() }),
  },
  {
    name: 'sessions come back as they were',
    why: 'plain JSON with base64 strings, which no reviver may touch',
    run: (bed) =>
      bed.keeps('session', {
        '15550000000.0': {
          _sessions: { 'BQ+/=': { registrationId: 0, currentRatchet: { rootKey: 'AAA=' }, _chains: {} } },
          version: 'v1',
        },
        '100000000000001_1.99': { _sessions: {}, version: 'v1' },
      }),
  },
  {
    name: 'sender keys come back as bytes, also of half a megabyte and none',
    why: 'own sender keys grow by 220 bytes a message',
    async run(bed) {
      const id = (user) => `120363000000000001@g.us::${user}::0`
      await bed.keeps('sender-key', { [id(1)]: bytes(500_000), [id(2)]: Buffer.alloc(0) }, sameBytes)
    },
  },
  {
    name: 'identity keys come back as bytes',
    why: 'Baileys 7.x stores a Uint8Array',
    run: (bed) => bed.keeps('identity-key', { '15550000000.0': new Uint8Array(bytes(33)) }, sameBytes),
  },
  {
    name: 'app-state keys come back with bytes',
    why: 'as strings they make wrong MACs without an error',
    async run(bed) {
      const { AppStateSyncKeyData } = bed.baileys.proto.Message
      const keyData = bytes(32)
      const id = 'AAAAAAL/u5E='
      const fingerprint = { rawId: 1, currentIndex: 0, deviceIndexes: [0, 1] }
      const plain = { keyData, fingerprint, timestamp: 1_700_000_000 }
      const first = await bed.open()
      await first.state.keys.set({ 'app-state-sync-key': { [id]: AppStateSyncKeyData.fromObject(plain) } })
      const check = async ({ state }) => {
        const found = (await state.keys.get('app-state-sync-key', [id]))[id]
        sameBytes(found.keyData, keyData, 'keyData')
        assert.deepEqual(found.fingerprint.deviceIndexes, [0, 1])
      }
      await check(first)
      await check(await bed.reopen(first))
    },
  },
  {
    name: 'app-state versions keep the bytes within them',
    why: 'a hash and a MAC for each index',
    run: (bed) =>
      bed.keeps('app-state-sync-version', {
        regular_low: { version: 3, hash: bytes(128), indexValueMap: { 'a+/=': { valueMac: bytes(32) } } },
      }),
  },
  {
    name: 'strings, lists and maps of flags are values',
    why: 'lid-mapping, device-list and sender-key-memory',
    async run(bed) {
      await bed.keeps('lid-mapping', { 15550000000: '100000000000001', '100000000000001_reverse': '15550000000' })
      await bed.keeps('device-list', { 15550000000: ['0', '7'] })
      await bed.keeps('sender-key-memory', { '120363000000000001@g.us': { '15550000000:3@s.whatsapp.net': true } })
    },
  },
  {
    name: 'a token of no bytes is kept',
    why: 'tctoken has them, and an index beside them',
    run: (bed) =>
      bed.keeps('tctoken', {
        '100000000000001@lid': { token: Buffer.alloc(0), timestamp: '1700000000' },
        __index: { token: Buffer.from('["100000000000001@lid"]') },
      }),
  },
  {
    name: 'empty and zero values are values',
    why: 'only null deletes',
    run: (bed) => bed.keeps('session', { text: '', zero: 0, no: false, list: [], object: {} }),
  },
  {
    name: 'objects of numeric names stay objects',
    why: 'a reviver that takes them for bytes loses them',
    run: (bed) => bed.keeps('session', { a: { 5511: 1, 5512: 300 } }),
  },
  {
    name: 'half characters and control characters are kept',
    why: 'push names are cut in the middle of an emoji',
    run: (bed) => bed.keeps('session', { a: { name: 'x\ud83d', nul: '\u0000', line: '\u2028' } }),
  },
  {
    name: 'ids that differ only by : and - are two',
    why: 'old group ids hold a -, sender-key ids a :',
    run: (bed) => bed.keeps('sender-key-memory', apart('555-16@g.us', '555:16@g.us')),
  },
  {
    name: 'ids that differ only by / and __ are two',
    why: 'app-state key ids are base64',
    run: (bed) => bed.keeps('session', apart('AA/BB', 'AA__BB')),
  },
  {
    name: 'ids that differ only by case are two',
    why: 'base64 again',
    run: (bed) => bed.keeps('session', apart('AAaa', 'aaAA', 'AAAA')),
  },
  {
    name: 'a type that begins like another is another',
    why: 'sender-key and sender-key-memory',
    async run(bed) {
      const opened = await bed.open()
      const values = { 'sender-key': { 'memory-a': { is: 'key' } }, 'sender-key-memory': { a: { is: 'memory' } } }
      await opened.state.keys.set(values)
      assert.deepEqual((await opened.state.keys.get('sender-key', ['memory-a']))['memory-a'], { is: 'key' })
      assert.deepEqual((await opened.state.keys.get('sender-key-memory', ['a'])).a, { is: 'memory' })
    },
  },
  {
    name: 'names of Object.prototype are ids like others',
    why: 'with a plain object as a map they are found without being there',
    async run(bed) {
      const ids = ['constructor', '__proto__', 'toString']
      const { state } = await bed.open()
      const none = await state.keys.get('session', ids)
      for (const id of ids) assert.ok(!Object.hasOwn(none, id), `${id} is there before it was set`)
      const values = ownNames(ids.map((id, n) => [id, n + 1]))
      await state.keys.set({ session: values })
      const found = await state.keys.get('session', ids)
      for (const id of ids) assert.equal(found[id], values[id], id)
    },
  },
  {
    name: 'ids of three hundred characters are kept',
    why: 'ids are opaque; a file name ends at 255',
    run: (bed) => bed.keeps('session', { ['x'.repeat(300)]: { a: 1 } }),
  },
  {
    name: 'thousands of ids are read and written at once',
    why: 'a send to a large group, a history of contacts',
    async run(bed) {
      const row = (_, n) => [`1555${n}.0`, { n, filler: 'x'.repeat(500) }]
      const many = Object.fromEntries(Array.from({ length: 3000 }, row))
      const first = await bed.open()
      await first.state.keys.set({ session: many })
      const again = await bed.reopen(first)
      const asked = [...Object.keys(many), ...Array.from({ length: 2000 }, (_, n) => `absent-${n}`)]
      const found = await again.state.keys.get('session', asked)
      assert.equal(Object.values(found).filter(Boolean).length, 3000)
      assert.deepEqual(found['15552999.0'], many['15552999.0'])
    },
  },
]
