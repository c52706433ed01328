/** Taking a session from an owner whose lease lives, also when what was asked comes late or is answered to nobody. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `takeover-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const beside = (session, holder, more) => open(session, { url: service.url, holder, ...more })
const isAsk = ({ method, path }) => method === 'POST' && path.endsWith('/lease')
const asks = () => faults.seen.filter(isAsk).map(({ body }) => JSON.parse(body))

async function summary(session) {
  const headers = { authorization: `Bearer ${service.token}` }
  return (await fetch(`${service.url}/v1/sessions/${session}`, { headers })).json()
}

test('a session is taken from its owner at the epoch that the store tells, and a free one without a word', async () => {
  const session = newName()
  const owner = await beside(session, 'owner')
  const lost = new Promise((resolve) => owner.on('lost', resolve))
  const { epoch } = await summary(session)
  const taker = await open(session, { takeover: true })
  assert.deepEqual(asks().map(({ takeover, takeover_epoch }) => [takeover, takeover_epoch]), [
    [undefined, undefined],
    [undefined, epoch],
  ])
  await assert.rejects(owner.state.keys.set({ session: { a: 1 } }), { code: 'lost', reason: 'fenced' })
  await lost
  await taker.close()
  faults.seen.length = 0
  await (await open(session, { takeover: true })).close()
  assert.equal(asks().length, 1)
  await owner.close()
})

test('a takeover that comes late takes the session from no later owner', async () => {
  const session = newName()
  const owner = await beside(session, 'owner')
  let arrive
  const late = new Promise((resolve) => (arrive = resolve))
  let held = 0
  faults.delay = (request) => {
    if (!isAsk(request) || !/takeover/.test(request.body) || held++ > 0) return undefined
    return late
  }
  const taker = await open(session, { takeover: true, requestTimeoutMs: 500 })
  await taker.close()
  const next = await beside(session, 'next')
  const { epoch } = await summary(session)
  // Nobody else asks through the proxy any more.
  const arrived = new Promise((resolve) => (faults.onAnswer = resolve))
  arrive()
  await arrived
  const now = await summary(session)
  assert.deepEqual([now.epoch, now.lease.holder], [epoch, 'next'])
  await next.state.keys.set({ session: { a: 1 } })
  for (const auth of [next, owner]) await auth.close()
})

test('a takeover whose answer was lost is asked for again and is one', async () => {
  const session = newName()
  const owner = await beside(session, 'owner')
  const { epoch } = await summary(session)
  const answers = [undefined, 'lose-answer', 'lose-answer']
  faults.rule = (request) => (isAsk(request) ? answers.shift() : undefined)
  const taker = await open(session, { takeover: true })
  assert.equal(answers.length, 0)
  assert.equal((await summary(session)).epoch, epoch + 1)
  await taker.state.keys.set({ session: { a: 1 } })
  for (const auth of [taker, owner]) await auth.close()
})

test('who is asked to take over does so from whoever holds the session then', async () => {
  const session = newName()
  const owners = [await beside(session, 'first')]
  let changes = 0
  faults.delay = async (request) => {
    if (!isAsk(request) || !/takeover/.test(request.body) || changes++ > 1) return
    owners.push(await beside(session, `another-${changes}`, { takeover: true }))
  }
  const taker = await open(session, { takeover: true })
  assert.equal(owners.length, 3)
  await taker.state.keys.set({ session: { a: 1 } })
  for (const auth of [taker, ...owners]) await auth.close()
})

test('a service of an earlier release, which tells no epoch, is asked as before', async () => {
  const session = newName()
  const owner = await beside(session, 'owner')
  const told = { ...problem(423, 'leased') }
  told.body = { ...told.body, holder: 'owner', expires_at: '2100-01-01T00:00:00Z' }
  const isBare = (request) => isAsk(request) && !/takeover/.test(request.body)
  faults.rule = (request) => {
    if (/takeover_epoch/.test(request.body)) return problem(400, 'bad-body')
    return isBare(request) ? told : undefined
  }
  const taker = await open(session, { takeover: true })
  assert.deepEqual(asks().map(({ takeover }) => takeover), [undefined, true])
  await taker.state.keys.set({ session: { a: 1 } })
  faults.rule = () => undefined
  for (const auth of [taker, owner]) await auth.close()
})
