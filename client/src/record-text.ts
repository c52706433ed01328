/**
 * The text of libsignal's session record, the largest value that Baileys writes all the time: what JSON.stringify
 * gives, in half the time. The names are known, so each object is one template, and base64 needs no escaping.
 *
 * Whatever is not exactly a record, member by member, is for the codec.
 */
type Members = Record<string, unknown>

const RECORD = ['_sessions', 'version']
const SESSION = ['registrationId', 'currentRatchet', 'indexInfo', '_chains']
const PENDING_SESSION = [...SESSION, 'pendingPreKey']
const RATCHET = ['ephemeralKeyPair', 'lastRemoteEphemeralKey', 'previousCounter', 'rootKey']
const KEY_PAIR = ['pubKey', 'privKey']
const INDEX_INFO = ['baseKey', 'baseKeyType', 'closed', 'used', 'created', 'remoteIdentityKey']
const CHAIN = ['chainKey', 'chainType', 'messageKeys']
const CHAIN_KEY = ['counter', 'key']

const NOT_BASE64 = /[^A-Za-z0-9+/=]/
const PENDING_NAME = /^(signedKeyId|baseKey|preKeyId)$/
const INDEX = /^[0-9]+$/
const NOTHING: Members = {}

/** @returns the JSON text of a session record; undefined for any other value. */
export function recordText(value: unknown): string | undefined {
  if (value === null || typeof value !== 'object' || !('_sessions' in value) || 'toJSON' in value) return undefined
  const writer = new RecordWriter()
  const text = writer.record(value)
  // Asked for a character V8 writes the text out; kept as the tree of its parts it would take several times the room.
  return writer.fits && text.charCodeAt(0) > 0 ? text : undefined
}

class RecordWriter {
  /** Whether all of it was as expected; if not, the text is of no use. */
  fits = true

  record(value: object): string {
    const { _sessions, version } = this.#named(value, RECORD)
    if (version !== 'v1') this.fits = false
    return `{"_sessions":${this.#each(_sessions, NOT_BASE64, false, (each) => this.#session(each))},"version":"v1"}`
  }

  #session(value: unknown): string {
    const pending = isMembers(value) && 'pendingPreKey' in value
    const { registrationId, currentRatchet, indexInfo, _chains, pendingPreKey } = this.#named(
      value,
      pending ? PENDING_SESSION : SESSION,
    )
    const chains = this.#each(_chains, NOT_BASE64, false, (each) => this.#chain(each))
    const last = pending ? `,"pendingPreKey":${this.#each(pendingPreKey, PENDING_NAME, true, this.#leaf)}` : ''
    const first = `{"registrationId":${this.#number(registrationId)},"currentRatchet":${this.#ratchet(currentRatchet)}`
    return `${first},"indexInfo":${this.#indexInfo(indexInfo)},"_chains":${chains}${last}}`
  }

  #ratchet(value: unknown): string {
    const { ephemeralKeyPair, lastRemoteEphemeralKey, previousCounter, rootKey } = this.#named(value, RATCHET)
    const { pubKey, privKey } = this.#named(ephemeralKeyPair, KEY_PAIR)
    const pair = `{"pubKey":${this.#text(pubKey)},"privKey":${this.#text(privKey)}}`
    const remote = `"lastRemoteEphemeralKey":${this.#text(lastRemoteEphemeralKey)}`
    const counter = `"previousCounter":${this.#number(previousCounter)}`
    return `{"ephemeralKeyPair":${pair},${remote},${counter},"rootKey":${this.#text(rootKey)}}`
  }

  #indexInfo(value: unknown): string {
    const { baseKey, baseKeyType, closed, used, created, remoteIdentityKey } = this.#named(value, INDEX_INFO)
    const base = `{"baseKey":${this.#text(baseKey)},"baseKeyType":${this.#number(baseKeyType)}`
    const times = `"closed":${this.#number(closed)},"used":${this.#number(used)},"created":${this.#number(created)}`
    return `${base},${times},"remoteIdentityKey":${this.#text(remoteIdentityKey)}}`
  }

  #chain(value: unknown): string {
    const { chainKey, chainType, messageKeys } = this.#named(value, CHAIN)
    const { counter, key } = this.#named(chainKey, CHAIN_KEY)
    // A closed chain has none, which JSON leaves out.
    const last = key === undefined ? '' : `,"key":${this.#text(key)}`
    const skipped = this.#each(messageKeys, INDEX, true, this.#leaf)
    const first = `{"chainKey":{"counter":${this.#number(counter)}${last}},"chainType":${this.#number(chainType)}`
    return `${first},"messageKeys":${skipped}}`
  }

  /** An object of any number of members. @param names of which each has to match the pattern, or must not. */
  #each(value: unknown, names: RegExp, match: boolean, text: (member: unknown) => string): string {
    const members = this.#plain(value)
    let all = ''
    for (const name in members) {
      if (names.test(name) !== match) this.fits = false
      all += `${all === '' ? '' : ','}"${name}":${text(members[name])}`
    }
    return `{${all}}`
  }

  readonly #leaf = (value: unknown): string => (typeof value === 'number' ? this.#number(value) : this.#text(value))

  #text(value: unknown): string {
    if (typeof value === 'string' && !NOT_BASE64.test(value)) return `"${value}"`
    this.fits = false
    return ''
  }

  #number(value: unknown): string {
    if (Number.isSafeInteger(value)) return String(value)
    this.fits = false
    return ''
  }

  /** @returns an object that has these members in this order and no other. */
  #named(value: unknown, names: readonly string[]): Members {
    const members = this.#plain(value)
    let count = 0
    for (const name in members) if (name !== names[count++]) this.fits = false
    if (count !== names.length) this.fits = false
    return members
  }

  /** The names that would give an object another form or meaning are none of those let through here. */
  #plain(value: unknown): Members {
    if (isMembers(value)) return value
    this.fits = false
    return NOTHING
  }
}

function isMembers(value: unknown): value is Members {
  return value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype
}
