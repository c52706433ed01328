/**
 * Synthetic values in the shapes of Baileys 7.0.0-rc14: a pre-key of 164 bytes as text, a session of about 1.6 KB, a
 * sender-key of about 1.2 KB. Random where the real ones are; nobody's keys.
 */
import { randomBytes } from 'node:crypto'

const base64 = (bytes) => randomBytes(bytes).toString('base64')
const phone = (n) => `1555${String(1_000_000 + n)}`

export function preKey() {
  return { private: randomBytes(32), public: randomBytes(32) }
}

/** libsignal's record: plain JSON, its bytes as base64 strings. Six chains: a conversation with some turns behind it. */
export function session() {
  const baseKey = base64(33)
  const chains = {}
  for (let turn = 0; turn < 6; turn++) {
    chains[base64(33)] = {
      chainKey: { counter: turn, key: base64(32) },
      chainType: turn === 5 ? 1 : 2,
      messageKeys: {},
    }
  }
  const record = {
    registrationId: 12345,
    currentRatchet: {
      ephemeralKeyPair: { pubKey: base64(33), privKey: base64(32) },
      lastRemoteEphemeralKey: base64(33),
      previousCounter: 3,
      rootKey: base64(32),
    },
    indexInfo: {
      baseKey,
      baseKeyType: 2,
      closed: -1,
      used: Date.now(),
      created: Date.now(),
      remoteIdentityKey: base64(33),
    },
    _chains: chains,
  }
  return { _sessions: { [baseKey]: record }, version: 'v1' }
}

export function senderKey() {
  const bytes = (length) => ({ type: 'Buffer', data: [...randomBytes(length)] })
  const state = {
    senderKeyId: 1469593543,
    senderChainKey: { iteration: 5, seed: bytes(32) },
    senderSigningKey: { public: bytes(33), private: bytes(32) },
    senderMessageKeys: [0, 1].map((iteration) => ({ iteration, seed: bytes(32) })),
  }
  return Buffer.from(JSON.stringify([state]))
}

/** What pairing and login add to creds, so that they are as large as a live session's. */
export function pairedCreds() {
  return {
    me: { id: `${phone(1)}:1@s.whatsapp.net`, lid: '100000000000002:1@lid' },
    account: {
      details: base64(10),
      accountSignatureKey: base64(32),
      accountSignature: base64(64),
      deviceSignature: base64(64),
    },
    signalIdentities: [
      { identifier: { name: '100000000000002:1@lid', deviceId: 0 }, identifierKey: randomBytes(33) },
    ],
    platform: 'android',
    myAppStateKeyId: 'AAAAAAL/u5E=',
    routingInfo: randomBytes(8),
    lastAccountSyncTimestamp: 1_795_422_999,
  }
}

function appStateKey(baileys) {
  const plain = { keyData: base64(32), fingerprint: { rawId: 1, currentIndex: 0, deviceIndexes: [0, 1] } }
  return baileys.proto.Message.AppStateSyncKeyData.fromObject({ ...plain, timestamp: '1700000000000' })
}

function appStateVersion() {
  const indexValueMap = {}
  for (let n = 0; n < 8; n++) indexValueMap[base64(32)] = { valueMac: randomBytes(32) }
  return { version: 7, hash: randomBytes(128), indexValueMap }
}

function senderKeyMemory() {
  return Object.fromEntries(Array.from({ length: 5 }, (_, n) => [`10000000000000${n}@lid`, true]))
}

/** Parts of 1,127 keys of a session some weeks old. The split is an assumption: no census by type is public. */
const MIX = {
  'pre-key': [430, (n) => String(n + 1), preKey],
  session: [330, (n) => `${phone(n)}.0`, session],
  'lid-mapping': [300, (n) => (n % 2 ? `${phone(n - 1)}_reverse` : phone(n)), (n) => phone(n + 1)],
  'sender-key': [40, (n) => `120363000000001${n}@g.us::${phone(n)}::0`, senderKey],
  'sender-key-memory': [12, (n) => `120363000000001${n}@g.us`, senderKeyMemory],
  'app-state-sync-key': [5, (n) => `AAAAAAD/WS${n}=`, (_n, baileys) => appStateKey(baileys)],
  'app-state-sync-version': [5, (n) => `regular_${n}`, appStateVersion],
  'device-list': [5, (n) => phone(n), () => ['0', '1']],
}
export const WHOLE = 1127

/** @returns `{type: {id: value}}` of about `total` keys in the proportions above; exactly so for 1,127. */
export function mix(baileys, total = WHOLE) {
  const keys = {}
  for (const [type, [share, id, value]] of Object.entries(MIX)) {
    const count = Math.max(1, Math.round((share * total) / WHOLE))
    keys[type] = {}
    for (let n = 0; n < count; n++) keys[type][id(n)] = value(n, baileys)
  }
  return keys
}

export function sizeOf(keys) {
  return Object.values(keys).reduce((sum, values) => sum + Object.keys(values).length, 0)
}
