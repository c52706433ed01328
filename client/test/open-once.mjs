/**
 * Opens a session, writes, opens it anew and reads: `node open-once.mjs '<options as JSON>'` prints what came of it as
 * JSON. `ca`, `cert` and `key` are the names of PEM files.
 */
import { readFileSync } from 'node:fs'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys, preKey } from './baileys.mjs'

const { ca, cert, key, ...options } = JSON.parse(process.argv[2])
const files = Object.entries({ ca, cert, key }).filter(([, file]) => file)
const tls = Object.fromEntries(files.map(([name, file]) => [name, readFileSync(file)]))
const open = () => useRemoteAuthState({ ...options, baileys, openDeadlineMs: 3000, ...(files.length > 0 && { tls }) })

try {
  const value = preKey()
  const first = await open()
  await first.state.keys.set({ session: { a: value } })
  await first.close()
  const second = await open()
  const same = (await second.state.keys.get('session', ['a'])).a.private.equals(value.private)
  await second.close()
  process.stdout.write(JSON.stringify({ same }))
} catch ({ code, message }) {
  process.stdout.write(JSON.stringify({ code, message }))
}
