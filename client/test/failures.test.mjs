import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { CorruptError, UnavailableError, useRemoteAuthState } from '../dist/esm/index.js'
import { StoreClient } from '../dist/esm/http.js'
import { baileys } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `faults-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const isCommit = ({ path }) => path.endsWith('/commit')

async function stored(session) {
  const headers = { authorization: `Bearer ${service.token}` }
  const response = await fetch(`${service.url}/v1/sessions/${session}/state`, { headers })
  return { status: response.status, ...(await response.json()) }
}

/** @returns a rule that makes a fault of the first requests that match. */
function firstOf(matches, ...answers) {
  return (request) => (matches(request) ? answers.shift() : undefined)
}

test('a store that is away is unavailable: no creds are made, nothing is written', async () => {
  const session = newName()
  const away = problem(503, 'unavailable', { 'retry-after': '1' })
  for (const fault of ['lose-request', away, problem(429, 'slow-down')]) {
    faults.rule = () => fault
    await assert.rejects(open(session, { openDeadlineMs: 300 }), UnavailableError)
  }
  assert.equal((await stored(session)).status, 404)
  assert.equal(faults.commits().length, 0)
})

test('an answer of the state that is cut, corrupt or of another shape makes no creds', async () => {
  const session = newName()
  const isState = ({ path }) => path.endsWith('/state')
  const wrong = [
    [problem(500, 'corrupt'), CorruptError],
    [{ status: 200, body: { version: 1, keys: {} } }, UnavailableError],
    [{ status: 200, body: {} }, UnavailableError],
    [problem(500, 'internal'), UnavailableError],
    ['lose-answer', UnavailableError],
    ['cut-answer', UnavailableError],
  ]
  for (const [fault, expected] of wrong) {
    faults.rule = (request) => (isState(request) ? fault : undefined)
    await assert.rejects(open(session, { openDeadlineMs: 300 }), expected)
  }
  assert.equal(faults.commits().length, 0)
  assert.equal((await stored(session)).creds, null)
  // Each failed open gave the lease back.
  faults.rule = () => undefined
  await (await open(session)).close()
})

test('a lost answer is made good: the same commit again, applied once', async () => {
  const session = newName()
  const auth = await open(session)
  const { version } = await stored(session)
  faults.seen.length = 0
  faults.rule = firstOf(isCommit, 'lose-answer', 'lose-answer')
  await auth.state.keys.set({ session: { a: { x: 1 } } })
  const [first, second, third] = faults.commits()
  assert.equal(faults.commits().length, 3)
  for (const again of [second, third]) {
    assert.equal(again.body, first.body)
    for (const name of ['idempotency-key', 'if-match', 'lease-epoch']) {
      assert.equal(again.headers[name], first.headers[name])
    }
  }
  assert.equal((await stored(session)).version, version + 1)
  await auth.state.keys.set({ session: { a: { x: 2 } } })
  const next = faults.commits().at(-1).headers
  assert.notEqual(next['idempotency-key'], first.headers['idempotency-key'])
  assert.equal(next['if-match'], `"${version + 1}"`)
  await auth.close()
})

test('an outage shorter than the deadline is waited out, and reads see what is queued once it is stored', async () => {
  const session = newName()
  const auth = await open(session)
  const away = problem(503, 'unavailable', { 'retry-after': '0' })
  faults.rule = firstOf(isCommit, 'lose-request', away, away, problem(500, 'internal'), 'lose-request')
  const first = auth.state.keys.set({ session: { a: { x: 1 }, b: { x: 1 } } })
  await sleep(50)
  const order = []
  const second = auth.state.keys.set({ session: { b: null } }).then(() => order.push('written'))
  const other = auth.state.keys.get('session', ['c']).then(() => order.push('other read'))
  const read = await auth.state.keys.get('session', ['a', 'b'])
  assert.deepEqual(Object.keys(read), ['a'])
  assert.deepEqual((await stored(session)).keys, { session: { a: { x: 1 } } })
  await Promise.all([first, second, other])
  assert.deepEqual(order, ['other read', 'written'])
  assert.deepEqual((await stored(session)).keys, { session: { a: { x: 1 } } })
  await auth.close()
})

test('an outage past the deadline loses the session: told once, and nothing is written any more', async () => {
  const session = newName()
  const auth = await open(session, { commitDeadlineMs: 400 })
  const told = []
  auth.on('lost', (why) => told.push(why.reason))
  faults.rule = () => 'lose-request'
  const first = auth.state.keys.set({ session: { a: { x: 1 } } })
  await sleep(20)
  const second = auth.state.keys.set({ session: { b: { x: 1 } } })
  const read = auth.state.keys.get('session', ['b'])
  await assert.rejects(read, { code: 'lost', reason: 'unavailable' })
  await assert.rejects(first, { code: 'lost', reason: 'unavailable' })
  await assert.rejects(second, { code: 'lost', reason: 'unavailable' })
  faults.rule = () => undefined
  faults.seen.length = 0
  await assert.rejects(auth.state.keys.set({ session: { c: { x: 1 } } }), { code: 'lost' })
  await assert.rejects(auth.state.keys.get('session', ['a']), { code: 'lost' })
  await sleep(100)
  assert.deepEqual(told, ['unavailable'])
  assert.equal(faults.commits().length, 0)
  // Who comes late to listen is told as well.
  assert.equal((await new Promise((resolve) => auth.on('lost', resolve))).reason, 'unavailable')
  await auth.close()
})

test('what is not an answer of the store says nothing about the session: it is asked again', async () => {
  const html = { 'content-type': 'text/html' }
  const foreign = [
    ...[302, 400, 401, 403, 404, 410, 412, 423].map((status) => ({ status, headers: html, body: '<html>' })),
    { status: 404, body: { message: 'no Route matched with those values' } },
    { status: 410, body: { type: 'https://example.com/problems/deleted' } },
    { status: 200, body: {} },
    { status: 200, body: null },
    { status: 200, body: { version: 1 } },
  ]
  const session = newName()
  const auth = await open(session)
  const told = []
  auth.on('lost', (why) => told.push(why.message))
  for (const [n, fault] of foreign.entries()) {
    const left = [fault]
    faults.rule = (request) => (isCommit(request) ? left.shift() : undefined)
    await auth.state.keys.set({ session: { a: { n } } })
    assert.equal(left.length, 0)
    assert.deepEqual((await stored(session)).keys, { session: { a: { n } } })
  }
  faults.rule = () => undefined
  await auth.close()
  for (const path of ['/lease', '/state']) {
    for (const fault of foreign) {
      const left = [fault]
      faults.rule = (request) => (request.path.endsWith(path) ? left.shift() : undefined)
      await (await open(newName())).close()
    }
  }
  assert.deepEqual(told, [])
})

test('an answer to an earlier commit is not taken for the next one', async () => {
  const session = newName()
  const auth = await open(session)
  await auth.state.keys.set({ session: { a: 1 } })
  for (const wrong of [(now) => now, (now) => now + 2, (now) => String(now + 1), (now) => now + 1.5]) {
    const { version } = await stored(session)
    const answers = [{ status: 200, body: { version: wrong(version), epoch: 1 } }]
    faults.rule = (request) => (isCommit(request) ? answers.shift() : undefined)
    await auth.state.keys.set({ session: { a: { version } } })
    const now = await stored(session)
    assert.equal(now.version, version + 1)
    assert.deepEqual(now.keys, { session: { a: { version } } })
  }
  await auth.close()
})

test('the answer to another session, or of another time, opens none and renews none', async () => {
  const [session, other] = [newName(), newName()]
  for (const name of [session, other]) await (await open(name)).close()
  const [{ creds }, theirs] = [await stored(session), await stored(other)]
  const stateOnce = async (body) => {
    const answers = [{ status: 200, body }]
    faults.rule = (request) => (request.path.endsWith('/state') ? answers.shift() : undefined)
    const auth = await open(session)
    assert.equal(answers.length, 0)
    assert.equal(Buffer.from(auth.state.creds.noiseKey.public).toString('base64'), creds.noiseKey.public.data)
    await auth.saveCreds()
    await auth.close()
  }
  const ours = await stored(session)
  await stateOnce(theirs)
  await stateOnce({ ...theirs, session: null })
  await stateOnce({ ...ours, epoch: ours.epoch + 1 })
  const expires_at = '2100-01-01T00:00:00Z'
  const granted = [{ status: 200, body: { session: other, epoch: 1, expires_at } }]
  faults.rule = (request) => (request.path.endsWith('/lease') ? granted.shift() : undefined)
  const auth = await open(session, { ttl: 1.5 })
  assert.equal(granted.length, 0)
  const { epoch } = await stored(session)
  const isRenewal = ({ method, path }) => method === 'POST' && path.endsWith('/lease')
  const renewals = [{ status: 200, body: { session, epoch: epoch + 1, expires_at } }]
  faults.rule = (request) => (isRenewal(request) ? renewals.shift() : undefined)
  while (renewals.length > 0) await sleep(20)
  await sleep(1_600)
  await auth.state.keys.set({ session: { a: 1 } })
  await auth.close()
})

test('a service that does not name sessions in its answers is believed as before', async () => {
  const session = newName()
  await (await open(session)).close()
  const { version, creds, keys } = await stored(session)
  const unnamed = ({ path }) => {
    if (path.endsWith('/state')) return { status: 200, body: { version, creds, keys } }
    if (path.endsWith('/lease')) return { status: 200, body: { epoch: 7, expires_at: '2100-01-01T00:00:00Z' } }
    return undefined
  }
  faults.rule = unnamed
  assert.equal((await open(session)).state.creds.registrationId, creds.registrationId)
})

test('whoever took the session while it was opened is its owner', async () => {
  const session = newName()
  await (await open(session)).close()
  faults.delay = async ({ path }) => {
    if (!path.endsWith('/state')) return
    faults.delay = undefined
    const headers = { authorization: `Bearer ${service.token}`, 'content-type': 'application/json' }
    const body = JSON.stringify({ holder: 'another', ttl_s: 60, takeover: true })
    await fetch(`${service.url}/v1/sessions/${session}/lease`, { method: 'POST', headers, body })
  }
  await assert.rejects(open(session), { code: 'fenced' })
})

test('only the store ends a lease: what somebody else says of a release leaves it remembered', async () => {
  for (const fault of [
    { status: 200, body: {} },
    { status: 404, body: { message: 'no Route matched with those values' } },
    problem(401, 'unauthorized'),
    problem(403, 'forbidden'),
  ]) {
    const session = newName()
    const auth = await open(session)
    faults.rule = ({ method }) => (method === 'DELETE' ? fault : undefined)
    await auth.close()
    faults.rule = () => undefined
    await (await open(session)).close()
  }
})

test('a connection that brought an answer of somebody else is not used again', async () => {
  let sockets = 0
  let answer
  const server = createServer((request, response) => {
    response.writeHead(answer.status, answer.headers).end(JSON.stringify(answer.body))
    request.resume()
  }).on('connection', () => sockets++)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = new StoreClient(new URL(`http://127.0.0.1:${server.address().port}`), 'token')
  const ask = () => client.once({ method: 'GET', path: '/' }, () => undefined, 5_000)
  const headers = { 'retry-after': '1' }
  for (const [status, expected] of [
    [404, { code: 'unavailable' }],
    [502, { code: 'unavailable', retryAfterMs: 1000 }],
    [413, { code: 'refused' }],
  ]) {
    for (const [body, replaced] of [
      [problem(status, 'ours').body, 0],
      [{ message: 'of a proxy' }, 1],
    ]) {
      answer = { status: 200, headers, body }
      await ask()
      const before = sockets
      answer.status = status
      await assert.rejects(ask(), replaced === 1 ? expected : Error)
      answer.status = 200
      await ask()
      assert.equal(sockets - before, replaced, `${status}`)
    }
  }
  client.close()
  server.close()
})

test('a hanging store is given up and asked again', async () => {
  const session = newName()
  const auth = await open(session, { requestTimeoutMs: 200 })
  faults.rule = firstOf(isCommit, 'hang')
  await auth.state.keys.set({ session: { a: { x: 1 } } })
  assert.deepEqual((await stored(session)).keys, { session: { a: { x: 1 } } })
  await auth.close()
})

test('a refused commit ends the session, because the store no longer has what we have', async () => {
  const session = newName()
  const auth = await open(session)
  faults.rule = firstOf(isCommit, problem(409, 'counter-regressed'))
  await assert.rejects(auth.saveCreds(), { code: 'lost', reason: 'refused' })
  await auth.close()
})

test('the lease is renewed while the session lives, and given up in time when it cannot be', async () => {
  const session = newName()
  const auth = await open(session, { ttl: 1.5 })
  await sleep(3_000)
  await auth.state.keys.set({ session: { a: { x: 1 } } })
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  faults.rule = () => 'lose-request'
  const began = performance.now()
  assert.equal((await lost).reason, 'unavailable')
  assert.ok(performance.now() - began < 2_000)
  faults.rule = () => undefined
  await auth.close()
})

test('a lease counts from the request that was answered, however long opening took', async () => {
  const until = performance.now() + 1_500
  faults.rule = () => (performance.now() < until ? 'lose-request' : undefined)
  await (await open(newName(), { ttl: 1 })).close()
})

test('a lease that was slow to be granted is renewed before it is over', async () => {
  faults.delay = () => {
    faults.delay = undefined
    return sleep(1_200)
  }
  const auth = await open(newName(), { ttl: 1.5 })
  const told = []
  auth.on('lost', ({ reason }) => told.push(reason))
  await sleep(1_000)
  await auth.state.keys.set({ session: { a: 1 } })
  assert.deepEqual(told, [])
  await auth.close()
})

test('an open session keeps no process alive, and an unwatched refusal ends none', async () => {
  const script = `
    import { useRemoteAuthState } from './dist/esm/index.js'
    import { baileys } from './test/baileys.mjs'
    const [url, token, session] = process.argv.slice(1)
    const auth = await useRemoteAuthState({ url, token, session, baileys })
    auth.saveCreds()
  `
  const run = () =>
    new Promise((resolve) => {
      const args = ['--input-type=module', '-e', script, faults.url, service.token, newName()]
      const child = spawn(process.execPath, args, { cwd: new URL('..', import.meta.url), stdio: 'inherit' })
      child.on('exit', resolve)
    })
  const began = performance.now()
  assert.equal(await run(), 0)
  assert.ok(performance.now() - began < 10_000)
  faults.rule = firstOf(isCommit, undefined, problem(409, 'counter-regressed'))
  assert.equal(await run(), 0)
})

test('after a sleep that our own clock did not count, reads wait until the store says whose it is', async () => {
  const session = newName()
  const auth = await open(session)
  await auth.state.keys.set({ session: { a: { x: 1 } } })
  const now = Date.now
  const renewals = () => faults.seen.filter(({ method, path }) => method === 'POST' && path.endsWith('/lease')).length
  const asleep = (ms) => (Date.now = () => now() + ms)
  try {
    const before = renewals()
    asleep(61_000)
    const get = () => auth.state.keys.get('session', ['a'])
    const reads = await Promise.all([get(), get()])
    assert.deepEqual(reads.map(({ a }) => a), [{ x: 1 }, { x: 1 }])
    await auth.state.keys.get('session', ['a'])
    assert.equal(renewals(), before + 1)
    asleep(122_000)
    const headers = { authorization: `Bearer ${service.token}`, 'content-type': 'application/json' }
    const body = JSON.stringify({ holder: 'another', ttl_s: 60, takeover: true })
    await fetch(`${service.url}/v1/sessions/${session}/lease`, { method: 'POST', headers, body })
    await assert.rejects(auth.state.keys.get('session', ['a']), { code: 'lost', reason: 'fenced' })
  } finally {
    Date.now = now
  }
  await auth.close()
})

test('a renewal on the way as reads wait for another one is no second chain of them', async () => {
  const session = newName()
  const auth = await open(session, { ttl: 1.5 })
  await auth.state.keys.set({ session: { a: 1 } })
  const isRenewal = ({ method, path }) => method === 'POST' && path.endsWith('/lease')
  const renewals = () => faults.seen.filter(isRenewal).length
  let go
  const now = Date.now
  for (let suspends = 1; suspends < 4; suspends++) {
    const before = renewals()
    const held = new Promise((resolve) => (go = resolve))
    faults.delay = (request) => (isRenewal(request) ? held : undefined)
    while (renewals() === before) await sleep(5)
    Date.now = () => now() + suspends * 10_000
    const read = auth.state.keys.get('session', ['a'])
    while (renewals() < before + 2) await sleep(5)
    faults.delay = undefined
    go()
    await read
  }
  Date.now = now
  const before = renewals()
  await sleep(3_000)
  const most = renewals() - before
  assert.ok(most <= 7, `${most} renewals in 3 s, three a ttl of 1.5 s`)
  await auth.close()
})
