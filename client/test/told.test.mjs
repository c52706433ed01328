/** What errors tell: the service's own sentence, the name of what is missing, and what an option has to be. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { GoneError, useRemoteAuthState } from '../dist/esm/index.js'
import { baileys, preKey } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { loadRelease, VERSIONS } from './releases.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `told-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })

async function remove(session) {
  const headers = { authorization: `Bearer ${service.token}` }
  return fetch(`${service.url}/v1/sessions/${session}`, { method: 'DELETE', headers })
}

/** @returns why the session is lost. */
async function lossOf(auth, write) {
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  const rejected = write(auth).then(() => undefined, (error) => error)
  const why = await lost
  assert.equal(await rejected, why)
  await auth.close()
  return why
}

test('what the service refuses it refuses in its own sentence', async () => {
  const auth = await open(newName())
  await auth.state.keys.set({ 'pre-key': { 7: preKey() } })
  const why = await lossOf(auth, ({ state }) => state.keys.set({ 'pre-key': { 7: preKey() } }))
  const detail = 'A stored pre-key would get other bytes; "force" overrides.'
  assert.equal(why.cause.problem, 'pre-key-overwritten')
  assert.equal(why.cause.detail, detail)
  assert.ok(why.message.includes(`409 pre-key-overwritten: ${detail}`), why.message)

  const other = await open(newName())
  other.state.creds.nextPreKeyId = 31
  await other.saveCreds()
  const back = await lossOf(other, ({ state, saveCreds }) => {
    state.creds.nextPreKeyId = 1
    return saveCreds()
  })
  assert.equal(back.cause.detail, 'A counter of the creds would go back; "force" overrides.')
})

test('so do a bad token, a takeover, a deletion and another version', async () => {
  await assert.rejects(open(newName(), { token: 'no-such-token' }), {
    code: 'refused',
    detail: 'A valid bearer token is needed.',
    message: /401 unauthorized: A valid bearer token is needed\.$/,
  })
  const session = newName()
  const write = ({ state }) => state.keys.set({ session: { a: { x: 1 } } })
  const first = await open(session)
  const second = await open(session, { takeover: true })
  const fenced = await lossOf(first, write)
  assert.equal(fenced.cause.detail, "The session is leased, and this request carries another epoch than the lease's.")
  await remove(session)
  const gone = await lossOf(second, write)
  assert.equal(gone.cause.detail, 'The session was deleted.')
  assert.equal(gone.cause.message, 'the session was deleted')
  await assert.rejects(open(session), (e) => e instanceof GoneError && e.detail === 'The session was deleted.')
  const third = await open(newName())
  faults.rule = ({ path }) => (path.endsWith('/commit') ? problem(412, 'version-mismatch') : undefined)
  assert.equal((await lossOf(third, write)).cause.detail, undefined)
})

test('a sentence is taken as printable text of bounded length, and nothing else is taken for one', async () => {
  const refusal = (detail) => ({ status: 422, body: { type: 'urn:authstore:problem:bad-input', status: 422, detail } })
  const cases = [
    ['one\ntwo\u001b[31m \u202eü', 'one two [31m ü'],
    ['x'.repeat(5000), `${'x'.repeat(299)}…`],
    ['', undefined],
    [{ a: 1 }, undefined],
    [undefined, undefined],
  ]
  for (const [detail, expected] of cases) {
    faults.rule = () => refusal(detail)
    await assert.rejects(open(newName()), (error) => {
      assert.equal(error.detail, expected)
      assert.equal(error.message, `the auth store refused the request: 422 bad-input${expected ? `: ${expected}` : ''}`)
      return true
    })
  }
})

test('a name that no session can have is told what one is, before anything is asked', async () => {
  for (const session of ['a/b', '', 'é', '.', '..', 'x'.repeat(129)]) {
    await assert.rejects(open(session), {
      code: 'refused',
      problem: 'session-name',
      message: /1 to 128 characters of A-Z a-z 0-9 \. _ : @ \+ -/,
    })
  }
  assert.equal(faults.seen.length, 0)
})

test('a unix socket that is not there is named', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'authstore-told-'))
  const path = join(folder, 'no.sock')
  await assert.rejects(open(newName(), { url: `unix:${path}`, openDeadlineMs: 100 }), (error) => {
    assert.equal(error.code, 'unavailable')
    assert.ok(error.message.endsWith(`ENOENT: the unix socket ${path}`), error.message)
    return true
  })
  await rm(folder, { recursive: true })
})

test('where no connection ever brought HTTP, https is a guess; where one did, it is none', async () => {
  const mute = createServer((socket) => socket.on('error', () => {}).once('data', () => socket.end()))
  await new Promise((resolve) => mute.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${mute.address().port}`
  await assert.rejects(open(newName(), { url, openDeadlineMs: 100 }), /unavailable: ended \(is it https\?\)$/)
  mute.close()

  const auth = await open(newName(), { commitDeadlineMs: 100 })
  faults.rule = () => 'lose-request'
  const why = await lossOf(auth, ({ state }) => state.keys.set({ session: { a: { x: 1 } } }))
  assert.doesNotMatch(why.message, /https/)
})

test('each release can be given whole, as its default, or as the two members that are asked for', async () => {
  for (const version of VERSIONS) {
    const { proto, initAuthCreds } = await loadRelease(version)
    const module = await import(`baileys-${version}`)
    for (const given of [module, { default: module }, { proto, initAuthCreds }]) {
      await (await open(newName(), { baileys: given })).close()
    }
  }
})

test('what is no release of Baileys is told what is needed', async () => {
  const { default: makeWASocket } = await import('baileys-7.0.0-rc14')
  for (const given of [makeWASocket, {}, undefined, 'baileys', { default: makeWASocket }]) {
    await assert.rejects(open(newName(), { baileys: given }), {
      name: 'TypeError',
      message: /option baileys .*import \* as baileys from 'baileys'.*or just \{ proto, initAuthCreds \}/,
    })
  }
})
