/** `useRemoteAuthState`: a Baileys auth state that lives in a baileys-auth-store service. */
import type { BaileysModule } from './codec.js'
import type { TlsOptions } from './connections.js'
import { ClosedError, HeldError, LostError } from './errors.js'
import type { StoreFailure } from './errors.js'
import { forget, isLeft, recall, recallHeld, remember } from './ghosts.js'
import type { Ghost } from './ghosts.js'
import { openWhenFree } from './held.js'
import { defaultHolder, isAnothers, Lease } from './lease.js'
import { checked } from './options.js'
import { Removal } from './removal.js'
import { Service } from './service.js'
import { Session } from './session.js'

export interface RemoteAuthStateOptions<B extends BaileysModule = BaileysModule> {
  /** Address of the service: `http://127.0.0.1:8480`, `https://…`, or `unix:/run/authstore.sock`. */
  url: string | URL
  token: string
  /** Name of the session: 1–128 characters of `[A-Za-z0-9._:@+-]`, and neither `.` nor `..`. */
  session: string
  /** The imported module, all of it: `import * as baileys from 'baileys'`. Or just `{ proto, initAuthCreds }` of it. */
  baileys: B
  /** Certificates for a `https:` address; sessions that are given the same object share connections. */
  tls?: TlsOptions
  /** Names this owner; two owners must never share one. Default: host, pid and a random part. */
  holder?: string
  /** Seconds the lease lives without a renewal. Default 60: longer than a commit may take to be given up. */
  ttl?: number
  /** Take the session from an owner whose lease still lives. Default false. */
  takeover?: boolean
  /**
   * Bytes of values to keep in memory. Default 64 MiB, which is every value of any but the largest session. What did
   * not find room is asked from the store when it is read, and 0 asks each time; ids are always kept.
   */
  memoryBytes?: number
  /** How long a commit is retried before the session is given up, in ms. Default 45,000. */
  commitDeadlineMs?: number
  /** How long opening is retried while the store is unavailable, in ms. Default 10,000. */
  openDeadlineMs?: number
  /**
   * How long to wait for a session that another owner holds, in ms; not counted by `openDeadlineMs`. Default 0. A
   * process that ended without `close` holds its session for up to its `ttl`.
   */
  waitMs?: number
  /** How long one request may take, in ms. Default 15,000. */
  requestTimeoutMs?: number
}

export interface RemoteKeyStore {
  /** @returns the values set last, as soon as the store has them; missing ids are left out. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- each Baileys release has its own map of types
  get(type: string, ids: string[]): Promise<Record<string, any>>
  /** One commit, all or nothing: null and undefined delete. Resolves when the store has it. */
  set(data: object): Promise<void>
  /** Deletes every key; creds stay. */
  clear(): Promise<void>
  list(type: string): AsyncIterableIterator<[id: string, value: unknown]>
  listIds(type: string): AsyncIterableIterator<string>
}

export interface RemoteAuthState<B extends BaileysModule = BaileysModule> {
  state: { creds: ReturnType<B['initAuthCreds']>; keys: RemoteKeyStore }
  /** Stores `state.creds` as they are now. Its rejection may go unwatched: `lost` tells. */
  saveCreds: () => Promise<void>
  /** Writes out what is queued and releases the session. */
  close: () => Promise<void>
  /**
   * Logout: deletes the session, unless another owner took it, and ends this as `close` does; what is queued is
   * dropped. With `purge` for good, so that its name can be opened anew and paired at once; without, it can be restored
   * for a while. Tried until `commitDeadlineMs`; after a rejection it may be called again.
   */
  delete: (how?: { purge?: boolean }) => Promise<void>
  /** Tells once that the session is no longer ours, also when that happened before. @returns how to stop listening. */
  on: (event: 'lost', listener: (why: LostError) => void) => () => void
}

/**
 * Takes the session's lease, loads it, and makes new creds when there are none yet.
 *
 * @throws HeldError, GoneError, CorruptError, UnavailableError, RefusedError: never new creds instead. TypeError for an
 * option that is not one.
 */
export async function useRemoteAuthState<B extends BaileysModule>(
  asked: RemoteAuthStateOptions<B>,
): Promise<RemoteAuthState<B>> {
  const options = checked(asked)
  const { session: name, baileys, openDeadlineMs = 10_000, requestTimeoutMs: attemptMs = 15_000 } = options
  const service = Service.join(options)
  const { memoryBytes = 64 * 2 ** 20, commitDeadlineMs = 45_000 } = options
  const session = new Session({ service, name, baileys, memoryBytes, commitDeadlineMs, attemptMs })
  const onFailure = (failure: StoreFailure): void => {
    session.lose(failure)
  }
  const { ttl = 60, takeover = false, waitMs = 0 } = options
  const { client } = service
  const place = `${service.address} ${name}`
  const attempt = async (known: Ghost | undefined): Promise<RemoteAuthState<B>> => {
    const holder = options.holder ?? known?.holder ?? defaultHolder()
    // One that is named by the caller may have a past in any process.
    const reclaim = known !== undefined || options.holder !== undefined
    const taking = { client, session: name, holder, ttl, attemptMs, reclaim, onFailure }
    const until = (): number => performance.now() + ttl * 1000 + attemptMs
    const removal = ({ epoch }: Lease): Removal =>
      new Removal({ client, session: name, epoch, deadlineMs: commitDeadlineMs, attemptMs })
    const unique = options.holder === undefined && (known?.unique ?? true)
    const whose = { place, token: options.token, holder, unique }
    const owned: Owned = { session, service, removal, ghost: (stop) => ({ ...whose, until: until(), stop }) }
    try {
      owned.lease = await Lease.take(taking, openDeadlineMs, takeover)
      owned.lease.keep()
      await session.open(owned.lease, openDeadlineMs)
      return face(owned, owned.lease)
    } catch (error) {
      // Unanswered it may have been taken all the same, and refused for the token it is what it was.
      const free = owned.lease ? await owned.lease.release() : isAnothers(error)
      if (!free) remember(owned.ghost(() => undefined))
      throw error
    }
  }
  const open = async (): Promise<RemoteAuthState<B>> => {
    try {
      return await attempt(recall(place, options.token, options.holder))
    } catch (error) {
      // A session that was lost for the former token, say, is opened again with another.
      const isHeld = options.holder === undefined && error instanceof HeldError
      const left = isHeld ? recallHeld(place, error.holder) : undefined
      if (!left) throw error
      return await attempt(left)
    }
  }
  try {
    // Whoever waits for another owner keeps nobody from opening meanwhile.
    return await openWhenFree(waitMs, () => service.opens.run(openDeadlineMs, open))
  } catch (error) {
    service.leave()
    throw error instanceof LostError ? error.cause : error
  }
}

interface Owned {
  session: Session
  service: Service
  lease?: Lease
  ghost: (stop: () => void) => Ghost
  removal: (lease: Lease) => Removal
}

/** Gives a lost session's lease free as soon as the store can be asked: whoever opens it next is not to wait for it. */
function letGo({ ghost }: Owned, lease: Lease): Ghost {
  const abort = new AbortController()
  const left = ghost(() => {
    abort.abort()
  })
  remember(left)
  void lease.releaseLater(abort.signal).then((free) => {
    if (free) forget(left)
  })
  return left
}

function face<B extends BaileysModule>(owned: Owned, lease: Lease): RemoteAuthState<B> {
  const { session, service, ghost } = owned
  let closing: Promise<void> | undefined
  let lost: LostError | undefined
  let left: Ghost | undefined
  session.whenLost((why) => {
    lost = why
    const { reason } = why
    if (reason !== 'fenced' && reason !== 'gone' && reason !== 'held') left = letGo(owned, lease)
  })
  const close = async (): Promise<void> => {
    try {
      await session.close()
    } finally {
      // A lost one's may be another owner's by now, and is let go in the background: at most that is not waited for.
      if (!lost || (left && isLeft(left))) {
        const free = await lease.release()
        if (!lost && !free) remember(ghost(() => undefined))
        if (left && free) forget(left)
      }
      service.leave()
    }
  }
  let removal: Removal | undefined
  const remove = async (purge: boolean): Promise<void> => {
    if (removal) return removal.ask(purge)
    if (lost ?? closing) throw lost ?? new ClosedError()
    removal = owned.removal(lease)
    lease.stop()
    void session.close({ dropping: true })
    const removed = removal.ask(purge)
    // A deleted session has no lease that could be released.
    closing = removed.then(() => {
      service.leave()
    }, close)
    await closing
    return removed
  }
  const keys: RemoteKeyStore = {
    get: (type, ids) => settled(() => session.get(type, ids)),
    set: (data) => settled(() => session.set(data as Record<string, Record<string, unknown> | undefined>)),
    clear: () => settled(() => session.clear()),
    list: (type) => session.list(type),
    listIds: (type) => session.listIds(type),
  }
  return {
    state: { creds: session.creds as ReturnType<B['initAuthCreds']>, keys },
    saveCreds: () => {
      const done = settled(() => session.saveCreds())
      done.catch(() => undefined)
      return done
    },
    close: () => (closing ??= close()),
    delete: ({ purge = false } = {}) => remove(purge),
    on: (_event, listener) => session.on(listener),
  }
}

/**
 * @returns a call's promise, with what it throws before it has one turned into a rejection. That the session has ended
 * may go unwatched: `lost` tells, and a dropped promise is not to end the process.
 */
function settled<T>(call: () => Promise<T>): Promise<T> {
  try {
    return call()
  } catch (error) {
    const rejected = Promise.reject(error as Error)
    if (error instanceof LostError || error instanceof ClosedError) rejected.catch(() => undefined)
    return rejected
  }
}
