/** One HTTP/1.1 answer, put together from the pieces in which it arrives. */
export interface RawAnswer {
  status: number
  /** Names in lower case. */
  headers: ReadonlyMap<string, string>
  body: Buffer
}

const HEAD_END = '\r\n\r\n'
const LONGEST_HEAD = 65_536
const LONGEST_SIZE_LINE = 1024

export class AnswerReader {
  #head: { status: number; headers: Map<string, string> } | undefined
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

  /** Whether the end of the connection is the end of the answer, as it is of one without a length. */
  endsWithConnection(): boolean {
    return this.#head !== undefined && this.#left === undefined
  }

  get keepsAlive(): boolean {
    return this.#left !== undefined && this.#head?.headers.get('connection')?.toLowerCase() !== 'close'
  }

  get answer(): RawAnswer {
    if (!this.#head) throw new Error('there is no answer yet')
    const [first = Buffer.alloc(0), ...more] = this.#parts
    return { ...this.#head, body: more.length > 0 ? Buffer.concat(this.#parts) : first }
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
    const [first = '', ...lines] = all.toString('latin1', 0, end).split('\r\n')
    const status = /^HTTP\/1\.1 (\d{3})\b/.exec(first)?.[1]
    if (status === undefined) throw new Error('the answer is not HTTP/1.1')
    // 100 and its like come before the answer itself.
    if (!status.startsWith('1')) this.#begin(Number(status), lines)
    return all.subarray(end + HEAD_END.length)
  }

  #begin(status: number, lines: string[]): void {
    const headers = new Map<string, string>()
    for (const line of lines) {
      const colon = line.indexOf(':')
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim())
    }
    this.#head = { status, headers }
    const length = headers.get('content-length')
    if (status === 204 || status === 304) this.#left = 0
    else if (headers.get('transfer-encoding')?.toLowerCase().includes('chunked')) this.#chunks = 'size'
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
