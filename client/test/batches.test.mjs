/** Sessions of one process on one service: they share requests, and nothing else. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { CommitLine } from '../dist/esm/commit-line.js'
import { baileys } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `batches-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const openMany = (count, more) => Promise.all(Array.from({ length: count }, () => open(newName(), more)))
const closeAll = (auths) => Promise.all(auths.map((auth) => auth.close()))
const isBatch = ({ path }) => path === '/v1/commits'
const writes = () => faults.seen.filter((request) => isBatch(request) || request.path.endsWith('/commit'))
const membersOf = ({ body }) => JSON.parse(body).commits

/** @returns each attempt to commit, whichever way it left, by its Idempotency-Key */
function attempts() {
  const byKey = new Map()
  const note = (key, commit) => byKey.set(key, [...(byKey.get(key) ?? []), JSON.stringify(commit)])
  for (const request of writes()) {
    if (isBatch(request)) {
      for (const member of membersOf(request)) {
        const { session, idempotency_key: key, lease_epoch: epoch, if_match: match, ...rest } = member
        note(key, { session, epoch, match, ...rest })
      }
    } else {
      const session = request.path.split('/')[3]
      const { 'idempotency-key': key, 'lease-epoch': epoch, 'if-match': match } = request.headers
      note(key, { session, epoch: Number(epoch), match: Number(match.slice(1, -1)), ...JSON.parse(request.body) })
    }
  }
  return byKey
}

test('what the queues of many sessions hold shares requests; each writer gets its own yes', async () => {
  const auths = await openMany(30)
  faults.seen.length = 0
  for (let turn = 0; turn < 5; turn++) {
    await Promise.all(auths.map(({ state }, n) => state.keys.set({ session: { a: { n, turn } } })))
  }
  assert.ok(writes().length <= 15, `${writes().length} requests for 150 commits`)
  assert.equal(attempts().size, 150)
  const stored = await Promise.all(auths.map(({ state }) => state.keys.get('session', ['a'])))
  assert.deepEqual(stored.map(({ a }) => a), auths.map((_, n) => ({ n, turn: 4 })))
  await closeAll(auths)
})

test('while requests are out the rest gathers, without waiting for company', async () => {
  const auths = await openMany(20)
  faults.seen.length = 0
  const all = auths.map(async ({ state }, n) => {
    await new Promise((resolve) => setTimeout(resolve, n))
    for (let turn = 0; turn < 10; turn++) await state.keys.set({ session: { a: { turn } } })
  })
  await Promise.all(all)
  const sizes = writes().map((request) => (isBatch(request) ? membersOf(request).length : 1))
  assert.equal(sizes.reduce((sum, size) => sum + size), 200)
  assert.ok(sizes.length < 150, `${sizes.length} requests for 200 commits`)
  for (const request of writes().filter(isBatch)) {
    const sessions = membersOf(request).map(({ session }) => session)
    assert.equal(new Set(sessions).size, sessions.length)
  }
  await closeAll(auths)
})

test('sixteen leave in one request, more are spread over what may be under way', async () => {
  for (const [count, sizes] of [[16, [16]], [32, [16, 16]], [60, [20, 20, 20]]]) {
    const auths = await openMany(count)
    faults.seen.length = 0
    await Promise.all(auths.map(({ state }) => state.keys.set({ session: { a: { count } } })))
    assert.deepEqual(writes().map((request) => membersOf(request).length), sizes)
    await closeAll(auths)
  }
})

test('a failing member fails alone', async () => {
  const auths = await openMany(10)
  const { url, token } = service
  const session = await nameOf(auths[3])
  const taker = await useRemoteAuthState({ url, token, session, baileys, takeover: true })
  const told = []
  auths.forEach((auth, n) => auth.on('lost', ({ reason }) => told.push([n, reason])))
  const results = await Promise.allSettled(auths.map(({ state }, n) => state.keys.set({ session: { a: { n } } })))
  assert.deepEqual(results.map(({ status }) => status), auths.map((_, n) => (n === 3 ? 'rejected' : 'fulfilled')))
  assert.deepEqual(told, [[3, 'fenced']])
  await Promise.all(auths.map(({ state }, n) => n === 3 || state.keys.set({ session: { a: { n, again: true } } })))
  await closeAll(auths)
  await taker.close()
})

test('commits keep their key and their text when they are repeated in other company', async () => {
  const auths = await openMany(12)
  faults.seen.length = 0
  const faultsLeft = ['lose-answer', 'lose-request', 'lose-answer', 'cut-answer', problem(503, 'unavailable')]
  faults.rule = (request) => (isBatch(request) ? faultsLeft.shift() : undefined)
  await Promise.all(
    auths.map(async ({ state }, n) => {
      for (let turn = 0; turn < 4; turn++) await state.keys.set({ session: { a: { n, turn } } })
    }),
  )
  assert.equal(faultsLeft.length, 0)
  const byKey = attempts()
  assert.equal(byKey.size, 48)
  for (const texts of byKey.values()) assert.equal(new Set(texts).size, 1)
  assert.ok([...byKey.values()].some((texts) => texts.length > 1))
  const stored = await Promise.all(auths.map(({ state }) => state.keys.get('session', ['a'])))
  assert.deepEqual(stored.map(({ a }) => a), auths.map((_, n) => ({ n, turn: 3 })))
  await closeAll(auths)
})

test('a request that is refused as a whole is tried member by member', async () => {
  const auths = await openMany(6)
  for (const status of [400, 404, 413]) {
    faults.seen.length = 0
    faults.rule = (request) => (isBatch(request) ? problem(status, 'refused') : undefined)
    await Promise.all(auths.map(({ state }, n) => state.keys.set({ session: { a: { n, status } } })))
    const byKey = attempts()
    assert.equal(byKey.size, 6)
    for (const texts of byKey.values()) assert.equal(new Set(texts).size, 1)
  }
  await closeAll(auths)
})

test('an answer of another shape counts as none', async () => {
  const auths = await openMany(4)
  for (const body of [{}, { results: [] }, { results: null }]) {
    const answers = [{ status: 200, body }]
    faults.rule = (request) => (isBatch(request) ? answers.shift() : undefined)
    await Promise.all(auths.map(({ state }) => state.keys.set({ session: { a: 1 } })))
    assert.equal(answers.length, 0)
  }
  const versions = [1, 2, 3, 4].map((version) => ({ version, epoch: 1 }))
  for (const results of [[{}, {}, {}, {}], [null, null, null, null], versions]) {
    const answers = [{ status: 200, body: { results } }]
    faults.rule = (request) => (isBatch(request) ? answers.shift() : undefined)
    await Promise.all(auths.map(({ state }) => state.keys.set({ session: { b: results.length } })))
    assert.equal(answers.length, 0)
  }
  const stored = await Promise.all(auths.map(({ state }) => state.keys.get('session', ['b'])))
  assert.deepEqual(stored.map(({ b }) => b), [4, 4, 4, 4])
  await closeAll(auths)
})

test('large commits travel apart', async () => {
  const auths = await openMany(4)
  faults.seen.length = 0
  const large = { text: 'x'.repeat(700_000) }
  await Promise.all(auths.map(({ state }) => state.keys.set({ session: { a: large } })))
  for (const { body } of writes()) assert.ok(body.length < 1_600_000, `${body.length} bytes`)
  await closeAll(auths)
})

async function nameOf(auth) {
  const before = faults.seen.length
  await auth.saveCreds()
  return faults.seen.slice(before).find(({ path }) => path.endsWith('/commit')).path.split('/')[3]
}

test('a commit that cannot be put together fails its writers and nobody else', async () => {
  const line = new CommitLine(undefined)
  const failed = await new Promise((resolve) => {
    line.ready({
      depart: () => 'x'.repeat(2 ** 29).repeat(2),
      failed: resolve,
    })
  })
  assert.equal(failed.code, 'unavailable')
})

test('a commit that the store cannot answer takes no other session with it', async () => {
  const auths = await openMany(30, { requestTimeoutMs: 500, commitDeadlineMs: 5_000 })
  const session = await nameOf(auths[0])
  const told = []
  auths.forEach((auth, n) => auth.on('lost', ({ reason }) => told.push([n, reason])))
  faults.rule = ({ path, body }) => (path.includes(session) || body.includes(session) ? 'hang' : undefined)
  faults.seen.length = 0
  let more = true
  const stuck = assert.rejects(auths[0].state.keys.set({ session: { a: 1 } }), { code: 'lost' })
  const writers = auths.slice(1).map(async ({ state }) => {
    for (let turn = 0; more; turn++) await state.keys.set({ session: { a: { turn } } })
  })
  await stuck
  more = false
  await Promise.all(writers)
  assert.deepEqual(told, [[0, 'unavailable']])
  const inCompany = faults.seen.filter((request) => isBatch(request) && request.body.includes(session))
  assert.ok(inCompany.length <= 1, `${inCompany.length} requests with the others`)
  faults.rule = () => undefined
  await closeAll(auths)
})
