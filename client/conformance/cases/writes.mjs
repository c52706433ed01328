/** What a write promises: all of it, in order, there when it says so, and nobody else's. */
import assert from 'node:assert/strict'

const silent = { level: 'silent', child: () => silent, trace() {}, debug() {}, info() {}, warn() {}, error() {} }
const get = async ({ state }, type, id) => (await state.keys.get(type, [id]))[id]
const isAbsent = (value) => assert.ok(value === undefined || value === null, `it is ${JSON.stringify(value)}`)

export const WRITES_CASES = [
  {
    name: 'null deletes, for good',
    why: 'a used pre-key must not come back',
    async run(bed) {
      const first = await bed.open()
      await first.state.keys.set({ 'pre-key': { 1: { a: 1 }, 2: { a: 2 } } })
      await first.state.keys.set({ 'pre-key': { 1: null } })
      isAbsent(await get(first, 'pre-key', '1'))
      const second = await bed.reopen(first)
      isAbsent(await get(second, 'pre-key', '1'))
      assert.deepEqual(await get(second, 'pre-key', '2'), { a: 2 })
    },
  },
  {
    name: 'nothing to write, or an absent key to delete, is no error',
    why: 'Baileys filters its own deletions',
    async run(bed) {
      const { state } = await bed.open()
      await state.keys.set({})
      await state.keys.set({ 'pre-key': {} })
      await state.keys.set({ 'pre-key': { 1: null } })
    },
  },
  {
    name: 'undefined is never stored',
    why: 'it has no JSON form',
    async run(bed) {
      const first = await bed.open()
      await first.state.keys.set({ session: { a: undefined } })
      isAbsent(await get(first, 'session', 'a'))
      isAbsent(await get(await bed.reopen(first), 'session', 'a'))
    },
  },
  {
    name: 'a value is stored as it was when it was set',
    why: 'Baileys goes on changing sessions it has handed over',
    async run(bed) {
      const first = await bed.open()
      const value = { counter: 1, list: [1], key: Buffer.from([1]) }
      const written = first.state.keys.set({ session: { a: value } })
      value.counter = 2
      value.list.push(2)
      value.key[0] = 2
      await written
      const second = await bed.reopen(first)
      assert.deepEqual(await get(second, 'session', 'a'), { counter: 1, list: [1], key: Buffer.from([1]) })
    },
  },
  {
    name: 'what is handed out is the caller’s own',
    why: 'migrateSession pushes into the device list it got',
    async run(bed) {
      const opened = await bed.open()
      await opened.state.keys.set({ 'device-list': { a: ['0'] } })
      ;(await get(opened, 'device-list', 'a')).push('1')
      assert.deepEqual(await get(opened, 'device-list', 'a'), ['0'])
    },
  },
  {
    name: 'a set of which one value cannot be stored stores none',
    why: 'a session without its used pre-key, or the reverse, ends a conversation',
    async run(bed) {
      const first = await bed.open()
      await first.state.keys.set({ session: { a: { n: 1 } } })
      const half = { session: { a: { n: 2 }, b: { n: 2 } }, 'pre-key': { 1: { n: 2n } } }
      await assert.rejects(async () => first.state.keys.set(half), 'it was taken')
      const second = await bed.reopen(first)
      assert.deepEqual(await get(second, 'session', 'a'), { n: 1 })
      isAbsent(await get(second, 'session', 'b'))
    },
  },
  {
    name: 'a reader never sees half of a set',
    why: 'two rows of one commit belong together',
    async run(bed) {
      const { state } = await bed.open()
      const filler = 'x'.repeat(20_000)
      const pair = (n) => ({ session: { a: { n, filler }, b: { n, filler } } })
      await state.keys.set(pair(0))
      let over = false
      const writing = (async () => {
        for (let n = 1; n <= 200; n++) await state.keys.set(pair(n))
      })().finally(() => (over = true))
      while (!over) {
        const { a, b } = await state.keys.get('session', ['a', 'b'])
        assert.equal(a?.n, b?.n, 'two halves of different sets')
      }
      await writing
    },
  },
  {
    name: 'writes that nobody waited for arrive in their order',
    why: 'saveCreds is not awaited, and sets overlap',
    async run(bed) {
      const first = await bed.open()
      const writes = []
      // Shorter ones are quicker where nothing keeps the order.
      for (let n = 0; n < 50; n++) {
        writes.push(first.state.keys.set({ session: { a: { n, filler: 'x'.repeat((50 - n) * 20_000) } } }))
      }
      await Promise.all(writes)
      assert.equal((await get(first, 'session', 'a')).n, 49)
      assert.equal((await get(await bed.reopen(first), 'session', 'a')).n, 49)
    },
  },
  {
    name: 'a write is seen by the next read',
    why: 'Baileys reads what it has just set',
    async run(bed) {
      const opened = await bed.open()
      const written = opened.state.keys.set({ session: { a: { n: 1 } } })
      const [found] = await Promise.all([get(opened, 'session', 'a'), written])
      assert.deepEqual(found, { n: 1 })
    },
  },
  {
    name: 'a set that was answered outlives its process',
    why: 'the ratchet has moved: Baileys has sent the message',
    needs: 'spawn',
    async run(bed) {
      const child = await bed.store.spawn(bed.name)
      await child.answered
      await child.kill()
      const after = await bed.open({ life: 'after a crash' })
      const ids = Array.from({ length: 200 }, (_, n) => `${n}`)
      const found = await after.state.keys.get('session', ids)
      for (const id of ids) assert.deepEqual(found[id], { n: Number(id) }, id)
    },
  },
  {
    name: 'a transaction of Baileys is one write',
    why: 'addTransactionCapability hands over all types in one set',
    async run(bed) {
      const first = await bed.open()
      const options = { maxCommitRetries: 1, delayBetweenTriesMs: 1 }
      const keys = bed.baileys.addTransactionCapability(first.state.keys, silent, options)
      await keys.transaction(async () => {
        await keys.set({ session: { a: { n: 1 } } })
        assert.deepEqual((await keys.get('session', ['a'])).a, { n: 1 })
        await keys.set({ 'lid-mapping': { a: 'b' } })
      }, 'a')
      await keys.set({ session: { b: { n: 2 } }, 'device-list': { a: ['0'] } })
      const second = await bed.reopen(first)
      assert.deepEqual(await get(second, 'session', 'a'), { n: 1 })
      assert.equal(await get(second, 'lid-mapping', 'a'), 'b')
      assert.deepEqual(await get(second, 'device-list', 'a'), ['0'])
    },
  },
  {
    name: 'Baileys’ cache before the store changes nothing',
    why: 'makeCacheableSignalKeyStore is what its own example uses',
    async run(bed) {
      const first = await bed.open()
      const keys = bed.baileys.makeCacheableSignalKeyStore(first.state.keys, silent)
      await keys.set({ session: { a: { n: 1 } } })
      await keys.set({ session: { a: { n: 2 }, b: { n: 3 } } })
      await keys.set({ session: { b: null } })
      assert.deepEqual((await keys.get('session', ['a'])).a, { n: 2 })
      const second = await bed.reopen(first)
      assert.deepEqual(await get(second, 'session', 'a'), { n: 2 })
      isAbsent(await get(second, 'session', 'b'))
    },
  },
  {
    name: 'clear, where there is one, takes all keys and leaves creds',
    why: 'optional in the interface',
    async run(bed) {
      const first = await bed.open()
      if (!first.state.keys.clear) return
      await first.state.keys.set({ session: { a: { n: 1 } }, 'pre-key': { 1: { n: 1 } } })
      await first.saveCreds()
      await first.state.keys.clear()
      const second = await bed.reopen(first)
      isAbsent(await get(second, 'session', 'a'))
      isAbsent(await get(second, 'pre-key', '1'))
      assert.deepEqual(second.state.creds.noiseKey, first.state.creds.noiseKey)
    },
  },
  {
    name: 'list and listIds, where there are any, are of their type alone',
    why: 'optional in the coming interface; by file name they mix sender-key and sender-key-memory up',
    async run(bed) {
      const { state } = await bed.open()
      await state.keys.set({ 'sender-key': { a: { n: 1 }, b: { n: 2 } }, 'sender-key-memory': { c: { n: 3 } } })
      if (state.keys.listIds) {
        const ids = []
        for await (const id of state.keys.listIds('sender-key')) ids.push(id)
        assert.deepEqual(ids.sort(), ['a', 'b'])
      }
      if (state.keys.list) {
        const all = {}
        for await (const [id, value] of state.keys.list('sender-key')) all[id] = value
        assert.deepEqual(all, { a: { n: 1 }, b: { n: 2 } })
      }
    },
  },
]
