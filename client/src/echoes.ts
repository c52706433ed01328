/**
 * Which answer is to which request. Each request carries a word of its own, which the service gives back: something in
 * between that is out of step would otherwise hand us the answer to another session, and its keys as ours.
 */
import { randomBytes } from 'node:crypto'
import type { RawAnswer } from './answer-reader.js'
import { Foreign } from './connections.js'

const HEADER = 'authstore-echo'
/** After so many answers in a row without a word the service gives none back: an earlier release took its place. */
const CONVINCING = 3

export class Echoes {
  /** Random, so that no other process has it; in lower case, as headers of answers are read. */
  readonly #ours = randomBytes(8).toString('hex')
  #asked = 0
  #doubts = 0

  /** @returns a word that no other request has. */
  next(): string {
    return `${this.#ours}-${++this.#asked}`
  }

  lineOf(word: string): string {
    return `${HEADER}: ${word}\r\n`
  }

  /** @throws Foreign for the answer to another request, or to nobody while the service gives words back. */
  assertAnswers(word: string, { headers }: RawAnswer): void {
    const heard = headers.get(HEADER)
    if (heard === word) {
      this.#doubts = CONVINCING
      return
    }
    if (heard !== undefined) throw new Foreign('the answer to another request')
    if (this.#doubts === 0) return
    this.#doubts--
    throw new Foreign('an answer that does not say to which request')
  }
}
