/** One open session: its lease, its memory, its queue, and the end of all three. */
import { decode, decodeKey, encode } from './codec.js'
import type { BaileysModule } from './codec.js'
import {
  AuthStoreError,
  ClosedError,
  CorruptError,
  FencedError,
  isStoreFailure,
  LostError,
  RefusedError,
  UnavailableError,
} from './errors.js'
import type { StoreFailure } from './errors.js'
import type { Call } from './http.js'
import { JsonReader } from './json-reader.js'
import type { Lease } from './lease.js'
import { Memory } from './memory.js'
import { assertId, assertSize, assertType, CommitQueue } from './queue.js'
import type { KeyChanges } from './queue.js'
import { AROUND_KEY, deletionOf, piecesOf } from './pieces.js'
import { Reads } from './reads.js'
import type { Found } from './reads.js'
import type { Service } from './service.js'

export interface SessionOptions {
  service: Service
  name: string
  baileys: BaileysModule
  memoryBytes: number
  commitDeadlineMs: number
  attemptMs: number
}

/** The answer of `GET …/state`, its keys in memory already. */
interface Snapshot {
  version: number
  /** As text; `null` when there are none. */
  creds: string
}

/** Whose state it is; an earlier release does not name the session, as JSON. */
interface Origin {
  session?: string
  epoch?: number
}

/** Of a large list so many values are in memory at a time. */
const LIST_STEP = 256

export class Session {
  readonly #options: SessionOptions
  readonly #memory: Memory
  readonly #reading = new AbortController()
  readonly #listeners = new Set<(why: LostError) => void>()
  #lease!: Lease
  #queue!: CommitQueue
  #reads!: Reads
  #ended: AuthStoreError | undefined
  #opened = false
  #closing = false
  #letGo: ((why: LostError) => void) | undefined
  creds!: object

  constructor(options: SessionOptions) {
    this.#options = options
    this.#memory = new Memory(options.memoryBytes)
  }

  /** Loads what the lease guards. @throws AuthStoreError: never new creds in place of what could not be read. */
  async open(lease: Lease, deadlineMs: number): Promise<void> {
    this.#lease = lease
    const { service, name, commitDeadlineMs, attemptMs } = this.#options
    const { client, commits: line } = service
    const path = `/v1/sessions/${name}`
    const { signal } = this.#reading
    const load: Call = { method: 'GET', path: `${path}/state` }
    const loaded = client.call(load, (body) => this.#take(body), { deadlineMs, attemptMs, signal })
    const { version, creds } = await loaded.catch((error: unknown) => {
      throw this.#ended ?? error
    })
    const onFailure = (failure: StoreFailure): void => {
      this.lose(failure)
    }
    const common = { attemptMs, deadlineMs: commitDeadlineMs }
    const queue = new CommitQueue({ ...common, line, session: name, epoch: lease.epoch, version, onFailure })
    this.#queue = queue
    this.#reads = new Reads({ ...common, client, path, memory: this.#memory, queue, signal })
    this.#opened = true
    await this.#adopt(creds)
    this.#assertOurs()
  }

  get(type: string, ids: string[]): Promise<Record<string, unknown>> {
    this.#assertOurs()
    if (this.#lease.doubtful) return this.#confirmed(type, ids)
    const found = this.#reads.read(type, ids.map(String))
    return found instanceof Promise ? this.#late(type, found) : Promise.resolve(this.#values(type, found))
  }

  set(data: Record<string, Record<string, unknown> | null | undefined>): Promise<void> {
    this.#assertWritable()
    const changes = new Map<string, Map<string, string | null>>()
    let size = 0
    for (const type of Object.keys(data)) {
      const values = new Map<string, string | null>()
      const given = data[type] ?? {}
      for (const id of Object.keys(given)) {
        const value = given[id]
        assertId(id)
        const text = value === null || value === undefined ? null : encode(value)
        values.set(id, text)
        size += id.length + (text?.length ?? 0) + AROUND_KEY
      }
      if (values.size === 0) continue
      assertType(type)
      changes.set(type, values)
    }
    if (changes.size === 0) return Promise.resolve()
    assertSize(size, changes)
    return this.#write(changes, size)
  }

  clear(): Promise<void> {
    this.#assertWritable()
    const known = this.#memory.types().map((type): [string, string[]] => [type, this.#memory.ids(type)])
    // In order; as one commit where one can hold it.
    const pieces = piecesOf(known).map(deletionOf)
    const all = Promise.all(pieces.map(({ changes, size }) => this.#write(changes, size))).then(() => undefined)
    all.catch(() => undefined)
    return all
  }

  async *list(type: string): AsyncIterableIterator<[string, unknown]> {
    this.#assertOurs()
    const ids = this.#memory.ids(type)
    for (let from = 0; from < ids.length; from += LIST_STEP) {
      const values = await this.get(type, ids.slice(from, from + LIST_STEP))
      for (const id of Object.keys(values)) yield [id, values[id]]
    }
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the coming interface of Baileys is asynchronous
  async *listIds(type: string): AsyncIterableIterator<string> {
    this.#assertOurs()
    yield* this.#memory.ids(type)
  }

  /** Creds that have no text end the session: nobody may be watching, and the stored ones would stay old for good. */
  saveCreds(): Promise<void> {
    this.#assertWritable()
    let text
    try {
      text = encode(this.creds)
    } catch {
      // Without the cause: it may name a member, or show a value.
      this.lose(new RefusedError(422, 'creds-not-json'))
      return Promise.reject(this.#ended as Error)
    }
    return this.#queue.push(0, new Map(), text)
  }

  /** Writes out or drops what is queued; refuses writes from now on: who goes on writing would keep it open. */
  async close({ dropping = false } = {}): Promise<void> {
    this.#closing = true
    try {
      if (!this.#ended && !dropping) await this.#queue.flush()
    } finally {
      this.#end(new ClosedError())
    }
  }

  on(listener: (why: LostError) => void): () => void {
    this.#listeners.add(listener)
    const ended = this.#ended
    if (ended instanceof LostError) {
      queueMicrotask(() => {
        if (this.#listeners.delete(listener)) listener(ended)
      })
    }
    return () => void this.#listeners.delete(listener)
  }

  /** @param letGo called once when the session is lost, before anybody hears of it; at once when it is lost already. */
  whenLost(letGo: (why: LostError) => void): void {
    if (this.#ended instanceof LostError) letGo(this.#ended)
    else this.#letGo = letGo
  }

  /** Ends it because the store says so, or says nothing any more. */
  lose(failure: StoreFailure): void {
    if (this.#ended) return
    const lost = new LostError(failure)
    // Whoever hears that a write of theirs is rejected may open the session again at once.
    this.#letGo?.(lost)
    this.#end(lost)
    this.#lease.stop()
    const listeners = [...this.#listeners]
    this.#listeners.clear()
    for (const listener of listeners) {
      queueMicrotask(() => {
        listener(lost)
      })
    }
  }

  #end(why: AuthStoreError): void {
    this.#ended = why
    this.#reading.abort()
    // Not there yet when the lease is lost while opening.
    if (this.#opened) this.#queue.end(why)
  }

  /** @throws SyntaxError for what is not this session's state under our lease, FencedError under another's. */
  #take(body: Buffer): Snapshot {
    // An attempt before this one may have been broken off.
    this.#memory.forget()
    const reader = new JsonReader(body)
    const seen: Partial<Snapshot> & Origin & { keys?: true } = {}
    reader.object((name) => {
      if (name === 'version') seen.version = Number(reader.text())
      else if (name === 'session') seen.session = reader.text()
      else if (name === 'epoch') seen.epoch = Number(reader.text())
      else if (name === 'creds') seen.creds = reader.text()
      else if (name === 'keys') {
        seen.keys = true
        this.#takeKeys(reader)
      } else reader.skip()
    })
    reader.end()
    const { version, creds, keys } = seen
    if (version === undefined || !Number.isSafeInteger(version) || creds === undefined || !keys) {
      throw new SyntaxError('not a state')
    }
    this.#assertAsked(seen)
    return { version, creds }
  }

  /** @throws SyntaxError, FencedError */
  #assertAsked({ session, epoch }: Origin): void {
    const { name } = this.#options
    if (session !== undefined && JSON.parse(session) !== name) throw new SyntaxError('the state of another session')
    const own = this.#lease.epoch
    if (epoch === undefined || epoch === own) return
    if (session !== undefined && epoch > own) throw new FencedError()
    throw new SyntaxError('a state of another lease')
  }

  #takeKeys(reader: JsonReader): void {
    reader.object((type) => {
      reader.object((id) => {
        const from = reader.skip()
        this.#memory.load(type, id, reader.at - from, () => reader.since(from))
      })
    })
  }

  async #adopt(creds: string): Promise<void> {
    if (creds !== 'null') {
      this.creds = readable(() => decode(creds)) as object
      return
    }
    // Keys belong to an identity; a new one over them would be another device with this one's sessions.
    if (!this.#memory.empty) throw new CorruptError('there are keys but no creds')
    this.creds = this.#options.baileys.initAuthCreds()
    const text = encode(this.creds)
    await this.#queue.push(0, new Map(), text)
  }

  #write(changes: KeyChanges, size: number): Promise<void> {
    const written = [...changes].flatMap(([type, values]) => this.#memory.set(type, values))
    const done = this.#queue.push(size, changes)
    done.then(
      () => {
        this.#memory.release(written)
      },
      () => undefined,
    )
    return done
  }

  #values(type: string, found: Found): Record<string, unknown> {
    const values = Object.create(null) as Record<string, unknown>
    for (const [id, text] of found) values[id] = readable(() => decodeKey(type, text, this.#options.baileys))
    return values
  }

  /** Another owner may have written since: memory is not to be believed before the store says whose the session is. */
  #confirmed(type: string, ids: string[]): Promise<Record<string, unknown>> {
    const confirmed = this.#lease.confirm().then(() => this.get(type, ids))
    const values: Promise<Record<string, unknown>> = confirmed.catch((error: unknown) => {
      if (error instanceof AuthStoreError) values.catch(() => undefined)
      throw error
    })
    return values
  }

  /** The end of the session may go unwatched: `lost` tells. */
  #late(type: string, found: Promise<Found>): Promise<Record<string, unknown>> {
    const values: Promise<Record<string, unknown>> = this.#failing(found).then(
      (late) => this.#values(type, late),
      (error: unknown) => {
        values.catch(() => undefined)
        throw error
      },
    )
    return values
  }

  /** A read that fails ends the session: to Baileys 7.x it would mean that there is no such key. */
  async #failing<T>(read: Promise<T>): Promise<T> {
    try {
      return await read
    } catch (error) {
      if (isStoreFailure(error)) this.lose(await this.#reason(error))
      throw this.#ended ?? error
    }
  }

  /** A key is gone because the session is another's now, or because the store lost it: the lease knows. */
  async #reason(failure: StoreFailure): Promise<StoreFailure> {
    return failure instanceof CorruptError ? ((await this.#lease.check()) ?? failure) : failure
  }

  #assertWritable(): void {
    this.#assertOurs()
    if (this.#closing) throw new ClosedError()
  }

  #assertOurs(): void {
    // A process that slept past its lease learns it here, before a timer could run.
    if (!this.#ended && !this.#lease.valid) this.lose(new UnavailableError('the lease ran out'))
    if (this.#ended) throw this.#ended
  }
}

/** @throws CorruptError for a text that is no JSON. */
function readable<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof SyntaxError) throw new CorruptError('a value is not JSON')
    throw error
  }
}
