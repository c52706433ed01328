/** `waitMs`: waiting for a session that another owner holds. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'
import { Faults } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `wait-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const takes = () => faults.seen.filter(({ method, path }) => method === 'POST' && path.endsWith('/lease'))

/** Takes a session as a process that will not be heard of again. */
async function hold(session, ttl) {
  const headers = { authorization: `Bearer ${service.token}`, 'content-type': 'application/json' }
  const body = JSON.stringify({ holder: 'somebody', ttl_s: ttl })
  const answer = await fetch(`${service.url}/v1/sessions/${session}/lease`, { method: 'POST', headers, body })
  return answer.json()
}

test('unless told it does not wait', async () => {
  const session = newName()
  await hold(session, 60)
  await assert.rejects(open(session), { code: 'held', holder: 'somebody' })
  assert.equal(takes().length, 1)
})

test('a session that is given back meanwhile is opened, without waiting for its lease to end', async () => {
  const session = newName()
  const first = await open(session, { ttl: 600 })
  faults.seen.length = 0
  const second = open(session, { waitMs: 60_000 })
  while (takes().length < 2) await sleep(10)
  await first.close()
  await (await second).close()
})

test('the lease of a process that is gone is waited out, longer than opening itself may take', async () => {
  const session = newName()
  const { expires_at: expiresAt } = await hold(session, 3)
  const auth = await open(session, { waitMs: 60_000, openDeadlineMs: 1000 })
  // The one who asks again knows when the lease ends: its pause does not go past that.
  const late = Date.now() - Date.parse(expiresAt)
  assert.ok(late > 0, `${late} ms after the end`)
  const asked = takes().length
  assert.ok(asked >= 3 && asked < 20, `asked ${asked} times`)
  await auth.close()
})

test('after it the answer is that the session is held, as ever', async () => {
  const session = newName()
  await hold(session, 60)
  const began = performance.now()
  await assert.rejects(open(session, { waitMs: 700 }), { code: 'held', holder: 'somebody' })
  assert.ok(performance.now() - began >= 695)
  const asked = takes().length
  assert.ok(asked >= 2 && asked < 10, `asked ${asked} times`)
})

test('who waits keeps nobody else from opening', async () => {
  const held = Array.from({ length: 20 }, newName)
  await Promise.all(held.map((session) => hold(session, 60)))
  const waiting = held.map((session) => open(session, { waitMs: 5000 }).catch(({ code }) => code))
  while (takes().length < 40) await sleep(10)
  let over = false
  void Promise.all(waiting).then(() => (over = true))
  await (await open(newName())).close()
  assert.ok(!over)
  assert.deepEqual([...new Set(await Promise.all(waiting))], ['held'])
})

test('an outage while waiting is one; what is deleted while waiting is gone', async () => {
  const session = newName()
  await hold(session, 60)
  const waiting = open(session, { waitMs: 60_000, openDeadlineMs: 100 })
  while (takes().length < 2) await sleep(10)
  faults.rule = () => 'lose-request'
  await assert.rejects(waiting, { code: 'unavailable' })
  faults.rule = () => undefined
  faults.seen.length = 0
  const other = open(session, { waitMs: 60_000 })
  while (takes().length < 2) await sleep(10)
  const headers = { authorization: `Bearer ${service.token}` }
  await fetch(`${service.url}/v1/sessions/${session}`, { method: 'DELETE', headers })
  await assert.rejects(other, { code: 'gone' })
})

test('the option is a number of milliseconds', async () => {
  for (const waitMs of [-1, Number.NaN, '70']) {
    await assert.rejects(open(newName(), { waitMs }), { name: 'TypeError', message: /option waitMs/ })
  }
})
