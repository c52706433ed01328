/** The part of Baileys the client asks for. Real releases are driven in ../fixtures; here only shapes matter. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'

// Not exported as JWK: Node 20 holds the key's lock meanwhile, and a garbage collection just then, which lets go of the
// job that made the key, waits for that lock for ever.
const AS_DER = {
  publicKeyEncoding: { type: 'spki', format: 'der' },
  privateKeyEncoding: { type: 'pkcs8', format: 'der' },
}
const RAW_BYTES = 32

const keyPair = () => {
  const { privateKey, publicKey } = generateKeyPairSync('x25519', AS_DER)
  return { private: privateKey.subarray(-RAW_BYTES), public: publicKey.subarray(-RAW_BYTES) }
}

export class AppStateSyncKeyData {
  static fromObject(plain) {
    return Object.assign(new AppStateSyncKeyData(), { keyData: Buffer.from(plain.keyData, 'base64') })
  }
}

export const baileys = {
  initAuthCreds: () => ({
    noiseKey: keyPair(),
    pairingEphemeralKeyPair: keyPair(),
    signedIdentityKey: keyPair(),
    signedPreKey: { keyPair: keyPair(), signature: randomBytes(64), keyId: 1 },
    registrationId: 7,
    advSecretKey: randomBytes(32).toString('base64'),
    processedHistoryMessages: [],
    nextPreKeyId: 1,
    firstUnuploadedPreKeyId: 1,
    accountSyncCounter: 0,
    accountSettings: { unarchiveChats: false },
    registered: false,
    routingInfo: undefined,
  }),
  proto: { Message: { AppStateSyncKeyData } },
}

export const preKey = () => keyPair()
