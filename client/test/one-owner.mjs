/**
 * One owner of sessions, told what to do line by line:
 *
 *     node one-owner.mjs '{"url", "token", "sessions", …options}'
 *
 * `open` · `write TEXT` (to all, and waits) · `read` · `close`; prints one JSON line each. SIGTERM hands the sessions
 * over, as the README has it.
 */
import { createInterface } from 'node:readline'
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'

const { sessions, ...options } = JSON.parse(process.argv[2])
let auths = []

const ACTS = {
  async open() {
    auths = await Promise.all(sessions.map((session) => useRemoteAuthState({ ...options, session, baileys })))
    return { opened: auths.length }
  },
  async write(text) {
    await Promise.all(auths.map(({ state }) => state.keys.set({ session: { who: { text } } })))
    return { written: auths.length }
  },
  async read() {
    const found = await Promise.all(auths.map(({ state }) => state.keys.get('session', ['who'])))
    return { read: found.map(({ who }) => who?.text ?? null) }
  },
  async close() {
    await Promise.all(auths.map((auth) => auth.close()))
    return { closed: auths.length }
  },
}

process.once('SIGTERM', async () => {
  await Promise.all(auths.map((auth) => auth.close()))
  process.exit(0)
})

for await (const line of createInterface({ input: process.stdin })) {
  const [act, text] = line.split(' ')
  const answer = await ACTS[act](text).catch(({ code, holder, reason }) => ({ code, holder, reason }))
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
