/**
 * What can go wrong, each answer a type of its own: none of them ever means "no session yet".
 *
 *     AuthStoreError
 *     ├── UnavailableError   the store did not answer, or answered 429 or 5xx, until the deadline
 *     ├── CorruptError       the store holds something it cannot open, or that cannot be a session
 *     ├── GoneError          the session was deleted
 *     ├── HeldError          another owner holds the lease
 *     ├── FencedError        another owner took the lease from us
 *     ├── ConflictError      the session is at another version than the one we wrote
 *     ├── RefusedError       the store refuses the request: token, shape, size, or a guarded identity
 *     ├── LostError          the session is no longer ours; `cause` is one of the above
 *     └── ClosedError        used after close()
 *
 * No message holds a token, an id or a value.
 */
export type ErrorCode =
  | 'unavailable'
  | 'corrupt'
  | 'gone'
  | 'held'
  | 'fenced'
  | 'version-mismatch'
  | 'refused'
  | 'lost'
  | 'closed'

export abstract class AuthStoreError extends Error {
  abstract readonly code: ErrorCode

  override get name(): string {
    return this.constructor.name
  }
}

export class UnavailableError extends AuthStoreError {
  override readonly code = 'unavailable'

  /** @param retryAfterMs how long the store asked us to wait, if it said so. */
  constructor(
    why: string,
    readonly retryAfterMs?: number,
    options?: ErrorOptions,
  ) {
    super(`the auth store is unavailable: ${why}`, options)
  }
}

export class CorruptError extends AuthStoreError {
  override readonly code = 'corrupt'

  constructor(why: string) {
    super(`the stored session is corrupt: ${why}`)
  }
}

export class GoneError extends AuthStoreError {
  override readonly code = 'gone'

  constructor() {
    super('the session was deleted')
  }
}

export class HeldError extends AuthStoreError {
  override readonly code = 'held'

  /**
   * @param expiresAt RFC 3339, UTC: when the other owner's lease ends unless it is renewed.
   * @param epoch of the other owner's lease; an earlier release of the service does not tell it.
   */
  constructor(
    readonly holder: string | undefined,
    readonly expiresAt: string | undefined,
    readonly epoch?: number,
  ) {
    super(`another owner holds the session: ${holder ?? 'unnamed'}, until ${expiresAt ?? 'an unknown time'}`)
  }
}

export class FencedError extends AuthStoreError {
  override readonly code = 'fenced'

  constructor() {
    super('another owner took the session over')
  }
}

export class ConflictError extends AuthStoreError {
  override readonly code = 'version-mismatch'

  constructor() {
    super('the stored session is at another version than ours')
  }
}

export class RefusedError extends AuthStoreError {
  override readonly code = 'refused'

  /** @param problem the slug of the store's problem type, for example `identity-replaced`. */
  constructor(
    readonly status: number,
    readonly problem: string,
  ) {
    super(`the auth store refused the request: ${status} ${problem}`)
  }
}

/** Why a session stopped being ours. */
export type LostReason = Exclude<ErrorCode, 'lost' | 'closed'>

export class LostError extends AuthStoreError {
  override readonly code = 'lost'
  readonly reason: LostReason

  constructor(override readonly cause: AuthStoreError & { readonly code: LostReason }) {
    super(`the session is no longer ours: ${cause.message}`)
    this.reason = cause.code
  }
}

export class ClosedError extends AuthStoreError {
  override readonly code = 'closed'

  constructor() {
    super('this auth state is closed')
  }
}

/** The errors that end a session's use, as opposed to `lost` and `closed`, which say that it has ended. */
export type StoreFailure = AuthStoreError & { readonly code: LostReason }

export function isStoreFailure(error: unknown): error is StoreFailure {
  return error instanceof AuthStoreError && error.code !== 'lost' && error.code !== 'closed'
}
