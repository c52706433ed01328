/**
 * Commits of all sessions of this process on one service, on their way to it.
 *
 * What is ready when a request may leave shares it; while requests are under way the rest gathers. Nothing waits for
 * company: no timer, only the tick in which a session's own writes come together as well.
 *
 * A request holds at most one commit of a session, so each member stands alone and fails alone. What is repeated is a
 * commit, not a request: it leaves again with its own Idempotency-Key, whoever else is on board then.
 */
import { Late } from './connections.js'
import { AuthStoreError, UnavailableError } from './errors.js'
import { errorOf, parseJson } from './http.js'
import type { Call, StoreClient } from './http.js'

/**
 * Requests under way at a time: one is answered while the next is stored and a third put together. Those that are ready
 * are spread over what may leave, or all sessions would come to wait for one answer, and nobody would work meanwhile.
 */
const LANES = 3
/** Besides them, so many commits that kept a request from being answered in time: alone, or they would do so again. */
const SOLITARY = 8
/** A commit beyond this many characters, or one that would make a request so long, travels in another one. */
const LONGEST_BATCH = 1 << 20
const LARGEST_BATCH = 1000
/** So few are not spread: a request and its statement cost more besides than is won by working at once. */
const SMALL_BATCH = 16

/** A commit that is only ever repeated as it is. */
export interface Commit {
  /** Safe in a URL and in JSON. */
  session: string
  epoch: number
  ifMatch: number
  /** The Idempotency-Key. */
  key: string
  /** The members `creds` and `keys` of its body, as text. */
  members: string
  /** How long an exchange may take, in ms. */
  attemptMs: number
}

export interface Sender {
  /** @returns what has to leave, at the last moment; undefined when there is nothing. */
  depart(): Commit | undefined
  arrived(version: number): void
  failed(error: AuthStoreError): void
}

interface Passenger {
  sender: Sender
  commit: Commit
}

type Result = number | AuthStoreError

export class CommitLine {
  readonly #client: StoreClient
  readonly #ready = new Set<Sender>()
  readonly #late = new Set<Sender>()
  #underWay = 0
  #alone = 0
  #scheduled = false

  constructor(client: StoreClient) {
    this.#client = client
  }

  /** Has the sender asked for a commit as soon as a request may leave. */
  ready(sender: Sender): void {
    this.#ready.add(sender)
    this.#schedule()
  }

  /** The same, for a commit that was not answered in time, as every other in a request with it. */
  late(sender: Sender): void {
    this.#late.add(sender)
    this.#departLate()
  }

  withdraw(sender: Sender): void {
    this.#ready.delete(sender)
    this.#late.delete(sender)
  }

  #departLate(): void {
    for (const sender of this.#late) {
      if (this.#alone >= SOLITARY) return
      this.#late.delete(sender)
      const commit = departing(sender)
      if (!commit) continue
      this.#alone++
      void this.#send([{ sender, commit }]).finally(() => {
        this.#alone--
        this.#departLate()
      })
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#underWay >= LANES || this.#ready.size === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      while (this.#underWay < LANES && this.#ready.size > 0) this.#depart()
    })
  }

  #depart(): void {
    const batch = this.#board()
    if (batch.length === 0) return
    this.#underWay++
    void this.#send(batch).finally(() => {
      this.#underWay--
      this.#schedule()
    })
  }

  #board(): Passenger[] {
    const batch: Passenger[] = []
    const fair = Math.ceil(this.#ready.size / (LANES - this.#underWay))
    const most = Math.min(LARGEST_BATCH, Math.max(SMALL_BATCH, fair))
    let length = 0
    for (const sender of this.#ready) {
      if (length >= LONGEST_BATCH || batch.length >= most) break
      this.#ready.delete(sender)
      const commit = departing(sender)
      if (!commit) continue
      batch.push({ sender, commit })
      length += commit.members.length
    }
    return batch
  }

  async #send(batch: Passenger[]): Promise<void> {
    const [only, ...more] = batch
    if (only && more.length === 0) {
      settle(only, await this.#askFor(only.commit))
      return
    }
    const results = await this.#together(batch.map(({ commit }) => commit))
    if (results) {
      batch.forEach((passenger, index) => {
        settle(passenger, results[index] ?? new UnavailableError('a commit was not answered'))
      })
    } else {
      // Refused as a whole: one of them is the reason, and must not be the others'.
      await Promise.all(batch.map((each) => this.#send([each])))
    }
  }

  async #askFor({ session, epoch, ifMatch, key, members, attemptMs }: Commit): Promise<Result> {
    const headers = { 'idempotency-key': key, 'if-match': `"${ifMatch}"`, 'lease-epoch': epoch }
    const path = `/v1/sessions/${session}/commit`
    try {
      const call: Call = { method: 'POST', path, headers, body: `{${members}}` }
      return await this.#client.once(call, (body) => versionIn(parseJson(body), ifMatch), attemptMs)
    } catch (error) {
      return asFailure(error)
    }
  }

  /** @returns a result each; undefined when the request was refused as a whole. */
  async #together(commits: Commit[]): Promise<Result[] | undefined> {
    const attemptMs = Math.min(...commits.map((commit) => commit.attemptMs))
    try {
      const body = `{"commits":[${commits.map(textOf).join()}]}`
      const call: Call = { method: 'POST', path: '/v1/commits', body }
      return await this.#client.once(call, (answer) => resultsIn(answer, commits), attemptMs)
    } catch (error) {
      const failure = asFailure(error)
      return failure instanceof UnavailableError ? commits.map(() => failure) : undefined
    }
  }
}

export function wasLate(error: AuthStoreError): boolean {
  return error.cause instanceof Late
}

/** What cannot be put together fails its writers: thrown on, it would end the process. */
function departing(sender: Sender): Commit | undefined {
  try {
    return sender.depart()
  } catch (error) {
    sender.failed(asFailure(error))
    return undefined
  }
}

function settle({ sender }: Passenger, result: Result): void {
  if (typeof result === 'number') sender.arrived(result)
  else sender.failed(result)
}

function textOf({ session, epoch, ifMatch, key, members }: Commit): string {
  const steering = `"lease_epoch":${epoch},"if_match":${ifMatch},"idempotency_key":"${key}"`
  return `{"session":"${session}",${steering},${members}}`
}

/** @throws SyntaxError when it answers other commits than these: then no member of it is to be believed. */
function resultsIn(body: Buffer, commits: readonly Commit[]): Result[] {
  const results = (parseJson(body) as { results?: unknown } | null)?.results
  if (!Array.isArray(results) || results.length !== commits.length) throw new SyntaxError('no results')
  return commits.map(({ ifMatch }, index) => {
    const result = results[index] as { problem?: { status?: unknown } } | null
    const problem = result?.problem
    if (problem !== undefined) return errorOf(typeof problem.status === 'number' ? problem.status : 500, problem)
    return versionIn(result, ifMatch)
  })
}

/**
 * The store counts by one, and answers a commit that it knows as it did the first time: another version is the answer
 * to something else, and taking it for this one's would lose the write.
 * @throws SyntaxError
 */
function versionIn(answer: unknown, ifMatch: number): number {
  const version = (answer as { version?: unknown } | null)?.version
  if (version !== ifMatch + 1) throw new SyntaxError('not the version that follows')
  return version
}

function asFailure(error: unknown): AuthStoreError {
  if (error instanceof AuthStoreError) return error
  return new UnavailableError('the client failed', undefined, { cause: error })
}
