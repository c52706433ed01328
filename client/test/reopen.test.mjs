/** Opening again in the same process: after an outage, after answers that were lost, and very many at once. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'
import { Faults, problem } from './faults.mjs'
import { startService } from './service.mjs'

let service, faults
before(async () => (service = await startService()))
after(() => service.stop())
beforeEach(async () => (faults = await new Faults(service.url).listen()))
afterEach(() => faults.close())

const newName = () => `reopen-${randomUUID()}`
const open = (session, more) => useRemoteAuthState({ url: faults.url, token: service.token, session, baileys, ...more })
const isLease = ({ path }) => path.endsWith('/lease')

async function summary(session) {
  const headers = { authorization: `Bearer ${service.token}` }
  return (await fetch(`${service.url}/v1/sessions/${session}`, { headers })).json()
}

/** Loses a session to an outage. @returns what had been opened; the outage goes on. */
async function lose(session, more) {
  const auth = await open(session, { commitDeadlineMs: 300, ...more })
  const lost = new Promise((resolve) => auth.on('lost', resolve))
  faults.rule = () => 'lose-request'
  auth.state.keys.set({ session: { a: 1 } })
  assert.equal((await lost).reason, 'unavailable')
  return auth
}

test('a session that was lost to an outage opens again as soon as that is over', async () => {
  for (const more of [{}, { holder: 'named' }]) {
    const session = newName()
    const first = await lose(session, more)
    const { epoch } = await summary(session)
    faults.rule = () => undefined
    const second = await open(session, more)
    // What is still on its way from the first comes too late.
    assert.ok((await summary(session)).epoch > epoch)
    await first.close()
    await second.state.keys.set({ session: { b: 2 } })
    assert.notEqual((await summary(session)).lease, null)
    await second.close()
  }
})

test('a lost session is given free for others in the background', async () => {
  const session = newName()
  await lose(session)
  assert.notEqual((await summary(session)).lease, null)
  faults.rule = () => undefined
  while ((await summary(session)).lease !== null) await sleep(50)
})

test('a lease whose answers were lost is no hindrance to the next open, and to two at once it is', async () => {
  const session = newName()
  faults.rule = (request) => (isLease(request) ? 'lose-answer' : undefined)
  await assert.rejects(open(session, { openDeadlineMs: 300 }), { code: 'unavailable' })
  assert.notEqual((await summary(session)).lease, null)
  faults.rule = () => undefined
  const both = await Promise.allSettled([open(session), open(session)])
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const { reason } = both.find(({ status }) => status === 'rejected')
  assert.equal(reason.code, 'held')
  assert.match(reason.message, /until 2/)
  await both.find(({ status }) => status === 'fulfilled').value.close()
})

test('a release whose answer was lost is no hindrance either', async () => {
  const session = newName()
  const first = await open(session)
  faults.rule = ({ method }) => (method === 'DELETE' ? 'lose-request' : undefined)
  await first.close()
  assert.notEqual((await summary(session)).lease, null)
  faults.rule = () => undefined
  await (await open(session)).close()
})

test('a lease of its own past is ended for good only while it is still its own', async () => {
  const session = newName()
  await lose(session)
  let letDelete, letRaise
  const deleting = new Promise((resolve) => (letDelete = resolve))
  const raising = new Promise((resolve) => (letRaise = resolve))
  let asks = 0
  faults.delay = (request) => {
    if (request.method === 'DELETE') return deleting
    return isLease(request) && ++asks === 2 ? raising : undefined
  }
  faults.rule = () => undefined
  while (!faults.seen.some(({ method }) => method === 'DELETE')) await sleep(10)
  const again = open(session)
  while (asks < 2) await sleep(10)
  // The release that was on its way all the time arrives, and a standby takes what is free.
  letDelete()
  while ((await summary(session)).lease !== null) await sleep(10)
  const standby = await open(session, { url: service.url, holder: 'standby' })
  letRaise()
  await assert.rejects(again, { code: 'held', holder: 'standby' })
  await standby.state.keys.set({ session: { b: 2 } })
  await standby.close()
})

test('a lease of its own past is ended although answers to that are lost', async () => {
  const session = newName()
  await lose(session)
  const { epoch } = await summary(session)
  const answers = [undefined, 'lose-answer', undefined, 'lose-answer']
  faults.rule = (request) => (request.method === 'POST' && isLease(request) ? answers.shift() : undefined)
  const again = await open(session)
  assert.equal(answers.length, 0)
  assert.ok((await summary(session)).epoch > epoch)
  await again.state.keys.set({ session: { b: 2 } })
  await again.close()
})

test('where a write is rejected because the session is lost, it can be opened again', async () => {
  const session = newName()
  const auth = await open(session, { commitDeadlineMs: 300 })
  faults.rule = ({ path }) => (path.endsWith('/commit') ? 'lose-request' : undefined)
  const again = await auth.state.keys.set({ session: { a: 1 } }).catch((error) => {
    assert.equal(error.reason, 'unavailable')
    faults.rule = () => undefined
    return open(session)
  })
  await again.close()
  await auth.close()
})

test('a session that was lost for its token opens again at once with another', async () => {
  const session = newName()
  let revoked = false
  faults.rule = ({ headers }) => {
    if (revoked && headers.authorization === 'Bearer former') return problem(401, 'unauthorized')
    headers.authorization = `Bearer ${service.token}`
    return undefined
  }
  const former = await open(session, { token: 'former' })
  revoked = true
  const lost = new Promise((resolve) => former.on('lost', resolve))
  await assert.rejects(former.saveCreds(), { code: 'lost', reason: 'refused' })
  await lost
  while (!faults.seen.some(({ method }) => method === 'DELETE')) await sleep(10)
  await sleep(50)
  await assert.rejects(open(session, { token: 'former' }), { code: 'refused', status: 401 })
  assert.notEqual((await summary(session)).lease, null)
  await (await open(session, { token: 'present' })).close()
  await former.close()
})

test('of very many opens at once none runs out of time waiting for the others', async () => {
  let most = 0
  let inside = 0
  faults.delay = async () => {
    most = Math.max(most, ++inside)
    await sleep(100)
    inside--
  }
  const opening = Array.from({ length: 100 }, () => open(newName(), { openDeadlineMs: 1500, requestTimeoutMs: 1500 }))
  const auths = await Promise.all(opening)
  assert.ok(most <= 16, `${most} at a time`)
  faults.delay = undefined
  await Promise.all(auths.map((auth) => auth.close()))
})

test('while the store answers nobody, those who wait to open are not kept longer than they asked for', async () => {
  faults.rule = () => 'lose-request'
  const opening = Array.from({ length: 60 }, () => open(newName(), { openDeadlineMs: 200 }))
  const results = await Promise.allSettled(opening)
  assert.ok(results.every(({ reason }) => reason?.code === 'unavailable'))
  // Let in sixteen at a time all of them would have asked.
  assert.ok(new Set(faults.seen.map(({ path }) => path)).size < 60)
})

test('who waits to open since before the store went away is kept no longer than who came later', async () => {
  let answered = 40
  faults.rule = () => (answered-- > 0 ? undefined : 'lose-request')
  const began = performance.now()
  const opening = Array.from({ length: 200 }, () => open(newName(), { openDeadlineMs: 500, commitDeadlineMs: 500 }))
  const results = await Promise.allSettled(opening)
  const took = performance.now() - began
  const refused = results.filter(({ reason }) => reason?.code === 'unavailable')
  assert.ok(refused.length > 150, `${refused.length} refused`)
  assert.ok(took < 2500, `${took} ms`)
  faults.rule = () => undefined
  await Promise.all(results.map(({ value }) => value?.close()))
})

test('promises of calls on a lost or closed session may be dropped', async () => {
  const script = `
    import { useRemoteAuthState } from './dist/esm/index.js'
    import { baileys } from './test/baileys.mjs'
    const [url, token, session] = process.argv.slice(1)
    const auth = await useRemoteAuthState({ url, token, session, baileys, commitDeadlineMs: 1, memoryBytes: 0 })
    await auth.state.keys.set({ session: { b: 1 } })
    auth.on('lost', () => {
      auth.state.keys.set({ session: { a: 1 } })
      auth.state.keys.get('session', ['a'])
      auth.state.keys.clear()
      auth.saveCreds()
      setTimeout(async () => {
        await auth.close()
        auth.state.keys.set({ session: { a: 1 } })
        clearInterval(stay)
        console.log('alive')
      }, 50)
    })
    const stay = setInterval(() => {}, 1000)
    console.log('open')
    process.stdin.once('data', () => {
      auth.state.keys.get('session', ['b'])
      process.stdin.unref()
    })
  `
  const args = ['--input-type=module', '-e', script, faults.url, service.token, newName()]
  const cwd = new URL('..', import.meta.url)
  const child = spawn(process.execPath, args, { cwd, stdio: ['pipe', 'pipe', 'inherit'] })
  let said = ''
  for await (const chunk of child.stdout) {
    said += chunk
    if (said !== 'open\n') continue
    faults.rule = () => 'lose-request'
    child.stdin.end('go\n')
  }
  assert.equal(said, 'open\nalive\n')
})

test('close ends although somebody goes on writing: what came before is stored, the rest refused', async () => {
  const session = newName()
  const auth = await open(session)
  let written = 0
  let more = true
  const writer = (async () => {
    for (; more; written++) await auth.state.keys.set({ session: { a: { written } } })
  })()
  const refused = assert.rejects(writer, { code: 'closed' })
  while (written < 3) await sleep(1)
  const closed = auth.close()
  await assert.rejects(auth.saveCreds(), { code: 'closed' })
  const kept = await Promise.race([closed.then(() => false), sleep(5000, true, { ref: false })])
  more = false
  assert.equal(kept, false)
  await refused
  const again = await open(session)
  assert.deepEqual((await again.state.keys.get('session', ['a'])).a, { written: written - 1 })
  await again.close()
})

test('closing a session that was lost long ago ends no lease of a later owner of the same name', async () => {
  const [session, holder] = [newName(), 'pod-1']
  const brief = { holder, ttl: 1, requestTimeoutMs: 200 }
  const first = await lose(session, brief)
  const { epoch } = await summary(session)
  // Past what this process remembers of it.
  await sleep(1_500)
  faults.rule = () => undefined
  const second = await open(session, { holder })
  assert.ok((await summary(session)).epoch > epoch)
  await first.close()
  assert.equal((await summary(session)).lease.holder, holder)
  await second.state.keys.set({ session: { b: 2 } })
  await second.close()
})

test('an owner who is named has an epoch of its own, also where another process left the lease', async () => {
  const [session, holder] = [newName(), 'pod-1']
  await (await open(session, { holder })).close()
  const headers = { authorization: `Bearer ${service.token}`, 'content-type': 'application/json' }
  const lease = { method: 'POST', headers, body: JSON.stringify({ holder, ttl_s: 60 }) }
  const { epoch } = await (await fetch(`${service.url}/v1/sessions/${session}/lease`, lease)).json()
  const auth = await open(session, { holder })
  assert.ok((await summary(session)).epoch > epoch)
  await auth.close()
})

test('closing a lost session gives it free before the process ends, where the store can be asked again', async () => {
  const session = newName()
  const auth = await open(session)
  const releases = ['hang']
  faults.rule = ({ method, path }) => {
    if (method === 'DELETE') return releases.shift()
    return path.endsWith('/commit') ? problem(409, 'counter-regressed') : undefined
  }
  await assert.rejects(auth.saveCreds(), { code: 'lost', reason: 'refused' })
  while (!faults.seen.some(({ method }) => method === 'DELETE')) await sleep(10)
  await auth.close()
  assert.equal((await summary(session)).lease, null)
})
