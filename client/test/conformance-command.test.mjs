/** The suite's command as the README has it, in a clone: nothing in the environment, no package named `baileys`. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const cwd = fileURLToPath(new URL('..', import.meta.url))

function run(args, env) {
  const { PATH } = process.env
  return spawnSync(process.execPath, ['conformance/run.mjs', ...args], { cwd, env: { PATH, ...env }, encoding: 'utf8' })
}

test('the multi-file store is judged, and nothing is left behind', async () => {
  const TMPDIR = await mkdtemp(join(tmpdir(), 'authstore-command-'))
  const { status, stdout, stderr } = run(['./conformance/stores/multi-file.mjs', 'a session has one owner'], { TMPDIR })
  assert.equal(stderr, '')
  assert.match(stdout, /^BROKEN +a session has one owner$/m)
  assert.match(stdout, /^1 of 1 broken$/m)
  assert.equal(status, 1)
  assert.deepEqual(await readdir(TMPDIR), [])
  await rm(TMPDIR, { recursive: true })
})

test('a release that is named and not there is an error, not another release', () => {
  const { status, stderr } = run(['./conformance/stores/multi-file.mjs'], { CONFORMANCE_BAILEYS: 'no-such-baileys' })
  assert.notEqual(status, 0)
  assert.match(stderr, /no-such-baileys/)
})

test('where the service is has to be said', () => {
  const { status, stderr, stdout } = run(['./conformance/stores/remote.mjs'])
  assert.notEqual(status, 0)
  assert.match(stderr, /AUTHSTORE_URL and AUTHSTORE_TOKEN have to say where/)
  assert.equal(stdout, '')
})
