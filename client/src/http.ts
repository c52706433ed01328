/** What the store is asked, answered by JSON or one of the errors, and the retrying of what may be retried. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { RawAnswer } from './answer-reader.js'
import { Connections, Foreign } from './connections.js'
import type { TlsOptions } from './connections.js'
import { Echoes } from './echoes.js'
import {
  AuthStoreError,
  ConflictError,
  CorruptError,
  FencedError,
  GoneError,
  HeldError,
  RefusedError,
  UnavailableError,
} from './errors.js'

const PROBLEM = 'urn:authstore:problem:'
const FIRST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 2_000
const LONGEST_DETAIL = 300

export interface Call {
  method: 'GET' | 'POST' | 'DELETE'
  path: string
  headers?: Record<string, string | number>
  /** JSON text. */
  body?: string
  /** Keeps no process alive. */
  background?: boolean
  /** Called as each attempt begins. */
  onAttempt?: () => void
}

export interface Patience {
  /** How long to go on trying, counted from the first attempt. */
  deadlineMs: number
  /** How long one exchange may take before it counts as unanswered. */
  attemptMs: number
  signal?: AbortSignal
}

type Read<T> = (body: Buffer, status: number) => T

export class StoreClient {
  readonly #connections: Connections
  readonly #authorization: string
  readonly #echoes = new Echoes()
  #answeredAt = 0

  /**
   * @param url the store's address, for example `http://127.0.0.1:8480` or `unix:/run/authstore.sock`; the path of a
   * `http:` one is kept as a prefix.
   */
  constructor(url: URL, token: string, tls?: TlsOptions) {
    if (!/^[\x21-\x7e]+$/.test(token)) throw new TypeError('the token is not printable ASCII')
    this.#connections = new Connections(url, tls)
    this.#authorization = `authorization: Bearer ${token}\r\naccept: application/json\r\n`
  }

  /**
   * @returns what `read` makes of the first answer with a 2xx; its SyntaxError is a failed attempt.
   * @throws AuthStoreError: at once for what retrying cannot change, UnavailableError when the deadline has passed.
   */
  async call<T>(call: Call, read: Read<T>, { deadlineMs, attemptMs, signal }: Patience): Promise<T> {
    const end = performance.now() + deadlineMs
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.once(call, read, Math.min(attemptMs, Math.max(1, end - performance.now())), signal)
      } catch (error) {
        const pause = error instanceof UnavailableError ? pauseBefore(attempt, error.retryAfterMs) : undefined
        if (pause === undefined || signal?.aborted || performance.now() + pause >= end) throw error
        await sleep(pause, undefined, { ref: !call.background, ...(signal && { signal }) }).catch(() => undefined)
        if (signal?.aborted) throw error
      }
    }
  }

  /** When the store last answered anything, on the clock of `performance.now()`; 503 and such are no answer. */
  get answeredAt(): number {
    return this.#answeredAt
  }

  /** One attempt. */
  async once<T>(call: Call, read: Read<T>, timeoutMs: number, signal?: AbortSignal): Promise<T> {
    call.onAttempt?.()
    const word = this.#echoes.next()
    return this.#exchange(call, word, timeoutMs, signal, (answer) => {
      const { status, body } = answer
      const failure = status < 200 || status > 299 ? errorOfAnswer(answer) : undefined
      // Somebody else's is none of the service's anyway.
      if (!(failure instanceof Foreign)) this.#echoes.assertAnswers(word, answer)
      if (failure) throw failure
      try {
        return read(body, status)
      } catch (error) {
        // A foreign answer says nothing about what the store did.
        if (error instanceof SyntaxError) throw new Foreign(`answered ${status} without what was expected`)
        throw error
      }
    })
  }

  /** Closes connections that are idle, and the others as they become so. */
  close(): void {
    this.#connections.close()
  }

  async #exchange<T>(
    { method, path, headers, body, background }: Call,
    word: string,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    read: (answer: RawAnswer) => T,
  ): Promise<T> {
    let lines = this.#authorization + this.#echoes.lineOf(word)
    for (const name in headers) lines += `${name}: ${headers[name] ?? ''}\r\n`
    try {
      const raw = { method, path, headers: lines, body, background }
      const answer = await this.#connections.ask(raw, read, timeoutMs, signal)
      this.#answeredAt = performance.now()
      return answer
    } catch (error) {
      if (error instanceof Foreign && error.failure) throw error.failure
      if (error instanceof AuthStoreError) {
        if (!(error instanceof UnavailableError)) this.#answeredAt = performance.now()
        throw error
      }
      throw new UnavailableError(error instanceof Error ? error.message : 'no answer', undefined, { cause: error })
    }
  }
}

/** @throws SyntaxError */
export function parseJson(body: Buffer): unknown {
  return JSON.parse(body.toString('utf8')) as unknown
}

/** How long to wait before an attempt is repeated, in ms; never the same for two that failed together. */
export function pauseBefore(attempt: number, retryAfterMs: number | undefined): number {
  const backoff = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt)
  const jittered = backoff * (0.5 + Math.random() / 2)
  return retryAfterMs === undefined ? jittered : Math.max(jittered, Math.min(retryAfterMs, LONGEST_PAUSE_MS))
}

/**
 * An answer of the store says so by its type; any other is of something in between, such as a proxy that does not know
 * the store at the moment, and says nothing about the session.
 *
 * @param problem RFC 9457, as the body of an answer or as a member of a batch's answer.
 */
export function errorOf(status: number, problem: unknown, retryAfterMs?: number): AuthStoreError {
  const type = field(problem, 'type')
  if (!isOurs(type)) {
    // Asked again the same body would be too large again.
    if (status === 413) return new RefusedError(status, 'unknown')
    return new UnavailableError(`answered ${status}`, retryAfterMs)
  }
  const slug = type.slice(PROBLEM.length)
  const detail = detailOf(problem)
  if (status === 410) return new GoneError(detail)
  if (status === 412) return new ConflictError(detail)
  if (status === 423) return heldBy(problem, detail)
  if (status === 409 && slug === 'fenced') return new FencedError(detail)
  if (slug === 'corrupt') return new CorruptError(`the store answered ${status}`, detail)
  if (status >= 500 || status === 429 || status === 408) {
    return new UnavailableError(`answered ${status}`, retryAfterMs, undefined, detail)
  }
  return new RefusedError(status, slug, detail)
}

/** @returns the service's own sentence: printable, and no longer than a log takes. */
function detailOf(problem: unknown): string | undefined {
  const printable = (field(problem, 'detail') ?? '').replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S}]+/gu, ' ').trim()
  if (printable === '') return undefined
  return printable.length > LONGEST_DETAIL ? `${printable.slice(0, LONGEST_DETAIL - 1)}…` : printable
}

function errorOfAnswer({ status, headers, body }: RawAnswer): AuthStoreError | Foreign {
  const seconds = Number(headers.get('retry-after') ?? Number.NaN)
  const problem = problemIn(body)
  const error = errorOf(status, problem, Number.isFinite(seconds) ? seconds * 1000 : undefined)
  return isOurs(field(problem, 'type')) ? error : new Foreign(error.message, error)
}

function heldBy(problem: unknown, detail: string | undefined): HeldError {
  const { epoch } = problem as { epoch?: unknown }
  const known = Number.isSafeInteger(epoch) ? (epoch as number) : undefined
  return new HeldError(field(problem, 'holder'), field(problem, 'expires_at'), known, detail)
}

function isOurs(type: string | undefined): type is string {
  return type?.startsWith(PROBLEM) ?? false
}

function problemIn(body: Buffer): unknown {
  try {
    return parseJson(body)
  } catch {
    return undefined
  }
}

function field(json: unknown, name: string): string | undefined {
  if (json === null || typeof json !== 'object') return undefined
  const value = (json as Record<string, unknown>)[name]
  return typeof value === 'string' ? value : undefined
}
