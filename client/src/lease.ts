/**
 * Ownership of a session: taken at open, renewed in the background well inside its ttl, released at close.
 *
 * What counts is our own clock from the moment the request left that was answered: past that and the ttl the store may
 * have given the session to another, whatever we have not yet heard.
 */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { FencedError, GoneError, HeldError, isStoreFailure, RefusedError, UnavailableError } from './errors.js'
import type { StoreFailure } from './errors.js'
import { parseJson } from './http.js'
import type { Call, StoreClient } from './http.js'

const LONGEST_RELEASE_MS = 5_000
const CONFIRM_PAUSE_MS = 200

export interface LeaseOptions {
  client: StoreClient
  session: string
  holder: string
  /** Seconds. */
  ttl: number
  attemptMs: number
  /** A lease of this holder that nobody uses any more may live: what is on its way for that one is to come too late. */
  reclaim: boolean
  /** Called once, when the lease is another's or could not be renewed in time. */
  onFailure: (failure: StoreFailure) => void
}

/** @returns a name for this process that no other has: host, pid, and a random part against reused pids. */
export function defaultHolder(): string {
  return `${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}`
}

export class Lease {
  readonly #options: LeaseOptions
  readonly #abort = new AbortController()
  #epoch = 0
  #validUntil = 0
  /** When it was asked for, on the clock of the wall. */
  #askedAt = 0
  #confirming: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined

  private constructor(options: LeaseOptions) {
    this.#options = options
  }

  /**
   * Takes the lease; of an unknown name too, which makes it an empty session.
   * @throws HeldError while another owner's lease lives, unless `takeover`.
   */
  static async take(options: LeaseOptions, deadlineMs: number, takeover: boolean): Promise<Lease> {
    const lease = new Lease(options)
    const end = performance.now() + deadlineMs
    // Asked again when an answer is lost, it is a renewal: the holder is the same.
    await (takeover ? lease.#takeOver(end) : lease.#askUntil(end, false))
    if (options.reclaim) await lease.#endOwnPast(end)
    return lease
  }

  get epoch(): number {
    return this.#epoch
  }

  /** Whether our own clock still vouches for the lease. */
  get valid(): boolean {
    return performance.now() < this.#validUntil
  }

  /**
   * Whether the wall's clock says that it is over although our own does not: the machine slept, which stops our own, or
   * somebody set the clock. The store knows; it judges each write anyway, but not what is read from memory.
   */
  get doubtful(): boolean {
    return Date.now() - this.#askedAt >= this.#options.ttl * 1000
  }

  /** Renews until there is no doubt, or until it is lost: then this is told like any other loss. */
  confirm(): Promise<void> {
    return (this.#confirming ??= this.#confirm().finally(() => (this.#confirming = undefined)))
  }

  /** Renews from now on, without keeping the process alive. */
  keep(): void {
    this.#schedule(this.#untilRenewal)
  }

  /** No renewal any more; the lease itself lives until released or expired. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#abort.abort()
  }

  /** Asks now whether it is still ours. @returns why it is not; undefined when it is, or when nobody can tell. */
  async check(): Promise<StoreFailure | undefined> {
    try {
      await this.#renew(this.#options.attemptMs)
      return undefined
    } catch (error) {
      return error instanceof UnavailableError ? undefined : failureOf(error)
    }
  }

  /** Gives the session free. One attempt: the ttl does it otherwise. @returns whether it is known to be over. */
  async release(): Promise<boolean> {
    this.stop()
    const { client, attemptMs } = this.#options
    return isFreeAfter(client.once(this.#releasing, assertReleased, Math.min(attemptMs, LONGEST_RELEASE_MS)))
  }

  /** Goes on for as long as the lease can live, and keeps no process alive. @returns whether it is known to be over. */
  async releaseLater(signal: AbortSignal): Promise<boolean> {
    this.stop()
    const { client, attemptMs, ttl } = this.#options
    const patience = { deadlineMs: ttl * 1000, attemptMs: Math.min(attemptMs, LONGEST_RELEASE_MS), signal }
    return isFreeAfter(client.call({ ...this.#releasing, background: true }, assertReleased, patience))
  }

  get #releasing(): Call {
    return { method: 'DELETE', path: this.#path, headers: { 'lease-epoch': this.#epoch } }
  }

  get #path(): string {
    return `/v1/sessions/${this.#options.session}/lease`
  }

  /**
   * Takes it from the owner whose lease lives, at the epoch that the store tells of it: asked twice, what comes late
   * would otherwise take the session from whoever owns it by then.
   */
  async #takeOver(end: number): Promise<void> {
    let takeover: Takeover = false
    for (;;) {
      try {
        await this.#askUntil(end, takeover)
        return
      } catch (error) {
        if (!(error instanceof HeldError)) throw error
        // An earlier release does not tell it. Another one now is of another owner, who came in between.
        const next: Takeover = error.epoch ?? true
        if (next === takeover) throw error
        takeover = next
      }
    }
  }

  /** Has the store count on, so that what is on its way for this lease's former life comes too late. */
  async #endOwnPast(end: number): Promise<void> {
    for (;;) {
      try {
        await this.#askUntil(end, true)
        return
      } catch (error) {
        if (!(error instanceof FencedError)) throw error
      }
      // It counted on and its answer was lost; or a late release or the time freed the session, and it may be another's
      // by now. Nobody asked to take it from them.
      this.#epoch = 0
      await this.#askUntil(end, false)
    }
  }

  #askUntil(end: number, takeover: Takeover): Promise<void> {
    const { client, attemptMs, ttl } = this.#options
    // Answered later than its ttl a lease would be over.
    const patience = { deadlineMs: end - performance.now(), attemptMs: Math.min(attemptMs, ttl * 1000) }
    return this.#ask(takeover, (call, read) => client.call(call, read, patience))
  }

  /** In ms: three times a ttl, and sooner when the answer was long in coming. */
  get #untilRenewal(): number {
    return Math.min((this.#options.ttl * 1000) / 3, (this.#validUntil - performance.now()) / 2)
  }

  #schedule(delayMs: number): void {
    // Renewals may be under way side by side: one of them is followed by the next.
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#onTimer(), delayMs).unref()
  }

  async #confirm(): Promise<void> {
    while (!this.#isDecided()) {
      clearTimeout(this.#timer)
      await this.#onTimer()
      if (!this.#isDecided()) await sleep(CONFIRM_PAUSE_MS)
    }
  }

  #isDecided(): boolean {
    return this.#abort.signal.aborted || !this.doubtful
  }

  async #onTimer(): Promise<void> {
    const { attemptMs, onFailure } = this.#options
    const left = this.#validUntil - performance.now()
    if (left <= 0) {
      onFailure(new UnavailableError('the lease could not be renewed in time'))
      return
    }
    try {
      await this.#renew(Math.min(attemptMs, left))
      if (!this.#abort.signal.aborted) this.#schedule(this.#untilRenewal)
    } catch (error) {
      if (this.#abort.signal.aborted) return
      // Nearer and nearer to the end of the lease, and then past it: an owner without traffic learns of it too.
      const again = Math.min(1000, (this.#validUntil - performance.now()) / 2)
      if (error instanceof UnavailableError) this.#schedule(Math.max(10, again))
      else onFailure(failureOf(error))
    }
  }

  #renew(timeoutMs: number): Promise<void> {
    const { client } = this.#options
    return this.#ask(false, (call, read) => client.once(call, read, timeoutMs, this.#abort.signal))
  }

  async #ask(takeover: Takeover, send: Send): Promise<void> {
    const { holder, ttl } = this.#options
    const over = typeof takeover === 'number' ? { takeover_epoch: takeover } : takeover ? { takeover } : {}
    const body = JSON.stringify({ holder, ttl_s: ttl, ...over })
    let asked = 0
    let askedAt = 0
    const onAttempt = (): void => {
      asked = performance.now()
      askedAt = Date.now()
    }
    // With its epoch this very lease is renewed or counted on, and the session never taken back from a later owner.
    const headers: Record<string, number> = this.#epoch === 0 ? {} : { 'lease-epoch': this.#epoch }
    const call: Call = { method: 'POST', path: this.#path, headers, body, onAttempt }
    this.#epoch = await send(call, (answer) => this.#epochIn(answer, takeover === true))
    this.#validUntil = asked + ttl * 1000
    this.#askedAt = askedAt
  }

  /** @throws SyntaxError for anything but an answer to this: another's would have us write as somebody we are not. */
  #epochIn(body: Buffer, takeover: boolean): number {
    const answer = parseJson(body) as { session?: unknown; epoch?: unknown; expires_at?: unknown } | null
    if (typeof answer?.epoch !== 'number' || typeof answer.expires_at !== 'string') throw new SyntaxError('no lease')
    const { session = this.#options.session, epoch } = answer
    if (session !== this.#options.session) throw new SyntaxError('the lease of another session')
    const known = this.#epoch
    // An earlier release renews where it is asked to count on.
    const follows = known === 0 || epoch === known || (takeover && epoch === known + 1)
    if (!follows) throw new SyntaxError('another lease than the one asked for')
    return epoch
  }
}

/** Whether to end a lease that lives, or the epoch of the one to end. */
type Takeover = boolean | number

type Send = (call: Call, read: (body: Buffer) => number) => Promise<number>

/** @throws SyntaxError */
function assertReleased(_body: Buffer, status: number): void {
  if (status !== 204) throw new SyntaxError('not released')
}

/** @returns whether the store says that the session is another's, or not there: no lease on it is ours then. */
export function isAnothers(error: unknown): boolean {
  if (error instanceof FencedError || error instanceof HeldError || error instanceof GoneError) return true
  return error instanceof RefusedError && error.problem === 'no-session'
}

/** A refused token, say, leaves the lease where it is. */
async function isFreeAfter(release: Promise<unknown>): Promise<boolean> {
  try {
    await release
    return true
  } catch (error) {
    return isAnothers(error)
  }
}

function failureOf(error: unknown): StoreFailure {
  return isStoreFailure(error) && !(error instanceof HeldError) ? error : new FencedError()
}
