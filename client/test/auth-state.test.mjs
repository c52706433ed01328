import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { ClosedError, GoneError, HeldError, RefusedError, useRemoteAuthState } from '../dist/esm/index.js'
import { AppStateSyncKeyData, baileys, preKey } from './baileys.mjs'
import { startService } from './service.mjs'

let service
before(async () => (service = await startService()))
after(() => service.stop())

const newName = () => `client-${randomUUID()}`
const open = (session, more) => {
  const { url, token } = service
  return useRemoteAuthState({ url, token, session, baileys, ...more })
}

async function ask(method, path, { body, headers } = {}) {
  const response = await fetch(service.url + path, {
    method,
    headers: { authorization: `Bearer ${service.token}`, 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  })
  const text = await response.text()
  return { status: response.status, json: text ? JSON.parse(text) : undefined }
}
const summary = async (session) => (await ask('GET', `/v1/sessions/${session}`)).json

async function collect(iterable) {
  const all = []
  for await (const item of iterable) all.push(item)
  return all
}

test('a new session has its creds stored before the caller gets them', async () => {
  const session = newName()
  const auth = await open(session)
  const { json } = await ask('GET', `/v1/sessions/${session}/creds`)
  const { data } = json.signedIdentityKey.public
  assert.equal(data, auth.state.creds.signedIdentityKey.public.toString('base64'))
  await auth.close()
})

test('the next owner finds the same creds and keys', async () => {
  const session = newName()
  const first = await open(session)
  const key = preKey()
  const value = { token: Buffer.alloc(0), empty: '', zero: 0, no: false, list: [], half: '\ud83d' }
  const other = { 'a/b:c+d=': new Uint8Array(3) }
  await first.state.keys.set({ 'pre-key': { 1: key }, tctoken: { __index: value }, other })
  first.state.creds.nextPreKeyId = 2
  await first.saveCreds()
  await first.close()

  const second = await open(session)
  assert.deepEqual(second.state.creds.noiseKey, first.state.creds.noiseKey)
  assert.equal(second.state.creds.nextPreKeyId, 2)
  assert.deepEqual((await second.state.keys.get('pre-key', ['1']))['1'], key)
  assert.deepEqual((await second.state.keys.get('tctoken', ['__index'])).__index, value)
  assert.deepEqual((await second.state.keys.get('other', ['a/b:c+d=']))['a/b:c+d='], Buffer.alloc(3))
  await second.close()
})

test('every name the service allows is a session of its own', async () => {
  for (const session of ['a+b@c:d.e_f-g', '...', '.a', '+', `n${'x'.repeat(127)}`]) {
    const first = await open(session, { takeover: true })
    await first.state.keys.set({ x: { name: session } })
    await first.close()
    const again = await open(session)
    assert.equal((await again.state.keys.get('x', ['name'])).name, session)
    await again.close()
  }
})

test('a name the service does not allow is refused', async () => {
  for (const session of ['.', '..', 'a/b', '']) {
    await assert.rejects(open(session), (error) => error.code === 'refused', session)
  }
})

test('missing ids are left out, and names of Object.prototype are only names', async () => {
  const auth = await open(newName())
  const { keys } = auth.state
  const none = await keys.get('session', ['constructor', '__proto__', 'toString'])
  assert.deepEqual(Object.keys(none), [])
  assert.equal(none.constructor, undefined)
  await keys.set({ session: JSON.parse('{"__proto__":{"a":1},"constructor":{"b":2}}') })
  const both = await keys.get('session', ['__proto__', 'constructor', 'toString'])
  assert.equal(JSON.stringify(both), '{"__proto__":{"a":1},"constructor":{"b":2}}')
  assert.deepEqual((await collect(keys.listIds('session'))).sort(), ['__proto__', 'constructor'])
  await auth.close()
})

test('null and undefined delete, falsy values are values', async () => {
  const session = newName()
  const auth = await open(session)
  const { keys } = auth.state
  await keys.set({ x: { a: '', b: 0, c: false, d: [], e: { deep: null } } })
  await keys.set({ x: { a: null, b: undefined, gone: null } })
  assert.deepEqual({ ...(await keys.get('x', ['a', 'b', 'c', 'd', 'e'])) }, { c: false, d: [], e: { deep: null } })
  const { version } = await summary(session)
  await keys.set({})
  await keys.set({ 'pre-key': {} })
  assert.equal((await summary(session)).version, version)
  await keys.clear()
  assert.deepEqual((await ask('GET', `/v1/sessions/${session}/state`)).json.keys, {})
  assert.ok((await ask('GET', `/v1/sessions/${session}/creds`)).json.signedIdentityKey)
  await auth.close()
})

test('values are frozen when set, and handed out as copies', async () => {
  const auth = await open(newName())
  const value = { counter: 1, key: Buffer.from([1]) }
  const written = auth.state.keys.set({ session: { a: value } })
  value.counter = 2
  value.key[0] = 9
  const read = (await auth.state.keys.get('session', ['a'])).a
  assert.deepEqual(read, { counter: 1, key: Buffer.from([1]) })
  read.counter = 3
  await written
  assert.equal((await auth.state.keys.get('session', ['a'])).a.counter, 1)
  await auth.close()
})

test('a reader never hears of a write before its writer does', async () => {
  const auth = await open(newName())
  const order = []
  const writer = (async () => {
    await auth.state.keys.set({ 'lid-mapping': { a: 'b' } })
    for (let hop = 0; hop < 100; hop++) await undefined
    order.push('writer')
  })()
  const reader = (async () => {
    const { a } = await auth.state.keys.get('lid-mapping', ['a'])
    order.push('reader')
    assert.equal(a, 'b')
  })()
  await Promise.all([writer, reader])
  assert.deepEqual(order, ['writer', 'reader'])
  await auth.close()
})

test('app-state keys come back as their protobuf message', async () => {
  const auth = await open(newName())
  const stored = { keyData: 'AQID', fingerprint: { rawId: 1 }, timestamp: '1700000000' }
  await auth.state.keys.set({ 'app-state-sync-key': { 'AAAAAA//': stored } })
  const value = (await auth.state.keys.get('app-state-sync-key', ['AAAAAA//']))['AAAAAA//']
  assert.ok(value instanceof AppStateSyncKeyData)
  assert.deepEqual(value.keyData, Buffer.from([1, 2, 3]))
  await auth.close()
})

test('creds and the keys that follow them share a commit; what waits merges', async () => {
  const session = newName()
  const auth = await open(session)
  const { version } = await summary(session)
  auth.state.creds.nextPreKeyId = 31
  const saved = auth.saveCreds()
  await Promise.resolve()
  await Promise.all([saved, auth.state.keys.set({ 'pre-key': { 30: preKey() } })])
  assert.equal((await summary(session)).version, version + 1)

  const sets = Array.from({ length: 50 }, (_, i) => auth.state.keys.set({ session: { [i]: { i }, last: { i } } }))
  await Promise.all(sets)
  const now = await summary(session)
  assert.ok(now.version <= version + 3, `took ${now.version - version - 1} commits`)
  assert.deepEqual((await auth.state.keys.get('session', ['last'])).last, { i: 49 })
  await auth.close()
})

test('a large set is one commit', async () => {
  const session = newName()
  const auth = await open(session)
  const { version } = await summary(session)
  const many = Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`user.${i}`, { chain: randomBytes(400) }]))
  await auth.state.keys.set({ session: many })
  assert.equal((await summary(session)).version, version + 1)
  await auth.close()
  const again = await open(session)
  assert.deepEqual((await again.state.keys.get('session', ['user.2999']))['user.2999'], many['user.2999'])
  await again.close()
})

test('a second owner is told who holds the session; a takeover ends the first', async () => {
  const session = newName()
  const first = await open(session, { holder: 'first' })
  await assert.rejects(open(session), (error) => error instanceof HeldError && error.holder === 'first')
  const lost = new Promise((resolve) => first.on('lost', resolve))
  const second = await open(session, { takeover: true })
  await assert.rejects(first.state.keys.set({ session: { a: 1 } }), { code: 'lost', reason: 'fenced' })
  assert.equal((await lost).reason, 'fenced')
  await assert.rejects(first.state.keys.get('session', ['a']), { code: 'lost' })
  await assert.rejects(first.saveCreds(), { code: 'lost' })
  assert.deepEqual(Object.keys(await second.state.keys.get('session', ['a'])), [])
  await second.state.keys.set({ session: { a: 2 } })
  await first.close()
  await second.close()
})

test('a deleted session is gone: it is not opened anew, and its owner is told', async () => {
  const session = newName()
  const auth = await open(session)
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  const { epoch } = await summary(session)
  await ask('DELETE', `/v1/sessions/${session}`, { headers: { 'lease-epoch': String(epoch) } })
  await assert.rejects(auth.state.keys.set({ session: { a: 1 } }), { code: 'lost', reason: 'gone' })
  assert.equal((await lost).reason, 'gone')
  await assert.rejects(open(session), GoneError)
  await auth.close()
})

test('a write behind our back ends the session before it can be overwritten', async () => {
  const session = newName()
  const auth = await open(session)
  const { epoch } = await summary(session)
  const headers = { 'lease-epoch': String(epoch) }
  const behind = await ask('POST', `/v1/sessions/${session}/commit`, { body: { keys: { x: { a: 1 } } }, headers })
  assert.equal(behind.status, 200)
  await assert.rejects(auth.state.keys.set({ x: { a: 2 } }), { code: 'lost', reason: 'version-mismatch' })
  assert.deepEqual((await ask('GET', `/v1/sessions/${session}/state`)).json.keys, { x: { a: 1 } })
  await auth.close()
})

test('keys without creds are corrupt, not a new session', async () => {
  const session = newName()
  await ask('POST', `/v1/sessions/${session}/commit`, { body: { keys: { session: { a: { x: 1 } } } } })
  await assert.rejects(open(session), { code: 'corrupt' })
  assert.equal((await ask('GET', `/v1/sessions/${session}/creds`)).status, 404)
})

test('a bad token, name or key is refused', async () => {
  const session = newName()
  await assert.rejects(open(session, { token: 'wrong' }), (e) => e instanceof RefusedError && e.status === 401)
  await assert.rejects(open('a/b'), RefusedError)
  const auth = await open(session)
  await assert.rejects(auth.state.keys.set({ session: { ['x'.repeat(513)]: 1 } }), RefusedError)
  await assert.rejects(auth.state.keys.set({ ['t'.repeat(65)]: { a: 1 } }), RefusedError)
  await assert.rejects(auth.state.keys.set({ session: { a: 1n } }), TypeError)
  await auth.state.keys.set({ session: { a: 1 } })
  await auth.close()
})

test('close writes out what is queued and frees the session at once', async () => {
  const session = newName()
  const auth = await open(session)
  const written = auth.state.keys.set({ session: { a: { x: 1 } } })
  await auth.close()
  await written
  assert.equal((await summary(session)).lease, null)
  await assert.rejects(auth.state.keys.get('session', ['a']), ClosedError)
  await assert.rejects(auth.state.keys.set({ session: { a: 2 } }), ClosedError)
  await auth.close()
  const next = await open(session)
  assert.deepEqual((await next.state.keys.get('session', ['a'])).a, { x: 1 })
  await next.close()
})

test('creds that have no JSON form end the session, which tells, instead of staying old', async () => {
  const session = newName()
  const auth = await open(session)
  const told = []
  auth.on('lost', (why) => told.push(why))
  auth.state.creds.additionalData = { secret: 5n }
  auth.state.creds.nextPreKeyId = 31
  // As Baileys calls it: nobody watches.
  auth.saveCreds()
  await assert.rejects(auth.saveCreds(), { code: 'lost', reason: 'refused' })
  await assert.rejects(auth.state.keys.set({ 'pre-key': { 30: preKey() } }), { code: 'lost' })
  assert.deepEqual(told.map(({ reason }) => reason), ['refused'])
  assert.match(told[0].message, /422 creds-not-json$/)
  assert.ok(!/secret|BigInt/.test(told[0].message))
  assert.equal((await ask('GET', `/v1/sessions/${session}/creds`)).json.nextPreKeyId, 1)
  await auth.close()
})

test('options are of their kind, or the error names the one that is not; nothing is opened', async () => {
  const { url, token } = service
  const fine = { url, token, session: newName(), baileys }
  const wrong = [
    [{ session: undefined }, /option session/],
    [{ session: null }, /option session/],
    [{ session: 5 }, /option session/],
    [{ session: ['a'] }, /option session/],
    [{ token: undefined }, /option token/],
    [{ token: '' }, /option token/],
    [{ token: '\n' }, /option token/],
    [{ url: undefined }, /option url/],
    [{ url: 'localhost:8480' }, /option url has to begin with http:\/\//],
    [{ url: '127.0.0.1:8480' }, /option url has to begin with http:\/\//],
    [{ url: 'http://' }, /option url is not an address/],
    [{ baileys: undefined }, /option baileys/],
    [{ baileys: {} }, /option baileys/],
    [{ ttl: 0 }, /option ttl/],
    [{ ttl: '60' }, /option ttl/],
    [{ ttl: Number.NaN }, /option ttl/],
    [{ memoryBytes: '1' }, /option memoryBytes/],
    [{ commitDeadlineMs: Number.NaN }, /option commitDeadlineMs/],
    [{ openDeadlineMs: 0 }, /option openDeadlineMs/],
    [{ requestTimeoutMs: Infinity }, /option requestTimeoutMs/],
    [{ takeover: 'false' }, /option takeover/],
    [{ sesion: 'main' }, /no option sesion/],
  ]
  for (const [option, message] of wrong) {
    await assert.rejects(useRemoteAuthState({ ...fine, ...option }), { name: 'TypeError', message })
  }
  assert.equal((await ask('GET', '/v1/sessions/undefined')).status, 404)
})

test('a token from a file may end as the file does', async () => {
  const auth = await open(newName(), { token: `${service.token}\n` })
  await auth.close()
})

test('what the store could not take is refused when it is set, and session and other writes live on', async () => {
  const auth = await open(newName())
  const { keys } = auth.state
  const nested = (depth) => JSON.parse(`${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`)
  const wrong = [
    [{ x: { 'a\ud800': 1 } }, { code: 'refused', problem: 'id' }],
    [{ 'a\ud800': { x: 1 } }, { code: 'refused', problem: 'type' }],
    [{ 'a\0b': { x: 1 } }, { code: 'refused', problem: 'type' }],
    [{ x: { deep: nested(900) } }, { name: 'TypeError', message: /too deep/ }],
    [{ x: { deep: [nested(900), Buffer.from('x')] } }, { name: 'TypeError', message: /too deep/ }],
    [{ x: { large: 'a'.repeat(65 * 2 ** 20) } }, { code: 'refused', status: 413 }],
    [{ x: { a: 'é'.repeat(17 * 2 ** 20), b: 'é'.repeat(17 * 2 ** 20) } }, { code: 'refused', status: 413 }],
  ]
  for (const [data, expected] of wrong) {
    const innocent = keys.set({ session: { good: { a: 1 } } })
    await assert.rejects(keys.set(data), expected)
    await innocent
  }
  const holes = [Buffer.from('x')]
  holes[2] = 1
  await keys.set({ x: { deep: nested(700), holes, '\u{1f600}': 1 } })
  assert.deepEqual((await keys.get('x', ['holes'])).holes, [Buffer.from('x'), null, 1])
  assert.deepEqual((await keys.get('x', ['deep'])).deep, nested(700))
  await auth.close()
})

test('sets that would be too large together leave one after the other', async () => {
  const session = newName()
  const auth = await open(session)
  const { version } = await summary(session)
  const large = (n) => auth.state.keys.set({ x: { [`large-${n}`]: 'a'.repeat(25 * 2 ** 20), last: n } })
  await Promise.all([large(1), large(2), large(3)])
  assert.equal((await summary(session)).version, version + 3)
  assert.equal((await auth.state.keys.get('x', ['last'])).last, 3)
  await auth.close()
})
