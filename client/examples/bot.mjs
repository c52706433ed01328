/**
 * A bot that answers `ping`; its auth state is in a running baileys-auth-store service.
 *
 *     npm install baileys, and this client
 *     AUTHSTORE_TOKEN="$(cat data/token)" node bot.mjs
 *
 * AUTHSTORE_URL and AUTHSTORE_SESSION say where and under which name, if not at http://127.0.0.1:8480 as `bot-1`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import * as baileys from 'baileys'
import { useRemoteAuthState } from 'baileys-auth-store'

const { AUTHSTORE_URL: url = 'http://127.0.0.1:8480', AUTHSTORE_TOKEN: token } = process.env
const { AUTHSTORE_SESSION: session = 'bot-1' } = process.env
const { DisconnectReason, makeWASocket } = baileys

/** Undefined while the session is not ours: no socket is made then. */
let auth
let sock

/** Opens the session and connects, however long that takes. */
async function run() {
  for (;;) {
    try {
      // A process that was killed holds the session for up to 60 s.
      auth = await useRemoteAuthState({ url, token, session, baileys, waitMs: 70_000 })
      break
    } catch (error) {
      report(error)
      // Anything else has to be looked at first, see the README.
      if (!['unavailable', 'held'].includes(error.code)) process.exit(1)
      await sleep(5_000)
    }
  }
  auth.on('lost', onLost)
  connect()
}

/** Each socket is made from the same state. */
function connect() {
  if (!auth) return
  const mine = makeWASocket({ auth: auth.state })
  sock = mine
  mine.ev.on('creds.update', auth.saveCreds)
  mine.ev.on('connection.update', (update) => onConnection(mine, update))
  mine.ev.on('messages.upsert', (upsert) => onMessages(mine, upsert).catch(report))
}

function onConnection(mine, update) {
  const { connection, lastDisconnect, qr } = update
  if (qr) console.log(`Draw this as a QR code (qrencode -t ansiutf8) and scan it under Linked devices: ${qr}`)
  if (connection === 'open') console.log('connected')
  if (connection !== 'close' || mine !== sock || !auth) return
  const status = lastDisconnect?.error?.output?.statusCode
  if (status === DisconnectReason.loggedOut) void onLoggedOut()
  else setTimeout(() => mine === sock && connect(), status === DisconnectReason.restartRequired ? 0 : 2_000)
}

async function onMessages(mine, { messages, type }) {
  for (const { key, message } of messages) {
    const text = message?.conversation || message?.extendedTextMessage?.text
    if (type === 'notify' && !key.fromMe && text === 'ping') await mine.sendMessage(key.remoteJid, { text: 'pong' })
  }
}

/** The phone removed this device: its keys are of no use any more. The same name is paired anew. */
async function onLoggedOut() {
  const gone = auth
  auth = undefined
  console.log('logged out')
  await gone?.delete({ purge: true }).catch(report)
  await run()
}

/** Stops writing and connecting; the table "When the session is lost" tells the reasons. */
async function onLost(why) {
  const lost = auth
  auth = undefined
  report(why)
  await sock?.end(why)
  await lost?.close()
  if (why.reason !== 'unavailable') process.exit(1)
  await run()
}

/** Writes out what is queued and gives the session free: the next start opens it at once. */
async function stop() {
  const open = auth
  auth = undefined
  await sock?.end(undefined)
  await open?.close().catch(report)
  process.exit()
}

function report({ message }) {
  console.error(message)
}

process.once('SIGINT', stop)
process.once('SIGTERM', stop)
await run()
