/**
 * A whole state through a peer's own library, for the migrator's tests.
 *
 *     node peer-state.mjs put|get LIBRARY OPTIONS SESSION < state.json
 *
 * `put` stores `{creds, keys: {type: {id: value}}}`, `get` prints what the library gives for the ids named there, both in
 * BufferJSON. LIBRARY is a function of `stores/libraries.mjs`, OPTIONS its argument as JSON.
 */
import { readFileSync } from 'node:fs'
import { BufferJSON } from 'baileys'
import * as libraries from './stores/libraries.mjs'

const [verb, library, options, session] = process.argv.slice(2)
const given = JSON.parse(readFileSync(0, 'utf8'), BufferJSON.reviver)
const store = await libraries[library](JSON.parse(options))
const { state, saveCreds, close } = await store.open(session)

if (verb === 'put') {
  Object.assign(state.creds, given.creds)
  await saveCreds()
  await state.keys.set(given.keys)
} else {
  const keys = {}
  for (const [type, members] of Object.entries(given.keys)) {
    keys[type] = await state.keys.get(type, Object.keys(members))
  }
  const text = JSON.stringify({ creds: state.creds, keys }, BufferJSON.replacer)
  await new Promise((written) => process.stdout.write(`${text}\n`, written))
}
await close()
await store.end()
process.exit(0)
