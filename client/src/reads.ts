/**
 * Reading a session's keys: from memory, or for what memory let go from the store, in one request per tick whatever the
 * number of reads that asked.
 */
import { setImmediate as nextTick } from 'node:timers/promises'
import { CorruptError } from './errors.js'
import type { Call, StoreClient } from './http.js'
import { JsonReader } from './json-reader.js'
import type { Entry, Memory } from './memory.js'
import { piecesOf } from './pieces.js'
import type { CommitQueue } from './queue.js'

export interface ReadsOptions {
  client: StoreClient
  /** Path of the session, for example `/v1/sessions/main`. */
  path: string
  memory: Memory
  queue: CommitQueue
  deadlineMs: number
  attemptMs: number
  signal: AbortSignal
}

/** Texts by id, in the order asked; missing ids are left out. */
export type Found = [id: string, text: string][]

type Fetched = Map<string, Map<string, string>>

interface Asking {
  wanted: Map<string, Set<string>>
  answer: Promise<Fetched>
}

export class Reads {
  readonly #options: ReadsOptions
  #asking: Asking | undefined

  constructor(options: ReadsOptions) {
    this.#options = options
  }

  /**
   * @returns the values set last, as soon as the store has them. At once when they are in memory and not on their way.
   * @throws UnavailableError past the deadline, CorruptError when a known key is gone.
   */
  read(type: string, ids: readonly string[]): Found | Promise<Found> {
    const { found, missing } = this.#look(type, ids)
    const arrival = this.#options.queue.arrival(type, ids)
    return missing.length === 0 && !arrival ? found : this.#wait(type, ids)
  }

  async #wait(type: string, ids: readonly string[]): Promise<Found> {
    const { memory, queue } = this.#options
    let fetched = new Map<Entry, string>()
    for (;;) {
      // All of one moment: writes that came while we asked are seen whole or not at all.
      const { found, missing } = this.#look(type, ids, fetched)
      if (missing.length === 0) {
        for (const [entry, text] of fetched) memory.fill(entry, text)
        // Who reads a write before its writer has heard of it overtakes the writer: Baileys would decrypt a group
        // message ahead of the one before it, which brought the sender key. A tick lets the writer go first.
        const arrival = queue.arrival(type, ids)
        if (arrival) {
          await arrival
          await nextTick()
        }
        return found
      }
      fetched = await this.#fetch(type, missing)
    }
  }

  #look(
    type: string,
    ids: readonly string[],
    fetched?: ReadonlyMap<Entry, string>,
  ): { found: Found; missing: [string, Entry][] } {
    const { memory } = this.#options
    const found: Found = []
    const missing: [string, Entry][] = []
    for (const id of ids) {
      const entry = memory.entry(type, id)
      if (!entry) continue
      const text = entry.text ?? fetched?.get(entry)
      if (text === undefined) missing.push([id, entry])
      else found.push([id, text])
      memory.use(entry)
    }
    return { found, missing }
  }

  async #fetch(type: string, missing: readonly [string, Entry][]): Promise<Map<Entry, string>> {
    const { wanted, answer } = (this.#asking ??= this.#ask())
    const ids = wanted.get(type) ?? new Set<string>()
    wanted.set(type, ids)
    for (const [id] of missing) ids.add(id)
    const texts = (await answer).get(type)
    const fetched = new Map<Entry, string>()
    for (const [id, entry] of missing) {
      const text = texts?.get(id)
      // Of a key that was set meanwhile the store may know more or less than was asked for.
      if (entry.replaced) continue
      if (text === undefined) throw new CorruptError('a key that was there is gone')
      fetched.set(entry, text)
    }
    return fetched
  }

  #ask(): Asking {
    const wanted = new Map<string, Set<string>>()
    const answer = (async () => {
      await nextTick()
      this.#asking = undefined
      const { client, path, ...patience } = this.#options
      const found: Fetched = new Map()
      for (const piece of piecesOf(wanted)) {
        const body = JSON.stringify(Object.fromEntries(piece))
        const call: Call = { method: 'POST', path: `${path}/keys/get`, body }
        await client.call(call, (answer) => addTexts(answer, found), patience)
      }
      return found
    })()
    return { wanted, answer }
  }
}

/** @returns `found`, with what an answer holds. @throws SyntaxError */
function addTexts(body: Buffer, found: Fetched): Fetched {
  const reader = new JsonReader(body)
  reader.object((type) => {
    const values = found.get(type) ?? new Map<string, string>()
    found.set(type, values)
    reader.object((id) => values.set(id, reader.text()))
  })
  reader.end()
  return found
}
