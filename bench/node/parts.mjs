/**
 * The Node side of a workload in parts: the client's codec alone, and an exchange with a server that does nothing.
 *
 *     values  {}                            -> texts to store: {sessions, preKeys, whole, creds}
 *     codec   {workload, n}                 -> {took: [ms]}: what the workload sets is encoded, what it reads decoded
 *     hop     {url, sent, received, n}      -> {took: [ms]}: bodies of so many bytes there and back
 */
import * as baileys from 'baileys'
import { decodeKey, encode } from '../../client/dist/esm/codec.js'
import { Connections } from '../../client/dist/esm/connections.js'
import { obey } from './commands.mjs'
import { mix, pairedCreds, preKey, session } from './values.mjs'

const FIRST_LOGIN = 812
const GROUP = 256
const HEADERS = [
  `authorization: Bearer ${'x'.repeat(32)}`,
  'accept: application/json',
  'idempotency-key: 00000000-0000-4000-8000-000000000000',
  'if-match: "1000"',
  'lease-epoch: 1',
]
const PATIENCE_MS = 10_000

const sessions = Array.from({ length: GROUP }, session)
const preKeys = Object.fromEntries(Array.from({ length: FIRST_LOGIN }, (_, n) => [String(n + 1), preKey()]))
const whole = mix(baileys)
const creds = Object.assign(baileys.initAuthCreds(), pairedCreds())

const texts = {
  sessions: sessions.map(encode),
  preKeys: encodeAll(preKeys),
  whole: Object.fromEntries(Object.entries(whole).map(([type, values]) => [type, encodeAll(values)])),
  creds: encode(creds),
}

/** What Baileys' own values cost on their way, whichever store takes them. */
const CODEC = {
  w2: () => encode(sessions[0]),
  w3: () => encodeAll(preKeys),
  w4() {
    decodeKey('session', texts.sessions[0], baileys)
    decodeKey('pre-key', texts.preKeys[1], baileys)
    encode(sessions[0])
  },
  w5() {
    for (const text of texts.sessions) decodeKey('session', text, baileys)
    sessions.map(encode)
  },
  w6() {
    for (const values of Object.values(whole)) encodeAll(values)
    encode(creds)
  },
  w7: () => encode(creds),
  w9() {
    for (const type in texts.whole) for (const id in texts.whole[type]) decodeKey(type, texts.whole[type][id], baileys)
    decodeKey('creds', texts.creds, baileys)
  },
}

function encodeAll(values) {
  return Object.fromEntries(Object.entries(values).map(([id, value]) => [id, encode(value)]))
}

async function timed(n, work) {
  const took = []
  for (let i = 0; i < n; i++) {
    const began = performance.now()
    await work()
    took.push(performance.now() - began)
  }
  return { took }
}

await obey({
  values: () => texts,

  codec: ({ workload, n }) => timed(n, CODEC[workload]),

  async hop({ url, sent, received, n }) {
    const connections = new Connections(new URL(url))
    const headers = HEADERS.map((line) => `${line}\r\n`).join('')
    const body = 'x'.repeat(sent)
    const call = { method: 'POST', path: `/${received}`, headers, body }
    try {
      return await timed(n, () => connections.exchange(call, PATIENCE_MS))
    } finally {
      connections.close()
    }
  },
})
