/**
 * An owner of many sessions that writes to all of them without end, for those who pause it:
 *
 *     node late-writers.mjs '{"url", "token", "sessions", "ttl"}'
 *
 * Prints `{"ready": n}` once all are written to; then nothing until each session has ended. At the end it prints what
 * came of the writes after a pause of more than half a second, and ends by itself.
 */
import { useRemoteAuthState } from '../dist/esm/index.js'
import { baileys } from './baileys.mjs'

const { url, token, sessions, ttl } = JSON.parse(process.argv[2])
// Large enough that a paused process leaves some of them half sent.
const FILLER = 'x'.repeat(100_000)
const PAUSE_MS = 500
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

let pausedUntil
let beat = performance.now()
setInterval(() => {
  const now = performance.now()
  if (now - beat > PAUSE_MS) pausedUntil = now
  beat = now
}, 20).unref()

async function write(session, onFirst) {
  const auth = await useRemoteAuthState({ url, token, session, baileys, ttl, commitDeadlineMs: 5000 })
  const lost = new Promise((resolve) => auth.on('lost', ({ reason }) => resolve(reason)))
  let acceptedLate = 0
  for (let n = 0; ; n++) {
    try {
      const asked = performance.now()
      await auth.state.keys.set({ session: { who: { old: n, filler: FILLER } } })
      if (pausedUntil !== undefined && asked > pausedUntil) acceptedLate++
      if (n === 0) onFirst()
    } catch (error) {
      return { code: error.code, reason: error.reason, lost: await lost, acceptedLate }
    }
  }
}

let ready = 0
const ends = await Promise.all(
  sessions.map((session) => write(session, () => ++ready === sessions.length && say({ ready }))),
)
const reasons = {}
for (const { reason } of ends) reasons[reason] = (reasons[reason] ?? 0) + 1
say({
  refused: ends.filter(({ code, reason, lost }) => code === 'lost' && reason === lost).length,
  acceptedLate: ends.reduce((sum, end) => sum + end.acceptedLate, 0),
  reasons,
})
