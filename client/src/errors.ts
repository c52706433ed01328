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
 * No message holds a token, an id or a value. `detail` is the service's own sentence, which holds none either.
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

  /** @param detail what the service itself says of it, where it says anything. */
  constructor(
    message: string,
    readonly detail?: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }

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
    detail?: string,
  ) {
    super(`the auth store is unavailable: ${told(why, detail)}`, detail, options)
  }
}

export class CorruptError extends AuthStoreError {
  override readonly code = 'corrupt'

  constructor(why: string, detail?: string) {
    super(`the stored session is corrupt: ${told(why, detail)}`, detail)
  }
}

export class GoneError extends AuthStoreError {
  override readonly code = 'gone'

  constructor(detail?: string) {
    super('the session was deleted', detail)
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
    detail?: string,
  ) {
    super(`another owner holds the session: ${holder ?? 'unnamed'}, until ${expiresAt ?? 'an unknown time'}`, detail)
  }
}

export class FencedError extends AuthStoreError {
  override readonly code = 'fenced'

  constructor(detail?: string) {
    super(told('another owner took the session over', detail), detail)
  }
}

export class ConflictError extends AuthStoreError {
  override readonly code = 'version-mismatch'

  constructor(detail?: string) {
    super(told('the stored session is at another version than ours', detail), detail)
  }
}

export class RefusedError extends AuthStoreError {
  override readonly code = 'refused'

  /** @param problem the slug of the store's problem type, for example `identity-replaced`. */
  constructor(
    readonly status: number,
    readonly problem: string,
    detail?: string,
  ) {
    super(`the auth store refused the request: ${told(`${status} ${problem}`, detail)}`, detail)
  }
}

/** Why a session stopped being ours. */
export type LostReason = Exclude<ErrorCode, 'lost' | 'closed'>

export class LostError extends AuthStoreError {
  override readonly code = 'lost'
  readonly reason: LostReason

  constructor(override readonly cause: AuthStoreError & { readonly code: LostReason }) {
    super(`the session is no longer ours: ${cause.message}`, cause.detail)
    this.reason = cause.code
  }
}

export class ClosedError extends AuthStoreError {
  override readonly code = 'closed'

  constructor() {
    super('this auth state is closed')
  }
}

function told(why: string, detail: string | undefined): string {
  return detail === undefined ? why : `${why}: ${detail}`
}

/** The errors that end a session's use, as opposed to `lost` and `closed`, which say that it has ended. */
export type StoreFailure = AuthStoreError & { readonly code: LostReason }

export function isStoreFailure(error: unknown): error is StoreFailure {
  return error instanceof AuthStoreError && error.code !== 'lost' && error.code !== 'closed'
}
