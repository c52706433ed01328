/**
 * The nine workloads, each an operation through the auth-state interface that Baileys itself would do.
 *
 * `prepare(bed, n)` makes everything that `n` operations need, outside of what is timed and counted, and gives
 * `op(i)` and perhaps `finish()`.
 */
import { randomUUID } from 'node:crypto'
import { mix, pairedCreds, preKey, session as newSession, sizeOf, WHOLE } from './values.mjs'

const FIRST_LOGIN = 812
const GROUP = 256

/** What one store works on: a filled session, a crowd of small ones, and some closed ones to come back to. */
export class Bed {
  #store
  #baileys
  #names = 0
  #turn = 0
  /** Sessions' next pre-key ids: an id is never used twice, as in Baileys. */
  #nextPreKey = new Map()
  #restarts = []
  main
  crowd = []
  whole

  constructor(store, baileys, prefix) {
    this.#store = store
    this.#baileys = baileys
    this.prefix = prefix
    this.whole = mix(baileys)
    // Made before the clock starts; enough that neighbours differ.
    this.sessions = Array.from({ length: 64 }, newSession)
  }

  /** Fills the main session: `keys` of them, 1,127 unless told. */
  async fill(keys = WHOLE) {
    if (keys !== WHOLE) this.whole = mix(this.#baileys, keys)
    this.main = await this.fresh()
    await this.load(this.main)
    this.addresses = Object.keys(this.whole.session)
  }

  /** @returns a new session, paired. */
  async fresh() {
    const name = `${this.prefix}-${process.pid}-${this.#names++}`
    const opened = await this.#store.open(name)
    Object.assign(opened.state.creds, pairedCreds())
    await opened.saveCreds()
    opened.name = name
    return opened
  }

  /** @returns a session's value that its address did not have last. */
  next() {
    return this.sessions[this.#turn++ % this.sessions.length]
  }

  /** @returns the next values of the first addresses. */
  nextOf(count) {
    this.#turn++
    return Object.fromEntries(this.addresses.slice(0, count).map((address, n) => [address, this.#valueAt(n)]))
  }

  /** @returns another address than last time. */
  address() {
    return this.addresses[this.#turn % this.addresses.length]
  }

  reopen(name) {
    return this.#store.open(name)
  }

  #valueAt(n) {
    return this.sessions[(this.#turn + n) % this.sessions.length]
  }

  /** Puts a whole session's keys and creds in. */
  async load(session) {
    await Promise.all([session.state.keys.set(this.whole), session.saveCreds()])
  }

  async gather(count) {
    while (this.crowd.length < count) {
      const session = await this.fresh()
      session.address = '15551000000.0'
      await Promise.all([session.state.keys.set({ session: { [session.address]: newSession() } }), session.saveCreds()])
      this.crowd.push(session)
    }
  }

  /** @returns names of closed sessions of 1,127 keys, made once. */
  async closed(count) {
    while (this.#restarts.length < count) {
      const session = await this.fresh()
      await this.load(session)
      await session.close()
      this.#restarts.push(session.name)
    }
    return this.#restarts.slice(0, count)
  }

  /** Gives a session `count` new pre-keys. @returns the first one's id */
  async issuePreKeys(session, count) {
    const first = this.#nextPreKey.get(session) ?? 100_000
    this.#nextPreKey.set(session, first + count)
    await session.state.keys.set({ 'pre-key': preKeys(first, count) })
    return first
  }
}

function preKeys(first, count) {
  const keys = {}
  for (let id = first; id < first + count; id++) keys[id] = preKey()
  return keys
}

/** A received first message: both keys are read, the session moves on, the pre-key is used up. */
async function receive({ state: { keys } }, address, preKeyId, next) {
  await keys.get('session', [address])
  await keys.get('pre-key', [preKeyId])
  await keys.set({ session: { [address]: next }, 'pre-key': { [preKeyId]: null } })
}

async function onFresh(bed, n, op) {
  const opened = []
  for (let i = 0; i < n; i++) opened.push(await bed.fresh())
  return { op: (i) => op(opened[i]), finish: () => Promise.all(opened.map((session) => session.close())) }
}

async function readWhole(bed, opened) {
  const types = Object.entries(bed.whole)
  const found = await Promise.all(types.map(([type, values]) => opened.state.keys.get(type, Object.keys(values))))
  const count = found.reduce((sum, values) => sum + Object.values(values).filter(Boolean).length, 0)
  if (count !== sizeOf(bed.whole)) throw new Error(`${count} keys came back`)
}

/** Each runs alone; `n` operations one after the other. */
export const SERIAL = {
  async w1({ main, addresses }) {
    return { op: (i) => main.state.keys.get('session', [addresses[i % addresses.length]]) }
  },

  async w2(bed) {
    return { op: () => bed.main.state.keys.set({ session: { [bed.address()]: bed.next() } }) }
  },

  w3(bed, n) {
    const keys = { 'pre-key': preKeys(1, FIRST_LOGIN) }
    return onFresh(bed, n, (session) => session.state.keys.set(keys))
  },

  async w4(bed, n) {
    const first = await bed.issuePreKeys(bed.main, n)
    return { op: (i) => receive(bed.main, bed.address(), String(first + i), bed.next()) }
  },

  async w5(bed) {
    return {
      async op() {
        await bed.main.state.keys.get('session', bed.addresses.slice(0, GROUP))
        await bed.main.state.keys.set({ session: bed.nextOf(GROUP) })
      },
    }
  },

  w6(bed, n) {
    return onFresh(bed, n, (session) => bed.load(session))
  },

  async w7({ main }) {
    return {
      op(i) {
        main.state.creds.lastAccountSyncTimestamp = 1_795_423_000 + i
        return main.saveCreds()
      },
    }
  },

  async w9(bed, n) {
    const names = await bed.closed(n)
    const opened = []
    return {
      async op(i) {
        opened[i] = await bed.reopen(names[i])
        await readWhole(bed, opened[i])
      },
      finish: () => Promise.all(opened.map((session) => session.close())),
    }
  },

  /** Reads of another size, for the cost as work grows. */
  async get150({ main, addresses }) {
    return { op: () => main.state.keys.get('session', addresses.slice(0, 150)) }
  },

  async set150(bed) {
    return { op: () => bed.main.state.keys.set({ session: bed.nextOf(150) }) }
  },
}

/** w8: every session of a crowd receives in a loop of its own, `n` times each or until `budgetMs` is over. */
export async function prepareCrowd(bed, n, size) {
  await bed.gather(size)
  const crowd = bed.crowd.slice(0, size)
  const firsts = await Promise.all(crowd.map((session) => bed.issuePreKeys(session, n)))
  return async (budgetMs) => {
    const took = []
    const end = performance.now() + budgetMs
    const loop = async (session, first) => {
      for (let i = 0; i < n; i++) {
        const began = performance.now()
        if (began > end) break
        await receive(session, session.address, String(first + i), bed.next())
        took.push(performance.now() - began)
      }
    }
    const began = performance.now()
    await Promise.all(crowd.map((session, n) => loop(session, firsts[n])))
    return { took, seconds: (performance.now() - began) / 1000 }
  }
}

/** Does the store give back what it was given, also after opening anew, and is a deleted key gone? */
export async function examine(bed, same) {
  // Short: one library's table cuts names off at 50 characters, without an error.
  const name = `seen-${randomUUID().slice(0, 8)}`
  const first = await bed.reopen(name)
  Object.assign(first.state.creds, pairedCreds())
  await first.saveCreds()
  const values = { session: { a: newSession() }, 'pre-key': { 7: preKey(), 8: preKey() } }
  await Promise.all([first.state.keys.set(values), first.saveCreds()])
  await first.state.keys.set({ 'pre-key': { 7: null } })
  await first.close()
  const again = await bed.reopen(name)
  const sessions = await again.state.keys.get('session', ['a'])
  const kept = await again.state.keys.get('pre-key', ['7', '8'])
  await again.close()
  return {
    readsBack:
      same(sessions.a, values.session.a) && same(kept[8], values['pre-key'][8]) && same(again.state.creds, first.state.creds),
    deletes: !kept[7],
  }
}
