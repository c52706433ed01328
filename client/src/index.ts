/** Keeps a Baileys session's auth state in a baileys-auth-store service. */
export { useRemoteAuthState } from './auth-state.js'
export type { RemoteAuthState, RemoteAuthStateOptions, RemoteKeyStore } from './auth-state.js'
export { decode, encode } from './codec.js'
export type { BaileysModule } from './codec.js'
export type { TlsOptions } from './connections.js'
export {
  AuthStoreError,
  ClosedError,
  ConflictError,
  CorruptError,
  FencedError,
  GoneError,
  HeldError,
  LostError,
  RefusedError,
  UnavailableError,
} from './errors.js'
export type { ErrorCode, LostReason } from './errors.js'
