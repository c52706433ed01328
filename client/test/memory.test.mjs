/** A store that must stay small: values are let go and asked for again, and nobody can tell but by the requests. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys, preKey } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `memory-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const reads = () => faults.seen.filter(({ path }) => path.endsWith('/keys/get'))
const sorted = ([type, ids]) => [type, ids.sort()]
const idsOf = ({ body }) => Object.fromEntries(Object.entries(JSON.parse(body)).map(sorted))
const value = (n) => ({ n, filler: 'x'.repeat(1000) })
const values = (count) => Object.fromEntries(Array.from({ length: count }, (_, n) => [String(n), value(n)]))

async function filled(count, more) {
  const session = newName()
  const auth = await open(session)
  await auth.state.keys.set({ session: values(count), 'pre-key': { 1: preKey() } })
  await auth.close()
  faults.seen.length = 0
  return open(session, more)
}

test('by default nothing is asked for after opening', async () => {
  const auth = await filled(100)
  const ids = Object.keys(values(200))
  const found = await auth.state.keys.get('session', ids)
  assert.deepEqual(Object.keys(found).length, 100)
  assert.deepEqual(found['99'], value(99))
  assert.equal(reads().length, 0)
  await auth.close()
})

test('single gets of one tick share one request, of all types; misses need none', async () => {
  const auth = await filled(60, { memoryBytes: 0 })
  const { keys } = auth.state
  const gets = Array.from({ length: 60 }, (_, n) => keys.get('session', [String(n)]))
  const other = keys.get('pre-key', ['1', '2'])
  const absent = keys.get('session', ['absent'])
  const found = await Promise.all(gets)
  found.forEach((each, n) => assert.deepEqual({ ...each }, { [n]: value(n) }))
  assert.deepEqual(Object.keys(await other), ['1'])
  assert.deepEqual(Object.keys(await absent), [])
  assert.equal(reads().length, 1)
  assert.deepEqual(idsOf(reads()[0]), { session: Object.keys(values(60)).sort(), 'pre-key': ['1'] })
  await keys.get('session', ['absent', 'too'])
  await keys.get('none', ['0'])
  assert.equal(reads().length, 1)
  await auth.close()
})

test('within the bound the values used last stay', async () => {
  const auth = await filled(50, { memoryBytes: 10_500 })
  const { keys } = auth.state
  const get = async (id) => assert.deepEqual((await keys.get('session', [id]))[id], value(Number(id)))
  for (let n = 0; n < 50; n++) await get(String(n))
  const asked = reads().length
  assert.ok(asked >= 40, `${asked} requests`)
  for (let n = 41; n < 50; n++) await get(String(n))
  assert.equal(reads().length, asked)
  // Used again, the oldest outlives the others.
  await get('41')
  for (let n = 0; n < 8; n++) await get(String(n))
  await get('41')
  assert.equal(reads().length, asked + 8)
  await get('42')
  assert.equal(reads().length, asked + 9)
  await auth.close()
})

test('what is not stored yet is not let go, and is read without asking', async () => {
  const auth = await filled(5, { memoryBytes: 0 })
  const { keys } = auth.state
  let stored = false
  faults.rule = ({ path }) => (path.endsWith('/commit') && !stored ? problem(503, 'unavailable') : undefined)
  const written = keys.set({ session: { 1: value(101), new: value(7), 2: null } })
  const reading = keys.get('session', ['1', '2', 'new'])
  await keys.get('session', ['3'])
  stored = true
  await written
  assert.deepEqual({ ...(await reading) }, { 1: value(101), new: value(7) })
  assert.deepEqual(reads().map(idsOf), [{ session: ['3'] }])
  // Stored, it is let go.
  assert.deepEqual({ ...(await keys.get('session', ['1', '2', 'new'])) }, { 1: value(101), new: value(7) })
  assert.deepEqual(reads().map(idsOf)[1], { session: ['1', 'new'] })
  await auth.close()
})

test('a read sees writes that come while it asks whole or not at all', async () => {
  const auth = await filled(2, { memoryBytes: 1100 })
  const { keys } = auth.state
  for (let turn = 1; turn <= 40; turn++) {
    const [first, second] = [keys.get('session', ['0', '1']), keys.set({ session: { 0: { turn }, 1: { turn } } })]
    const third = new Promise((resolve) => setTimeout(resolve, turn % 5)).then(() => keys.get('session', ['0', '1']))
    for (const found of await Promise.all([first, third])) assert.equal(found[0].turn, found[1].turn)
    await second
    assert.deepEqual({ ...(await keys.get('session', ['0', '1'])) }, { 0: { turn }, 1: { turn } })
  }
  await auth.close()
})

test('list and clear reach what is not in memory', async () => {
  const auth = await filled(600, { memoryBytes: 0 })
  const { keys } = auth.state
  const listed = {}
  for await (const [id, each] of keys.list('session')) listed[id] = each
  assert.deepEqual(listed, values(600))
  assert.equal(reads().length, 3)
  await keys.clear()
  assert.equal((await keys.listIds('session').next()).done, true)
  await auth.close()
})

test('a read waits out an outage; past the deadline it ends the session and is no miss', async () => {
  const auth = await filled(2, { memoryBytes: 0, commitDeadlineMs: 500 })
  const { keys } = auth.state
  const answers = [problem(503, 'unavailable'), 'lose-request', 'lose-answer']
  faults.rule = () => answers.shift()
  assert.deepEqual((await keys.get('session', ['1']))[1], value(1))
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  faults.rule = () => 'lose-request'
  await assert.rejects(keys.get('session', ['1']), { code: 'lost', reason: 'unavailable' })
  assert.equal((await lost).reason, 'unavailable')
  faults.rule = () => undefined
  await auth.close()
})

test('a key that vanished is corrupt, or was taken by another owner: never a miss', async () => {
  const session = newName()
  const auth = await open(session)
  await auth.state.keys.set({ session: values(2) })
  await auth.close()
  const first = await open(session, { memoryBytes: 0 })
  const ownEpoch = (await ask(`/v1/sessions/${session}`)).epoch
  await ask(`/v1/sessions/${session}/commit`, { keys: { session: { 1: null } } }, { 'lease-epoch': String(ownEpoch) })
  await assert.rejects(first.state.keys.get('session', ['1']), { code: 'lost', reason: 'corrupt' })
  await first.close()

  const second = await open(session, { memoryBytes: 0 })
  const third = await open(session, { takeover: true })
  await third.state.keys.clear()
  await assert.rejects(second.state.keys.get('session', ['0']), { code: 'lost', reason: 'fenced' })
  await second.close()
  await third.close()
})

async function ask(path, body, headers) {
  const authorization = `Bearer ${service.token}`
  const method = body ? 'POST' : 'GET'
  const init = { method, headers: { authorization, 'content-type': 'application/json', ...headers } }
  const response = await fetch(service.url + path, { ...init, body: body && JSON.stringify(body) })
  assert.ok(response.ok)
  return response.json()
}
