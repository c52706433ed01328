/** What the service takes at most in one request: whatever is written or read, requests keep within it. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys, preKey } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const open = (more) => {
  const session = `bounds-${randomUUID()}`
  return useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
}
const ids = (from, count) => Array.from({ length: count }, (_, n) => String(from + n))
const mapping = (from, count) => ({ 'lid-mapping': Object.fromEntries(ids(from, count).map((id) => [id, id])) })
const bodies = () => faults.commits().map(({ body }) => JSON.parse(body))

/** Holds the next commit back. @returns what lets it go. */
function stall() {
  let go
  const held = new Promise((resolve) => (go = resolve))
  faults.delay = ({ path }) => (path.endsWith('/commit') ? held : undefined)
  return () => {
    faults.delay = undefined
    go()
  }
}

test('more keys than one request may hold are written, read and cleared', { timeout: 120_000 }, async () => {
  const { state, close } = await open({ memoryBytes: 0 })
  await Promise.all(Array.from({ length: 11 }, (_, n) => state.keys.set(mapping(n * 10_000, 10_000))))
  const found = await state.keys.get('lid-mapping', ids(0, 110_000))
  assert.equal(Object.keys(found).length, 110_000)
  assert.equal(found['109999'], '109999')
  const last = state.keys.set({ session: { last: 1 } })
  await state.keys.clear()
  await last
  await state.keys.set({ session: { after: 1 } })
  await close()
  const { path } = faults.commits()[0]
  const headers = { authorization: `Bearer ${service.token}` }
  const stored = await (await fetch(service.url + path.replace('/commit', '/state'), { headers })).json()
  assert.deepEqual(stored.keys, { session: { after: 1 } })
})

test('a set of more keys than a request may bring is refused when it is set, and the session lives on', async () => {
  const { state, close } = await open()
  const refused = { code: 'refused', status: 422, problem: 'too-many-keys' }
  await assert.rejects(state.keys.set({ ...mapping(0, 100_000), session: { a: 1 } }), refused)
  await state.keys.set({ session: { a: 1 } })
  await close()
})

test('ids and what stands around them count in the size of a set', async () => {
  const { state, close } = await open()
  const long = Object.fromEntries(ids(100_000, 99_000).map((id) => [`${id}${'"'.repeat(320)}`, 1]))
  await assert.rejects(state.keys.set({ x: long }), { code: 'refused', status: 413 })
  await state.keys.set({ session: { a: 1 } })
  await close()
})

test('writes that gather share commits of about a mebibyte: a service that takes little takes them too', async () => {
  const { state, close } = await open()
  faults.seen.length = 0
  const go = stall()
  const large = 'x'.repeat(1.8 * 2 ** 20)
  const sets = []
  for (let n = 0; n < 6; n++) {
    sets.push(state.keys.set({ x: { [`large-${n}`]: large } }), state.keys.set({ x: { [`small-${n}`]: n } }))
    await sleep(5)
  }
  faults.rule = ({ body }) => (body.length > 4 * 2 ** 20 ? problem(413, 'too-large') : undefined)
  go()
  await Promise.all(sets)
  for (const { keys } of bodies()) assert.ok(Object.keys(keys.x).filter((id) => id.startsWith('large')).length <= 1)
  faults.seen.length = 0
  const next = stall()
  const many = ids(0, 1000).map(async (id) => {
    if (id !== '0') await sleep(1)
    return state.keys.set({ session: { [id]: 'y'.repeat(500) } })
  })
  await sleep(100)
  next()
  await Promise.all(many)
  assert.ok(bodies().length <= 3, `${bodies().length} commits of 1,000 small sets`)
  await close()
})

test('creds and the keys of their tick share a commit, whatever waits and however large they are', async () => {
  const { state, saveCreds, close } = await open()
  const wait = { x: { waiting: 'x'.repeat(2 ** 20 - 1000) } }
  const pair = preKey()
  for (const [n, write] of [
    (keys) => [saveCreds(), keys()],
    (keys) => [keys(), saveCreds()],
    (keys) => [saveCreds(), Promise.resolve().then(keys)],
  ].entries()) {
    const first = state.keys.set({ session: { first: n } })
    const go = stall()
    await sleep(20)
    const others = [state.keys.set(wait), sleep(20)]
    await others[1]
    faults.seen.length = 0
    state.creds.nextPreKeyId++
    const filler = 'y'.repeat(n * 2 ** 20)
    const both = write(() => state.keys.set({ 'pre-key': { [n]: { ...pair, filler } } }))
    await sleep(20)
    go()
    await Promise.all([first, ...others, ...both])
    const [commit] = bodies().filter(({ creds }) => creds?.nextPreKeyId === state.creds.nextPreKeyId)
    assert.ok(commit.keys['pre-key'][n], `${n}`)
  }
  await close()
})

test('what shares a commit with creds is counted in bytes: two sets that fit alone may not fit together', async () => {
  const { state, saveCreds, close } = await open()
  const large = '\u00e4'.repeat(16 * 2 ** 20)
  faults.seen.length = 0
  const write = (id, value) => state.keys.set({ 'app-state-sync-version': { [id]: value } })
  await Promise.all([saveCreds(), write('a', large), write('b', large)])
  assert.equal(faults.commits().length, 2)
  await close()
})

test('sets of one tick with creds share a commit as long as their bytes fit', async () => {
  const { state, saveCreds, close } = await open()
  const [wide, narrow] = ['\u00e4'.repeat(5 * 2 ** 20), 'x'.repeat(2 * 2 ** 20)]
  faults.seen.length = 0
  const write = (id, value) => state.keys.set({ 'app-state-sync-version': { [id]: value } })
  await Promise.all([saveCreds(), write('a', wide), write('b', narrow), write('c', 1)])
  assert.equal(faults.commits().length, 1)
  await close()
})
