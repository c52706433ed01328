/** The contract of a key store, kept by this one with each release, and by Baileys' own in part. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { CASES, runSuite } from '../conformance/index.mjs'
import { spawnOf } from '../conformance/spawn.mjs'
import makeMultiFile from '../conformance/stores/multi-file.mjs'
import makeRemote from '../conformance/stores/remote.mjs'
import { VERSIONS } from './releases.mjs'
import { startService } from './service.mjs'

const moduleOf = (name) => fileURLToPath(new URL(`../conformance/stores/${name}.mjs`, import.meta.url))

let service, folder
before(async () => {
  service = await startService()
  folder = await mkdtemp(join(tmpdir(), 'authstore-conformance-'))
  const { url, token } = service
  Object.assign(process.env, { AUTHSTORE_URL: url, AUTHSTORE_TOKEN: token, CONFORMANCE_FOLDER: folder })
})
after(async () => {
  await service.stop()
  await rm(folder, { recursive: true })
})

async function outcomes(version, make, name, env = {}) {
  Object.assign(process.env, { CONFORMANCE_BAILEYS: `baileys-${version}`, AUTHSTORE_MEMORY_BYTES: '', ...env })
  const results = await runSuite({ spawn: spawnOf(moduleOf(name)), ...(await make()) })
  assert.equal(results.length, CASES.length)
  return results
}

const named = (results, wanted) => results.filter(({ outcome }) => outcome === wanted).map(({ name }) => name)

for (const version of VERSIONS) {
  test(`this store keeps all of it with ${version}`, async () => {
    const results = await outcomes(version, makeRemote, 'remote')
    assert.deepEqual(results.filter(({ outcome }) => outcome === 'broken'), [])
    // What the service says of creds that it cannot open is tested in failures.test.mjs.
    assert.deepEqual(named(results, 'not tried'), ['creds that cannot be read are an error, not a new identity'])
  })
}

test('and without memory', async () => {
  const results = await outcomes('7.0.0-rc14', makeRemote, 'remote', { AUTHSTORE_MEMORY_BYTES: '0' })
  assert.deepEqual(results.filter(({ outcome }) => outcome === 'broken'), [])
})

/** What Baileys' own store breaks: the suite has to find it, or it finds nothing elsewhere either. */
const FOUND = [
  'ids that are not stored are left out',
  'empty and zero values are values',
  'ids that differ only by : and - are two',
  'ids that differ only by / and __ are two',
  'a type that begins like another is another',
  'names of Object.prototype are ids like others',
  'ids of three hundred characters are kept',
  'a set of which one value cannot be stored stores none',
  'creds that were handed out are the creds that are stored',
  'creds that cannot be read are an error, not a new identity',
  'a session has one owner',
]
const FOUND_IN = { '7.0.0-rc14': ['objects of numeric names stay objects'] }
/** Depends on what the disk does meanwhile. */
const AT_TIMES = [
  'a value is stored as it was when it was set',
  'a reader never sees half of a set',
  'ids that differ only by case are two',
]

for (const version of VERSIONS) {
  test(`what the multi-file store of ${version} breaks is found`, async () => {
    const broken = named(await outcomes(version, makeMultiFile, 'multi-file'), 'broken')
    const expected = [...FOUND, ...(FOUND_IN[version] ?? [])]
    assert.deepEqual(broken.filter((name) => !AT_TIMES.includes(name)).sort(), expected.sort())
  })
}
