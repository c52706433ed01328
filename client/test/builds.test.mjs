/** The package as its users get it: both builds by its own name, and types that fit every release. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import * as esm from 'baileys-auth-store'

const commonjs = createRequire(import.meta.url)('baileys-auth-store')

test('both builds have the same exports', () => {
  assert.deepEqual(Object.keys(commonjs).sort(), Object.keys(esm).sort())
  assert.notEqual(commonjs.useRemoteAuthState, esm.useRemoteAuthState)
})

test('the types fit each release under both of its names', () => {
  const script = fileURLToPath(new URL('../scripts/check-types.mjs', import.meta.url))
  const { status, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
})
