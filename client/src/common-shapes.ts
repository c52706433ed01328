/**
 * The two values that most of a session consists of, read from the text that Baileys' own objects give: libsignal's
 * session record, and a key pair. Everything else, also the same with spaces or in another order, is for the codec.
 *
 * A record's chains and sessions are named by random keys. To JSON.parse each such name is a hidden class that no other
 * object will ever have, which is most of what a record costs; an object that is a dictionary from the start has none.
 */
const TEXT = '"([A-Za-z0-9+/=]*)"'
const NUMBER = '(0|-?[1-9][0-9]{0,14})'

const SESSIONS_OPEN = '{"_sessions":{'
const SESSIONS_CLOSE = '},"version":"v1"}'
const SESSION = shape(
  `${TEXT}:{"registrationId":${NUMBER},"currentRatchet":{"ephemeralKeyPair":{"pubKey":${TEXT},"privKey":${TEXT}},`,
  `"lastRemoteEphemeralKey":${TEXT},"previousCounter":${NUMBER},"rootKey":${TEXT}},"indexInfo":{"baseKey":${TEXT},`,
  `"baseKeyType":${NUMBER},"closed":${NUMBER},"used":${NUMBER},"created":${NUMBER},"remoteIdentityKey":${TEXT}},`,
  '"_chains":{',
)
const MESSAGE_KEYS = `({(?:"[0-9]+":${TEXT.replace('(', '(?:')},?)*})`
const CHAIN = shape(
  `${TEXT}:{"chainKey":{"counter":${NUMBER}(?:,"key":${TEXT})?},"chainType":${NUMBER},`,
  `"messageKeys":${MESSAGE_KEYS}}(,?)`,
)
const PENDING = `({(?:"(?:signedKeyId|baseKey|preKeyId)":(?:[0-9]+|"[A-Za-z0-9+/=]*"),?)*})`
const SESSION_END = shape(`}(?:,"pendingPreKey":${PENDING})?}(,?)`)

const BYTES = `{"type":"Buffer","data":${TEXT}}`
const KEY_PAIR = shape(`{"private":${BYTES},"public":${BYTES}}`)

interface Place {
  text: string
  at: number
}

type Dictionary = Record<string, unknown>

/** @returns the value of a text of one of these shapes; undefined for any other. */
export function readCommon(text: string): unknown {
  return text.startsWith(SESSIONS_OPEN) ? readRecord(text) : readKeyPair(text)
}

function readKeyPair(text: string): unknown {
  const place = { text, at: 0 }
  const found = take(KEY_PAIR, place)
  if (!found || place.at !== text.length) return undefined
  const [, secret = '', open = ''] = found
  return { private: Buffer.from(secret, 'base64'), public: Buffer.from(open, 'base64') }
}

function readRecord(text: string): unknown {
  const place = { text, at: SESSIONS_OPEN.length }
  const sessions = Object.create(null) as Dictionary
  for (let more = true; more; ) {
    const head = take(SESSION, place)
    const chains = head && readChains(place)
    const end = chains && take(SESSION_END, place)
    if (!end) return undefined
    sessions[head[1] ?? ''] = sessionOf(head, chains, end[1])
    more = end[2] === ','
  }
  const whole = text.length === place.at + SESSIONS_CLOSE.length && text.endsWith(SESSIONS_CLOSE)
  return whole ? { _sessions: plain(sessions), version: 'v1' } : undefined
}

function readChains(place: Place): Dictionary | undefined {
  const chains = Object.create(null) as Dictionary
  for (let more = true; more; ) {
    const found = take(CHAIN, place)
    if (!found) return undefined
    const [, name = '', counter, key, type, messageKeys = '', comma] = found
    chains[name] = {
      chainKey: key === undefined ? { counter: Number(counter) } : { counter: Number(counter), key },
      chainType: Number(type),
      messageKeys: messageKeys === '{}' ? {} : (JSON.parse(messageKeys) as object),
    }
    more = comma === ','
  }
  return plain(chains)
}

function sessionOf(head: RegExpExecArray, chains: Dictionary, pending: string | undefined): Dictionary {
  const session: Dictionary = {
    registrationId: Number(head[2]),
    currentRatchet: {
      ephemeralKeyPair: { pubKey: head[3], privKey: head[4] },
      lastRemoteEphemeralKey: head[5],
      previousCounter: Number(head[6]),
      rootKey: head[7],
    },
    indexInfo: {
      baseKey: head[8],
      baseKeyType: Number(head[9]),
      closed: Number(head[10]),
      used: Number(head[11]),
      created: Number(head[12]),
      remoteIdentityKey: head[13],
    },
    _chains: chains,
  }
  if (pending !== undefined) session.pendingPreKey = JSON.parse(pending) as object
  return session
}

/** An object like any other, but for how V8 keeps its members. */
function plain(members: Dictionary): Dictionary {
  return Object.setPrototypeOf(members, Object.prototype) as Dictionary
}

/** @returns what stands at the place, which moves behind it; undefined, and it stays, when that is something else. */
function take(what: RegExp, place: Place): RegExpExecArray | undefined {
  what.lastIndex = place.at
  const found = what.exec(place.text)
  if (!found) return undefined
  place.at = what.lastIndex
  return found
}

/** @returns a pattern for the place where one stands. Braces stand for themselves where they hold no number. */
function shape(...parts: string[]): RegExp {
  return new RegExp(parts.join(''), 'y')
}
