/**
 * The ordered queue of one session: what waits leaves as one commit, and one commit is under way at a time.
 *
 * A commit is built once, as text, with one Idempotency-Key, and is only ever repeated as it is; the next one is built
 * after the store's yes. So an answer lost on the way is made good by asking again, and nothing overtakes.
 */
import { randomUUID } from 'node:crypto'
import { wasLate } from './commit-line.js'
import type { Commit, CommitLine, Sender } from './commit-line.js'
import { isStoreFailure, RefusedError, UnavailableError } from './errors.js'
import type { AuthStoreError, StoreFailure } from './errors.js'
import { pauseBefore } from './http.js'
import { MOST_KEYS, SHARED } from './pieces.js'

/** Key changes as text; null deletes. */
export type KeyChanges = ReadonlyMap<string, ReadonlyMap<string, string | null>>

export interface QueueOptions {
  line: CommitLine
  session: string
  epoch: number
  version: number
  /** How long a commit is repeated before the session is given up, counted from its first departure. */
  deadlineMs: number
  attemptMs: number
  /** Called once, when a commit cannot succeed any more. */
  onFailure: (failure: StoreFailure) => void
}

interface Batch {
  /** Characters of its keys, about. */
  size: number
  /** How many keys. */
  count: number
  /** It got creds in this tick: the keys that they are about have to come along. */
  expecting: boolean
  keys: Map<string, Map<string, string | null>>
  creds: string | undefined
  resolve: () => void
  reject: (error: AuthStoreError) => void
  done: Promise<void>
}

/** A batch that has left once. */
interface Sent {
  batch: Batch
  commit: Commit
  attempts: number
  /** It went without an answer in time once. */
  late: boolean
  end: number
}

export class CommitQueue implements Sender {
  readonly #options: QueueOptions
  #version: number
  /** In the order they leave; writes join the last one. */
  readonly #waiting: Batch[] = []
  #underWay: Sent | undefined
  #pause: NodeJS.Timeout | undefined
  #ended: AuthStoreError | undefined
  #idle: (() => void)[] = []

  constructor(options: QueueOptions) {
    this.#options = options
    this.#version = options.version
  }

  /**
   * What is written while a commit is out shares the next one up to a bound: each of two sets may be as large as the
   * service takes, and both together would be refused. Creds join whatever waits, and any set joins mere creds.
   * @param size characters of the keys, about.
   * @returns a promise of the store's yes; rejects with what ended the queue. Unwatched rejections are harmless.
   */
  push(size: number, keys: KeyChanges, creds?: string): Promise<void> {
    if (this.#ended) return Promise.reject(this.#ended)
    const count = countOf(keys)
    let batch = this.#waiting.at(-1)
    if (!batch || !hasRoom(batch, size, count, keys)) {
      // The line asks a tick later: creds.update comes that much ahead of the keys it belongs to.
      if (!batch && !this.#underWay) this.#options.line.ready(this)
      batch = newBatch()
      this.#waiting.push(batch)
    }
    batch.size += size
    for (const [type, changes] of keys) batch.count += merge(batch.keys, type, changes)
    if (creds !== undefined) addCreds(batch, creds)
    return batch.done
  }

  /** @returns when the newest write of one of these keys that is still on its way has arrived; undefined: none is. */
  arrival(type: string, ids: readonly string[]): Promise<void> | undefined {
    for (let index = this.#waiting.length - 1; index >= -1; index--) {
      const batch = index < 0 ? this.#underWay?.batch : this.#waiting[index]
      const changes = batch?.keys.get(type)
      if (changes && ids.some((id) => changes.has(id))) return batch?.done
    }
    return undefined
  }

  /** Waits until nothing is queued or under way. Rejects when the queue ended before that. */
  async flush(): Promise<void> {
    while (this.#underWay ?? this.#waiting[0]) await new Promise<void>((resolve) => this.#idle.push(resolve))
    if (this.#ended) throw this.#ended
  }

  /** Refuses what is queued and everything after it; nothing is sent any more. */
  end(error: AuthStoreError): void {
    if (this.#ended) return
    this.#ended = error
    clearTimeout(this.#pause)
    this.#options.line.withdraw(this)
    for (const batch of this.#waiting.splice(0)) batch.reject(error)
    this.#underWay?.batch.reject(error)
    this.#underWay = undefined
    this.#rest()
  }

  depart(): Commit | undefined {
    this.#underWay ??= this.#build()
    return this.#underWay?.commit
  }

  arrived(version: number): void {
    const sent = this.#underWay
    if (!sent) return
    this.#version = version
    this.#underWay = undefined
    sent.batch.resolve()
    if (this.#waiting.length > 0) this.#options.line.ready(this)
    else this.#rest()
  }

  failed(error: AuthStoreError): void {
    const sent = this.#underWay
    if (!sent) {
      // What waits could not even be put together.
      if (this.#waiting.length > 0) this.#fail(error)
      return
    }
    const pause = error instanceof UnavailableError ? pauseBefore(sent.attempts++, error.retryAfterMs) : undefined
    if (pause === undefined || performance.now() + pause >= sent.end) {
      this.#fail(error)
      return
    }
    // Keeps the process alive: what is on its way here is nowhere else.
    sent.late ||= wasLate(error)
    this.#pause = setTimeout(() => {
      const { line } = this.#options
      if (sent.late) line.late(this)
      else line.ready(this)
    }, pause)
  }

  #fail(error: AuthStoreError): void {
    const known = isStoreFailure(error)
    this.#options.onFailure(known ? error : new UnavailableError('the client failed', undefined, { cause: error }))
  }

  #build(): Sent | undefined {
    const [batch] = this.#waiting
    if (!batch) return undefined
    const { session, epoch, deadlineMs, attemptMs } = this.#options
    const commit = { session, epoch, ifMatch: this.#version, key: randomUUID(), members: membersOf(batch), attemptMs }
    this.#waiting.shift()
    return { batch, commit, attempts: 0, late: false, end: performance.now() + deadlineMs }
  }

  #rest(): void {
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}

function newBatch(): Batch {
  let resolve!: () => void
  let reject!: (error: AuthStoreError) => void
  const done = new Promise<void>((yes, no) => {
    resolve = yes
    reject = no
  })
  // Baileys does not await saveCreds: without this a refused commit would end the process as an unhandled rejection.
  done.catch(() => undefined)
  return { size: 0, count: 0, expecting: false, keys: new Map(), creds: undefined, resolve, reject, done }
}

function countOf(keys: KeyChanges): number {
  let count = 0
  for (const changes of keys.values()) count += changes.size
  return count
}

function hasRoom(batch: Batch, size: number, count: number, keys: KeyChanges): boolean {
  if (batch.count === 0 || count === 0) return true
  const together = batch.size + size
  if (!batch.expecting) return together <= SHARED.size && batch.count + count <= SHARED.keys
  return batch.count + count <= MOST_KEYS && fits(together, batch.keys, keys)
}

function addCreds(batch: Batch, creds: string): void {
  batch.creds = creds
  if (batch.expecting) return
  batch.expecting = true
  setImmediate(() => (batch.expecting = false))
}

/** @returns how many keys it has more now. */
function merge(into: Batch['keys'], type: string, changes: ReadonlyMap<string, string | null>): number {
  const known = into.get(type)
  if (!known) {
    into.set(type, new Map(changes))
    return changes.size
  }
  const before = known.size
  for (const [id, text] of changes) known.set(id, text)
  return known.size - before
}

function membersOf({ creds, keys }: Batch): string {
  const first = creds === undefined ? '' : `"creds":${creds}`
  if (keys.size === 0) return first
  const second = `"keys":${textOf(keys)}`
  return first === '' ? second : `${first},${second}`
}

function textOf(keys: KeyChanges): string {
  return objectOf(keys, (changes) => objectOf(changes, (text) => text ?? 'null'))
}

/** Put together by `+`: V8 keeps that as a tree and writes it out once, where `join` copies it at every level. */
function objectOf<T>(entries: ReadonlyMap<string, T>, text: (value: T) => string): string {
  let members = ''
  for (const [name, value] of entries) members += `${members === '' ? '' : ','}${JSON.stringify(name)}:${text(value)}`
  return `{${members}}`
}

/** A character is three bytes at most, and six where an id's has to be escaped. */
const MOST_BYTES_OF_ONE = 6
/** What the service takes unless told to take more, less the largest creds, which share its commit. */
const LARGEST_SET = 60 * 2 ** 20 - 65_536
const HALF_OF_A_CHARACTER = /\p{Surrogate}/u

/** @throws RefusedError for a name the store would refuse, before it can end a session that is in order. */
export function assertType(type: string): void {
  if (type.length < 1 || type.length > 64 || isNoText(type)) throw new RefusedError(422, 'type')
}

/** @throws RefusedError */
export function assertId(id: string): void {
  if (id.length > 170 && Buffer.byteLength(id) > 512) throw new RefusedError(422, 'id')
  if (id.length < 1 || isNoText(id)) throw new RefusedError(422, 'id')
}

/** @param size characters of its ids and texts. @throws RefusedError for a set that no request can hold. */
export function assertSize(size: number, keys: KeyChanges): void {
  if (countOf(keys) > MOST_KEYS) throw new RefusedError(422, 'too-many-keys')
  if (!fits(size, keys)) throw new RefusedError(413, 'too-large')
}

/** @param size of all of them, in characters: their bytes are counted only where that does not tell. */
function fits(size: number, ...all: KeyChanges[]): boolean {
  if (size * MOST_BYTES_OF_ONE <= LARGEST_SET) return true
  // A longer text could not even be put together.
  if (size > LARGEST_SET) return false
  return all.reduce((sum, keys) => sum + Buffer.byteLength(textOf(keys)), 0) <= LARGEST_SET
}

function isNoText(name: string): boolean {
  return name.includes('\0') || HALF_OF_A_CHARACTER.test(name)
}
