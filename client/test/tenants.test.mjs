/** Two tenants in one process on one service, each with a session of the same name. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startOwn } from './service.mjs'

let service, faults, acme, bravo
before(async () => {
  service = await startOwn()
  acme = await service.tokenOf('acme')
  bravo = await service.tokenOf('bravo')
})
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `tenants-${randomUUID()}`
const open = (token, session, more) =>
  useRemoteAuthState({ url: faults.url, token, session, baileys, commitDeadlineMs: 300, ...more })
const isRelease = (token) => ({ method, headers }) => method === 'DELETE' && headers.authorization === `Bearer ${token}`

async function summary(token, session) {
  const headers = { authorization: `Bearer ${token}` }
  return (await fetch(`${service.url}/v1/sessions/${session}`, { headers })).json()
}

/** Has the store away for one token's requests, or for all, until the session is lost to that. */
async function lose(auth, token) {
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  const isMeant = ({ headers }) => token === undefined || headers.authorization === `Bearer ${token}`
  faults.rule = (request) => (isMeant(request) ? 'lose-request' : undefined)
  auth.state.keys.set({ session: { a: 1 } })
  assert.equal((await lost).reason, 'unavailable')
  return auth
}

test('the lease that one tenant left behind is not another tenant\'s to go by', async () => {
  const session = newName()
  const first = await lose(await open(acme, session), acme)
  const { holder } = (await summary(acme, session)).lease
  const theirs = await open(bravo, session)
  assert.notEqual((await summary(bravo, session)).lease.holder, holder)
  faults.rule = (request) => (isRelease(acme)(request) ? 'lose-request' : undefined)
  const again = await open(acme, session)
  assert.equal((await summary(acme, session)).lease.holder, holder)
  for (const auth of [again, theirs]) await auth.state.keys.set({ session: { b: 2 } })
  for (const auth of [again, theirs, first]) await auth.close()
})

test('of two tenants with one holder neither loses its lease to what the other left behind', async () => {
  const session = newName()
  const more = { holder: 'pod-1' }
  const [ours, theirs] = [await open(acme, session, more), await open(bravo, session, more)]
  await lose(ours)
  await lose(theirs)
  const released = []
  faults.rule = (request) => {
    if (request.method === 'DELETE') released.push(request)
    return request.method === 'DELETE' ? 'lose-request' : undefined
  }
  const again = [await open(bravo, session, more), await open(acme, session, more)]
  faults.rule = () => undefined
  released.length = 0
  // As long as attempts to release are apart at most.
  await sleep(2_500)
  assert.equal(released.length, 0)
  for (const token of [acme, bravo]) assert.equal((await summary(token, session)).lease.holder, 'pod-1')
  for (const auth of again) await auth.state.keys.set({ session: { b: 2 } })
  for (const auth of [...again, ours, theirs]) await auth.close()
})

test('a holder of that name is no sign of one\'s own past: it may be another process of another tenant', async () => {
  const session = newName()
  const elsewhere = await open(bravo, session, { holder: 'pod-1', url: service.url })
  await lose(await open(acme, session, { holder: 'pod-1' }), acme)
  await assert.rejects(open(bravo, session), { code: 'held', holder: 'pod-1' })
  await elsewhere.state.keys.set({ session: { b: 2 } })
  await elsewhere.close()
  faults.rule = () => undefined
})

test('another token of the same tenant goes by the holder that the store names', async () => {
  const session = newName()
  const next = await service.tokenOf('acme')
  const former = await open(acme, session)
  const refused = problem(401, 'unauthorized')
  faults.rule = ({ headers }) => (headers.authorization === `Bearer ${acme}` ? refused : undefined)
  await assert.rejects(former.saveCreds(), { code: 'lost', reason: 'refused' })
  const { epoch, lease } = await summary(acme, session)
  const again = await open(next, session)
  const now = await summary(acme, session)
  assert.equal(now.lease.holder, lease.holder)
  assert.ok(now.epoch > epoch)
  await former.close()
  await again.state.keys.set({ session: { b: 2 } })
  await again.close()
})
