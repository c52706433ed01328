/** The part of Baileys the client asks for. Real releases are driven in ../fixtures; here only shapes matter. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'

const keyPair = () => {
  const jwk = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' })
  return { private: Buffer.from(jwk.d, 'base64url'), public: Buffer.from(jwk.x, 'base64url') }
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
