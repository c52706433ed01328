/**
 * Measures the figures of the README, and prints them as its tables: requests for what Baileys does, how long opening
 * takes, what a session takes in memory. `npm run measure`; needs the fixtures installed.
 */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys, preKey } from '../test/baileys.mjs'
import { startService } from '../test/service.mjs'

const FIXTURES = fileURLToPath(new URL('../../fixtures/', import.meta.url))
const OPERATIONS = [
  ['start,pair', 'open and pair'],
  ['login', 'first login'],
  ['receive:1', 'receive, new contact'],
  ['receive:1', 'receive again'],
  ['send:1', 'send 1:1, three devices, new'],
  ['send:1', 'send 1:1 again'],
  ['crowd:20', ''],
  ['crowd-send:1', 'first group send, 20 × 2 devices'],
  ['crowd-send:1', 'next group send'],
  ['crowd:1000', ''],
  ['crowd-send:1', 'first group send, 1,000 × 2 devices'],
  ['crowd-send:1', 'next group send'],
]
const RELEASES = { 6: '6.7.24', 7: '7.0.0-rc14' }

async function operations(service, release) {
  const steps = OPERATIONS.flatMap(([step]) => [...step.split(',').filter((each) => each !== 'start'), 'calls'])
  const env = {
    PATH: process.env.PATH,
    AUTHSTORE_URL: service.url,
    AUTHSTORE_TOKEN: service.token,
    AUTHSTORE_SESSION: `measured-${randomUUID()}`,
    DRIVE_STEP_MS: '500000',
  }
  const args = ['drive.mjs', '--baileys', release, '--state', 'remote']
  const child = spawn(process.execPath, args, { cwd: FIXTURES, env, stdio: ['pipe', 'pipe', 'inherit'] })
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = async () => JSON.parse((await answers.next()).value)
  await answer()
  const counts = []
  for (const step of steps) {
    // What Baileys leaves to do for later belongs to what was asked before.
    if (step === 'calls') await new Promise((resolve) => setTimeout(resolve, 1500))
    child.stdin.write(`${step}\n`)
    const got = await answer()
    if (!got.ok) throw new Error(`${step}: ${got.error}`)
    if (step === 'calls') counts.push(got)
  }
  child.stdin.end()
  return counts
}

function row(label, { gets, idsRead, sets, rowsWritten, credsSaves, requests }) {
  const { commit = 0, commits = 0, lease = 0, state = 0 } = requests
  const kept = lease > 0 ? `, ${lease} for the lease` : ''
  const other = state > 0 ? ` + ${lease + state} to open` : kept
  return `| ${label} | ${gets} (${idsRead}) | ${sets} (${rowsWritten}) | ${credsSaves} | ${commit + commits}${other} |`
}

async function tableOfOperations(service) {
  for (const [release, version] of Object.entries(RELEASES)) {
    const counts = await operations(service, release)
    print(`\n| Baileys ${version} | get (ids) | set (rows) | saveCreds | requests |\n|---|---|---|---|---|`)
    OPERATIONS.forEach(([, label], index) => label && print(row(label, counts[index])))
  }
}

/** A mix like that of a session some weeks old: pre-keys, sessions, mappings. */
function keysOf(count) {
  const keys = { 'pre-key': {}, session: {}, 'lid-mapping': {} }
  for (let n = 0; n < count; n++) {
    if (n % 10 < 4) keys['pre-key'][n + 1] = preKey()
    else if (n % 10 < 7) keys.session[`1555${n}.0`] = sessionValue(n)
    else keys['lid-mapping'][`1555${n}`] = `100000000${n}`
  }
  return keys
}

const filler = (length) => randomUUID().repeat(Math.ceil(length / 36)).slice(0, length)
const sessionValue = (n) => ({ _sessions: { [filler(44)]: { registrationId: n, chain: filler(1500) } }, version: 'v1' })

async function tableOfSizes(service) {
  print('\n| Keys | values | open, median of 9 | memory held | with `memoryBytes: 0` |\n|---|---|---|---|---|')
  for (const count of [0, 1127, 11_000]) {
    const { url, token } = service
    const open = (session, more) => useRemoteAuthState({ url, token, session, baileys, ...more })
    const session = `size-${randomUUID()}`
    const first = await open(session)
    const keys = keysOf(count)
    await first.state.keys.set(keys)
    await first.close()
    const took = []
    for (let round = 0; round < 9; round++) {
      const began = performance.now()
      const auth = await open(session)
      took.push(performance.now() - began)
      await auth.close()
    }
    const whole = await held(service, keys, {})
    const bare = await held(service, keys, { memoryBytes: 0 })
    const values = Buffer.byteLength(JSON.stringify(keys))
    const median = took.sort((a, b) => a - b)[4].toFixed(1)
    print(`| ${count.toLocaleString('en')} | ${kib(values)} | ${median} ms | ${kib(whole)} | ${kib(bare)} |`)
  }
}

/** @returns bytes of heap and buffers that a session holds, of many opened and left alone. */
async function held({ url, token }, keys, options) {
  const many = Object.keys(keys.session).length > 1000 ? 4 : 20
  const names = Array.from({ length: many }, () => `held-${randomUUID()}`)
  const openAll = (more) =>
    Promise.all(names.map((session) => useRemoteAuthState({ url, token, session, baileys, ...more })))
  const filled = await openAll({})
  await Promise.all(filled.map(({ state }) => state.keys.set(keys)))
  await Promise.all(filled.map((auth) => auth.close()))
  const before = await inUse()
  const auths = await openAll(options)
  const after = await inUse()
  await Promise.all(auths.map((auth) => auth.close()))
  return (after - before) / many
}

async function inUse() {
  for (let round = 0; round < 4; round++) {
    global.gc()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const kib = (bytes) => `${(bytes / 1024).toLocaleString('en', { maximumFractionDigits: 0 })} KiB`
const print = (line) => process.stdout.write(`${line}\n`)

const service = await startService()
try {
  if (process.argv[2] !== '--operations') await tableOfSizes(service)
  if (process.argv[2] !== '--sizes') await tableOfOperations(service)
} finally {
  await service.stop()
}
process.exit(0)
