/** Something in between that is out of step: it hands on the answer to another request, or one that nobody knows. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createServer, request } from 'node:http'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { StoreClient } from '../dist/esm/http.js'
import { baileys } from './baileys.mjs'
import { startService } from './service.mjs'

const ECHO = 'authstore-echo'

/** A proxy that may answer by itself, `instead(asked)`, and change what the service answers, `change(answer)`. */
class Middle {
  instead = () => undefined
  change = (answer) => answer
  /** Every request seen: `{ path, echo }`. */
  seen = []
  sockets = 0
  #server = createServer((incoming, outgoing) => this.#pass(incoming, outgoing)).on('connection', () => this.sockets++)

  async listen(target) {
    this.target = new URL(target)
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    this.url = `http://127.0.0.1:${this.#server.address().port}`
    return this
  }

  close() {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  async #pass(incoming, outgoing) {
    const { method, url: path, headers } = incoming
    const body = await read(incoming)
    this.seen.push({ path, echo: headers[ECHO] })
    const asked = { method, path }
    const own = this.instead(asked)
    if (own) return outgoing.writeHead(own.status, own.headers).end(own.body)
    const { hostname, port } = this.target
    const onward = request({ hostname, port, method, path, headers }, async (answer) => {
      const { statusCode: status, headers: told } = answer
      const changed = this.change({ status, headers: told, body: await read(answer) })
      outgoing.writeHead(changed.status, changed.headers).end(changed.body)
    })
    onward.end(body)
  }
}

async function read(stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

let service, middle
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (middle = await new Middle().listen(service.url)))
afterEach(() => middle.close())

const newName = () => `step-${randomUUID()}`
const open = (session, more) =>
  useRemoteAuthState({ url: middle.url, token: service.token, session, baileys, memoryBytes: 0, ...more })

function silent({ headers, ...answer }) {
  return { ...answer, headers: Object.fromEntries(Object.entries(headers).filter(([name]) => name !== ECHO)) }
}

/** Answers the first request that matches with the answer to the request before it. @returns whether it has. */
function outOfStep(matches) {
  let last
  let left = 1
  middle.change = (answer) => (last = answer)
  middle.instead = (asked) => (left > 0 && matches(asked) && left-- > 0 ? last : undefined)
  return () => left === 0
}

test('a session reads no key of another session', async () => {
  const [one, two] = [newName(), newName()]
  const [first, second] = [await open(one), await open(two)]
  await first.state.keys.set({ 'pre-key': { 5: { of: 'one' } } })
  await second.state.keys.set({ 'pre-key': { 5: { of: 'two' } } })
  const happened = outOfStep(({ path }) => path.endsWith(`${two}/keys/get`))
  await first.state.keys.get('pre-key', ['5'])
  const sockets = middle.sockets
  assert.deepEqual((await second.state.keys.get('pre-key', ['5']))['5'], { of: 'two' })
  assert.ok(happened())
  assert.equal(middle.sockets, sockets + 1, 'what is out of step is not used again')
  for (const auth of [first, second]) await auth.close()
})

test('a set is acknowledged by no answer to another', async () => {
  const [one, two] = [newName(), newName()]
  const [first, second] = [await open(one), await open(two)]
  const happened = outOfStep(({ path }) => path.endsWith(`${two}/commit`))
  await first.state.keys.set({ session: { p: 'a' } })
  await second.state.keys.set({ session: { p: 'stored' } })
  assert.ok(happened())
  const headers = { authorization: `Bearer ${service.token}` }
  const { version, keys } = await (await fetch(`${service.url}/v1/sessions/${two}/state`, { headers })).json()
  assert.deepEqual([version, keys], [2, { session: { p: 'stored' } }])
  for (const auth of [first, second]) await auth.close()
})

test('a refusal of another request ends no session', async () => {
  const session = newName()
  const auth = await open(session)
  const client = new StoreClient(new URL(middle.url), service.token)
  const happened = outOfStep(({ path }) => path.endsWith(`${session}/commit`))
  const call = { method: 'DELETE', path: `/v1/sessions/${session}/lease`, headers: { 'lease-epoch': 99 } }
  await assert.rejects(client.once(call, () => undefined, 5_000), { code: 'fenced' })
  await auth.state.keys.set({ session: { a: 1 } })
  assert.ok(happened())
  client.close()
  await auth.close()
})

test('no two requests are told from each other by the same word, whoever asks', async () => {
  const auths = await Promise.all(Array.from({ length: 8 }, () => open(newName())))
  const client = new StoreClient(new URL(middle.url), service.token)
  await client.once({ method: 'GET', path: '/v1/sessions' }, () => undefined, 5_000)
  await Promise.all(auths.map((auth) => auth.close()))
  client.close()
  const echoes = middle.seen.map(({ echo }) => echo)
  assert.ok(echoes.length > 20)
  assert.equal(new Set(echoes).size, echoes.length)
  for (const echo of echoes) assert.match(echo, /^[a-z0-9-]{1,64}$/)
})

test('a service that gives no word back is believed as before', async () => {
  middle.change = (answer) => silent(answer)
  const auth = await open(newName())
  await auth.state.keys.set({ 'pre-key': { 5: 1 } })
  assert.deepEqual({ ...(await auth.state.keys.get('pre-key', ['5'])) }, { 5: 1 })
  await auth.close()
  assert.ok(middle.seen.length <= 6, `${middle.seen.length} requests`)
})

test('an answer without a word counts as none where the service gives it back', async () => {
  const client = new StoreClient(new URL(middle.url), service.token)
  const ask = (path = '/v1/sessions') => client.once({ method: 'GET', path }, () => 'answered', 5_000)
  assert.equal(await ask(), 'answered')
  for (let turn = 0; turn < 5; turn++) {
    const { sockets } = middle
    middle.change = (answer) => silent(answer)
    await assert.rejects(ask(), { code: 'unavailable' })
    await assert.rejects(ask('/v1/sessions/no-such-session'), { code: 'unavailable' })
    middle.change = (answer) => answer
    assert.equal(await ask(), 'answered')
    assert.equal(middle.sockets, sockets + 2)
  }
  client.close()
})

test('a service that was replaced by an earlier release, which gives none back, is believed again', async () => {
  const auth = await open(newName())
  await auth.state.keys.set({ session: { a: 1 } })
  middle.change = (answer) => silent(answer)
  for (let n = 0; n < 3; n++) await auth.state.keys.set({ session: { a: n } })
  middle.seen.length = 0
  await auth.state.keys.set({ session: { a: 9 } })
  assert.equal(middle.seen.length, 1)
  await auth.close()
})

test('beside an earlier release that answers every other request, all that is asked is answered', async () => {
  let turn = 0
  middle.change = (answer) => (turn++ % 2 ? silent(answer) : answer)
  const auth = await open(newName())
  for (let n = 0; n < 10; n++) await auth.state.keys.set({ session: { n } })
  assert.deepEqual({ ...(await auth.state.keys.get('session', ['n'])) }, { n: 9 })
  await auth.close()
})

test('what somebody in between refuses for its size stays refused', async () => {
  const auth = await open(newName())
  const html = { 'content-type': 'text/html' }
  middle.instead = ({ path }) => (path.endsWith('/commit') ? { status: 413, headers: html, body: '<html>' } : undefined)
  await assert.rejects(auth.state.keys.set({ session: { a: 1 } }), { code: 'lost', reason: 'refused' })
  await auth.close()
})
