/** The store the tests run against: the one AUTHSTORE_URL names, or one of our own, started from this project. */
import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const COMMAND = fileURLToPath(new URL('../../.venv/bin/authstore', import.meta.url))
const READY_WITHIN_MS = 90_000

/** @returns `{ url, token, stop }` */
export async function startService() {
  const { AUTHSTORE_URL: url, AUTHSTORE_TOKEN: token } = process.env
  return url ? { url, token, stop: async () => {} } : startOwn()
}

/** @returns `{ url, token, stop, tokenOf(tenant) }`, whatever AUTHSTORE_URL names. */
export async function startOwn() {
  const folder = await mkdtemp(join(tmpdir(), 'authstore-client-'))
  const port = await freePort()
  const token = randomBytes(24).toString('base64url')
  const env = {
    PATH: process.env.PATH,
    AUTHSTORE_PORT: String(port),
    AUTHSTORE_DATA_DIR: join(folder, 'data'),
    AUTHSTORE_TOKEN: token,
  }
  const child = spawn(COMMAND, ['serve'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (data) => (errors = (errors + data).slice(-4000)))
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const stop = async () => {
    child.kill('SIGTERM')
    await exited
    await rm(folder, { recursive: true, force: true })
  }
  const tokenOf = async (tenant) => {
    const { stdout } = await promisify(execFile)(COMMAND, ['token', 'create', '--tenant', tenant], { env })
    return stdout.trim().split(/\s+/).at(-1)
  }
  const url = `http://127.0.0.1:${port}`
  for (const end = Date.now() + READY_WITHIN_MS; Date.now() < end; await sleep(100)) {
    if (child.exitCode !== null) throw new Error(`the service ended: ${errors}`)
    const ready = await fetch(`${url}/health/ready`).catch(() => undefined)
    if (ready?.ok) return { url, token, stop, tokenOf }
  }
  await stop()
  throw new Error(`the service was not ready: ${errors}`)
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })
}
