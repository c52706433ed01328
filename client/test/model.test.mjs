/** The model that outages are judged by (`fixtures/model.mjs`) sees what it is there to see. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { Model } from '../../fixtures/model.mjs'
import { loadRelease } from './releases.mjs'

const key = Buffer.from([1, 2])
const plain = { type: 'Buffer', data: key.toString('base64') }

async function written() {
  const model = new Model(await loadRelease('7.0.0-rc14'))
  model.saveCreds({ nextPreKeyId: 1 })
  model.set({ session: { a: { n: 1 } }, 'pre-key': { 1: { key } } })
  model.saveCreds({ nextPreKeyId: 2 })
  model.set({ session: { a: { n: 2 } }, 'pre-key': { 1: null } })
  return model
}
const creds = { nextPreKeyId: 2 }
const last = { creds, keys: { session: { a: { n: 2 } }, 'pre-key': {} } }

test('states that were written are known, in whatever order they are looked at', async () => {
  const model = await written()
  model.sample(last)
  model.sample({ creds: { nextPreKeyId: 1 }, keys: {} })
  model.sample({ creds, keys: { 'pre-key': { 1: { key: plain } }, session: { a: { n: 1 } } } })
  assert.deepEqual(model.audit(last), { values: 2, writes: 4, samples: 3, distinct: 3 })
})

test('half of a commit, an older row, a lost one, another one and changed bytes are all seen', async () => {
  const wrong = [
    { creds, keys: { session: { a: { n: 1 } } } },
    { creds, keys: { session: { a: { n: 2 } }, 'pre-key': { 1: { key: plain } } } },
    { creds: { nextPreKeyId: 1 }, keys: { session: { a: { n: 2 } } } },
    { creds, keys: {} },
    { creds, keys: { session: { a: { n: 2 }, b: 1 } } },
    { creds, keys: { session: { a: { n: 1 } }, 'pre-key': { 1: { key: { ...plain, data: 'AAA=' } } } } },
  ]
  for (const state of wrong) {
    const sampled = await written()
    sampled.sample(state)
    assert.throws(() => sampled.audit(last), /1 of 1 stored states/)
    assert.throws(() => sampled.audit(state))
    const audited = await written()
    assert.throws(() => audited.audit(state), /differ from the model/)
  }
})
