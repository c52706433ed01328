/**
 * Takes a JSON answer apart without making its values: a session is thousands of them, and most are not asked for.
 *
 * Each value stays the text it is; whoever needs it parses it then.
 */
const [QUOTE, BACKSLASH, COLON, COMMA] = [0x22, 0x5c, 0x3a, 0x2c]
const [OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [0x7b, 0x7d, 0x5b, 0x5d]

export class JsonReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /**
   * Walks the members of the object that is next.
   * @param member has to take the member's value: with `object`, `text` or `skip`.
   * @throws SyntaxError when there is no object.
   */
  object(member: (name: string) => void): void {
    this.#expect(OPEN_BRACE)
    if (this.#next() === CLOSE_BRACE) {
      this.#at++
      return
    }
    for (;;) {
      const name = this.#name()
      this.#expect(COLON)
      member(name)
      const mark = this.#next()
      this.#at++
      if (mark === CLOSE_BRACE) return
      if (mark !== COMMA) throw new SyntaxError('no object')
    }
  }

  /** @returns the text of the value that is next. */
  text(): string {
    return this.since(this.skip())
  }

  /** @returns the text between a place and here. */
  since(from: number): string {
    return this.#bytes.toString('utf8', from, this.#at)
  }

  /** Passes over the value that is next. @returns where it began. */
  skip(): number {
    const first = this.#next()
    const from = this.#at
    if (first === QUOTE) this.#passString()
    else if (first === OPEN_BRACE || first === OPEN_BRACKET) this.#passNested()
    else this.#passWord()
    return from
  }

  /** @returns bytes read so far. */
  get at(): number {
    return this.#at
  }

  /** @throws SyntaxError when something follows. */
  end(): void {
    if (this.#next() !== undefined) throw new SyntaxError('more than one value')
  }

  #name(): string {
    if (this.#next() !== QUOTE) throw new SyntaxError('no name')
    const text = this.text()
    return text.includes('\\') ? (JSON.parse(text) as string) : text.slice(1, -1)
  }

  #expect(mark: number): void {
    if (this.#next() !== mark) throw new SyntaxError('another character than expected')
    this.#at++
  }

  #next(): number | undefined {
    const bytes = this.#bytes
    let mark = bytes[this.#at]
    while (mark === 0x20 || mark === 0x0a || mark === 0x0d || mark === 0x09) mark = bytes[++this.#at]
    return mark
  }

  #passString(): void {
    const bytes = this.#bytes
    const { length } = bytes
    let at = this.#at + 1
    while (at < length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1
    if (at >= length) throw new SyntaxError('a string without its end')
    this.#at = at + 1
  }

  #passNested(): void {
    const bytes = this.#bytes
    let depth = 0
    for (;;) {
      const mark = bytes[this.#at]
      if (mark === undefined) throw new SyntaxError('a value without its end')
      if (mark === QUOTE) {
        this.#passString()
        continue
      }
      this.#at++
      if (mark === OPEN_BRACE || mark === OPEN_BRACKET) depth++
      else if ((mark === CLOSE_BRACE || mark === CLOSE_BRACKET) && --depth === 0) return
    }
  }

  #passWord(): void {
    const bytes = this.#bytes
    const from = this.#at
    for (let mark = bytes[from]; mark !== undefined && isOfWord(mark); ) mark = bytes[++this.#at]
    if (this.#at === from) throw new SyntaxError('no value')
  }
}

/** Letters, digits and signs: `true`, `-1.5e+3`. */
function isOfWord(mark: number): boolean {
  return mark > 0x20 && mark !== COMMA && mark !== CLOSE_BRACE && mark !== CLOSE_BRACKET && mark !== QUOTE
}
