/** One HTTP/1.1 answer, put together from the pieces in which it arrives. */
export interface RawAnswer {
  status: number
  headers: Head
  body: Buffer
}

/** Looked through when a header is asked for: of most answers that is two or three. */
export class Head {
  readonly status: number
  readonly #text: string

  /** @param text all of it, each line with its end. @throws Error when it is no HTTP. */
  constructor(text: string) {
    const status = /^HTTP\/1\.1 (\d{3})\b/.exec(text)?.[1]
    if (status === undefined) throw new Error('the answer is not HTTP/1.1')
    this.status = Number(status)
    this.#text = text.toLowerCase()
  }

  /** @returns a header in lower case. @param name in lower case. */
  get(name: string): string | undefined {
    const line = `\r\n${name}:`
    const at = this.#text.indexOf(line)
    if (at < 0) return undefined
    const from = at + line.length
    return this.#text.slice(from, this.#text.indexOf('\r\n', from)).trim()
  }
}

const HEAD_END = '\r\n\r\n'
const LONGEST_HEAD = 65_536
const LONGEST_SIZE_LINE = 1024

export class AnswerReader {
  #head: Head | undefined
  #pending: Buffer = Buffer.alloc(0)
  #parts: Buffer[] = []
  /** Bytes still to come of the body, or of a chunk of it; undefined: until the connection ends. */
  #left: number | undefined = 0
  #chunks: 'none' | 'size' | 'data' | 'data-end' | 'trailer' = 'none'
  #done = false
  began = false

  /** @returns whether the answer is whole. @throws Error when it is no HTTP. */
  push(chunk: Buffer): boolean {
    this.began = true
    let rest = chunk
    while (!this.#head && rest.length > 0) rest = this.#readHead(rest)
    if (!this.#head) return false
    if (this.#chunks === 'none') this.#readPlain(rest)
    else this.#readChunks(rest)
    return this.#done
  }

  /** Whether what came is HTTP, as far as it came. */
  get isHttp(): boolean {
    return this.#head !== undefined || this.#pending.toString('latin1', 0, 5) === 'HTTP/'
  }

  /** Whether the end of the connection is the end of the answer, as it is of one without a length. */
  endsWithConnection(): boolean {
    return this.#head !== undefined && this.#left === undefined
  }

  get keepsAlive(): boolean {
    return this.#left !== undefined && this.#head?.get('connection') !== 'close'
  }

  get answer(): RawAnswer {
    if (!this.#head) throw new Error('there is no answer yet')
    const parts = this.#parts
    const body = parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
    return { status: this.#head.status, headers: this.#head, body }
  }

  /** @returns what follows the head; nothing while it is not whole. */
  #readHead(chunk: Buffer): Buffer {
    const all = this.#pending.length > 0 ? Buffer.concat([this.#pending, chunk]) : chunk
    const end = all.indexOf(HEAD_END)
    if (end < 0) {
      if (all.length > LONGEST_HEAD) throw new Error('the head of the answer is too long')
      this.#pending = all
      return Buffer.alloc(0)
    }
    this.#pending = Buffer.alloc(0)
    const head = new Head(all.toString('latin1', 0, end + 2))
    // 100 and its like come before the answer itself.
    if (head.status < 100 || head.status > 199) this.#begin(head)
    return all.subarray(end + HEAD_END.length)
  }

  #begin(head: Head): void {
    this.#head = head
    const length = head.get('content-length')
    if (head.status === 204 || head.status === 304) this.#left = 0
    else if (head.get('transfer-encoding')?.includes('chunked')) this.#chunks = 'size'
    else if (length === undefined) this.#left = undefined
    else if (/^\d+$/.test(length)) this.#left = Number(length)
    else throw new Error('the length of the answer is no number')
  }

  #readPlain(chunk: Buffer): void {
    if (chunk.length > 0) this.#parts.push(chunk)
    if (this.#left === undefined) return
    this.#left -= chunk.length
    if (this.#left < 0) throw new Error('the answer is longer than it said')
    this.#done = this.#left === 0
  }

  #readChunks(chunk: Buffer): void {
    let rest = this.#pending.length > 0 ? Buffer.concat([this.#pending, chunk]) : chunk
    this.#pending = Buffer.alloc(0)
    while (!this.#done) {
      const taken = this.#chunks === 'data' ? this.#takeData(rest) : this.#takeLine(rest)
      if (taken === undefined) {
        this.#pending = rest
        return
      }
      rest = rest.subarray(taken)
    }
    if (rest.length > 0) throw new Error('something follows the answer')
  }

  #takeData(rest: Buffer): number | undefined {
    if (rest.length === 0) return undefined
    const part = rest.subarray(0, this.#left)
    this.#parts.push(part)
    this.#left = (this.#left ?? 0) - part.length
    if (this.#left === 0) this.#chunks = 'data-end'
    return part.length
  }

  #takeLine(rest: Buffer): number | undefined {
    const end = rest.indexOf('\r\n')
    if (end < 0) {
      if (rest.length > LONGEST_SIZE_LINE) throw new Error('a chunk has no size')
      return undefined
    }
    const line = rest.toString('latin1', 0, end)
    if (this.#chunks === 'data-end') this.#chunks = 'size'
    else if (this.#chunks === 'trailer') this.#done = line === ''
    else this.#beginChunk(line)
    return end + 2
  }

  #beginChunk(line: string): void {
    const size = /^[0-9a-f]{1,12}(?=\s*(;|$))/i.exec(line)?.[0]
    if (size === undefined) throw new Error('a chunk has no size')
    this.#left = Number.parseInt(size, 16)
    this.#chunks = this.#left === 0 ? 'trailer' : 'data'
  }
}
