/** Logout from code: `delete` removes the session under its owner's epoch, and ends the object. */
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

const newName = () => `delete-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const deletions = () => faults.seen.filter(({ method, path }) => method === 'DELETE' && !path.endsWith('/lease'))
const isDeletion = ({ method, path }) => method === 'DELETE' && !path.endsWith('/lease')

async function ask(method, path, { body, headers } = {}) {
  const response = await fetch(service.url + path, {
    method,
    headers: { authorization: `Bearer ${service.token}`, 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  })
  const text = await response.text()
  return { status: response.status, json: text ? JSON.parse(text) : undefined }
}

/** A session whose creds say that it is paired: only a deletion makes room for another identity under its name. */
async function paired(session, more) {
  const auth = await open(session, more)
  auth.state.creds.account = { details: 'x' }
  await auth.saveCreds()
  await auth.state.keys.set({ 'pre-key': { 1: preKey() } })
  return auth
}

test('after a purge the same name is opened anew and paired at once', async () => {
  const session = newName()
  const auth = await paired(session)
  const { signedIdentityKey } = auth.state.creds
  const { epoch } = (await ask('GET', `/v1/sessions/${session}`)).json
  await auth.delete({ purge: true })
  const [{ path, headers }, ...more] = deletions()
  assert.equal(path, `/v1/sessions/${session}?purge=true`)
  assert.equal(headers['lease-epoch'], String(epoch))
  assert.equal(more.length, 0)
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).status, 404)
  const next = await paired(session)
  assert.ok(!next.state.creds.signedIdentityKey.public.equals(signedIdentityKey.public))
  assert.deepEqual(Object.keys(await next.state.keys.get('pre-key', ['1', '2'])), ['1'])
  await next.close()
})

test('without purge it can be restored', async () => {
  const session = newName()
  const auth = await paired(session)
  await auth.delete()
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).status, 410)
  await assert.rejects(open(session), { code: 'gone' })
  assert.equal((await ask('POST', `/v1/sessions/${session}/restore`)).status, 200)
  const next = await open(session)
  assert.ok(next.state.creds.account)
  await next.close()
})

test('it ends the object as close does, and writes nothing more', async () => {
  const session = newName()
  const auth = await paired(session)
  const told = []
  auth.on('lost', (why) => told.push(why))
  faults.seen.length = 0
  const queued = auth.state.keys.set({ session: { a: { x: 1 } } })
  const deleted = [auth.delete({ purge: true }), auth.delete({ purge: true }), auth.close()]
  await assert.rejects(queued, { code: 'closed' })
  await Promise.all(deleted)
  const { get, set } = auth.state.keys
  for (const use of [() => get('session', ['a']), () => set({ session: { a: 1 } }), auth.saveCreds]) {
    await assert.rejects(use(), { code: 'closed' })
  }
  await auth.close()
  await auth.delete({ purge: true })
  assert.equal(faults.commits().length, 0)
  assert.equal(deletions().length, 1)
  assert.deepEqual(told, [])
})

test('a commit that is on its way brings nothing back', async () => {
  const session = newName()
  const auth = await paired(session)
  let pass
  const held = new Promise((resolve) => (pass = resolve))
  faults.seen.length = 0
  faults.delay = (asked) => (asked.path.endsWith('/commit') ? held : undefined)
  const late = auth.state.keys.set({ session: { a: { x: 1 } } })
  late.catch(() => {})
  while (faults.commits().length === 0) await new Promise(setImmediate)
  await auth.delete({ purge: true })
  const { headers, body } = faults.commits()[0]
  pass()
  await assert.rejects(late, { code: 'closed' })
  const names = ['lease-epoch', 'if-match', 'idempotency-key']
  const steering = Object.fromEntries(names.map((name) => [name, headers[name]]))
  const again = await ask('POST', `/v1/sessions/${session}/commit`, { headers: steering, body: JSON.parse(body) })
  assert.equal(again.status, 409)
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).status, 404)
})

test('an answer that was lost is made good: what is gone already is deleted', async () => {
  for (const [purge, status] of [[true, 404], [false, 410]]) {
    const session = newName()
    const auth = await paired(session)
    faults.seen.length = 0
    const losses = ['lose-answer', 'lose-answer', problem(503, 'unavailable', { 'retry-after': '0' })]
    faults.rule = (asked) => (isDeletion(asked) ? losses.shift() : undefined)
    await auth.delete({ purge })
    assert.ok(deletions().length >= 3)
    assert.equal((await ask('GET', `/v1/sessions/${session}`)).status, status)
  }
})

test('past the deadline of writes it is unavailable, and may be asked for again', async () => {
  const session = newName()
  const auth = await paired(session, { commitDeadlineMs: 200 })
  faults.rule = (asked) => (isDeletion(asked) ? 'lose-request' : undefined)
  await assert.rejects(auth.delete({ purge: true }), { code: 'unavailable' })
  await assert.rejects(auth.state.keys.get('session', ['a']), { code: 'closed' })
  await auth.close()
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).json.paired, true)
  faults.rule = () => undefined
  await auth.delete({ purge: true })
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).status, 404)
})

test('a session that another owner took is not deleted', async () => {
  const session = newName()
  const first = await paired(session)
  const second = await open(session, { takeover: true })
  await assert.rejects(first.delete({ purge: true }), { code: 'fenced' })
  await first.close()
  await second.state.keys.set({ session: { a: { x: 1 } } })
  await second.close()
  assert.equal((await ask('GET', `/v1/sessions/${session}`)).json.paired, true)
})

test('what is lost or closed cannot be deleted; a refused deletion leaves the session free', async () => {
  const session = newName()
  const first = await paired(session)
  const lost = new Promise((resolve) => first.on('lost', resolve))
  const second = await open(session, { takeover: true })
  first.state.keys.set({ session: { a: { x: 1 } } }).catch(() => {})
  await lost
  await assert.rejects(first.delete(), { code: 'lost', reason: 'fenced' })
  faults.rule = (asked) => (isDeletion(asked) ? problem(403, 'forbidden') : undefined)
  await assert.rejects(second.delete(), { code: 'refused', status: 403 })
  const { json } = await ask('GET', `/v1/sessions/${session}`)
  assert.equal(json.lease, null)
  faults.rule = () => undefined
  const third = await open(session)
  await third.close()
  await assert.rejects(third.delete(), { code: 'closed' })
})
