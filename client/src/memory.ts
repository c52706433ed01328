/**
 * A session's keys as text, by type and id: all ids, and of the values as many as the bound allows.
 *
 * Ids are always known, so a miss is known to be one. Least recently used values go first; what is not yet stored
 * stays. Maps, so that ids like `__proto__` are ids.
 */
export type Values = ReadonlyMap<string, string | null>

/** What is known of a key; a new one takes its place when the key is set. */
export interface Entry {
  /** undefined: let go, and to be asked for. */
  text: string | undefined
  /** Being written: not to be let go. */
  pinned: boolean
  /** No longer the key's. */
  replaced: boolean
}

export class Memory {
  readonly #types = new Map<string, Map<string, Entry>>()
  /** Values that may be let go, the least recently used first. */
  readonly #recent = new Set<Entry>()
  readonly #most: number
  #bytes = 0

  /** @param most bytes of value text to hold. */
  constructor(most: number) {
    this.#most = most
  }

  get bytes(): number {
    return this.#bytes
  }

  entry(type: string, id: string): Entry | undefined {
    return this.#types.get(type)?.get(id)
  }

  /** Marks a value as used just now. */
  use(entry: Entry): void {
    if (this.#recent.delete(entry)) this.#recent.add(entry)
  }

  /** @returns a copy: what is set while a caller walks the ids does not move them. */
  ids(type: string): string[] {
    return [...(this.#types.get(type)?.keys() ?? [])]
  }

  types(): string[] {
    return [...this.#types.keys()]
  }

  get empty(): boolean {
    for (const entries of this.#types.values()) if (entries.size > 0) return false
    return true
  }

  forget(): void {
    this.#types.clear()
    this.#recent.clear()
    this.#bytes = 0
  }

  /** Takes a stored key while opening. @param text asked for only as long as there is room. */
  load(type: string, id: string, bytes: number, text: () => string): void {
    const fits = this.#bytes + bytes <= this.#most
    const entry: Entry = { text: fits ? text() : undefined, pinned: false, replaced: false }
    this.#entries(type).set(id, entry)
    if (fits) this.#hold(entry)
  }

  /** Takes what is being written. @returns entries to `release` once it is stored. */
  set(type: string, values: Values): Entry[] {
    const entries = this.#entries(type)
    const written: Entry[] = []
    for (const [id, text] of values) {
      const old = entries.get(id)
      if (old) this.#drop(old)
      if (text === null) {
        entries.delete(id)
        continue
      }
      const entry = { text, pinned: true, replaced: false }
      entries.set(id, entry)
      this.#bytes += text.length
      written.push(entry)
    }
    return written
  }

  /** These are stored and may be let go. */
  release(entries: readonly Entry[]): void {
    for (const entry of entries) {
      entry.pinned = false
      if (!entry.replaced) this.#recent.add(entry)
    }
    this.#makeRoom()
  }

  /** Takes back a value that had been let go. */
  fill(entry: Entry, text: string): void {
    if (entry.replaced || entry.text !== undefined) return
    entry.text = text
    this.#hold(entry)
    this.#makeRoom()
  }

  #entries(type: string): Map<string, Entry> {
    let entries = this.#types.get(type)
    if (!entries) this.#types.set(type, (entries = new Map<string, Entry>()))
    return entries
  }

  #hold(entry: Entry): void {
    this.#bytes += entry.text?.length ?? 0
    this.#recent.add(entry)
  }

  #drop(entry: Entry): void {
    entry.replaced = true
    this.#bytes -= entry.text?.length ?? 0
    this.#recent.delete(entry)
  }

  #makeRoom(): void {
    for (const entry of this.#recent) {
      if (this.#bytes <= this.#most) return
      this.#bytes -= entry.text?.length ?? 0
      entry.text = undefined
      this.#recent.delete(entry)
    }
  }
}
