/**
 * Lets so many sessions of a service be opened at a time. A thousand at once would wait for each other's connections,
 * and waiting for those would count against how long each may try; waiting here does not.
 */
import { UnavailableError } from './errors.js'

/** Half of the connections: the rest is for sessions that are open. */
const AT_ONCE = 16

interface Waiter {
  since: number
  deadlineMs: number
  enter: () => void
  refuse: (error: UnavailableError) => void
}

export class Admission {
  #inside = 0
  #waiting: Waiter[] = []
  readonly #answeredAt: () => number

  /** @param answeredAt when the store last answered anybody, on the clock of `performance.now()`. */
  constructor(answeredAt: () => number) {
    this.#answeredAt = answeredAt
  }

  /** @param deadlineMs how long to wait while the store answers nobody. @throws what `open` throws, UnavailableError */
  async run<T>(deadlineMs: number, open: () => Promise<T>): Promise<T> {
    if (this.#inside < AT_ONCE) this.#inside++
    else await this.#turn(deadlineMs)
    try {
      return await open()
    } catch (error) {
      if (error instanceof UnavailableError) this.#refuseLate(error)
      throw error
    } finally {
      const next = this.#waiting.shift()
      if (next) next.enter()
      else this.#inside--
    }
  }

  #turn(deadlineMs: number): Promise<void> {
    return new Promise((enter, refuse) => {
      this.#waiting.push({ since: performance.now(), deadlineMs, enter, refuse })
    })
  }

  /** Those for whom the store was silent as long as they would try: sixteen at a time it would take them for ever. */
  #refuseLate(error: UnavailableError): void {
    const now = performance.now()
    const answered = this.#answeredAt()
    const isLate = ({ since, deadlineMs }: Waiter): boolean => now - Math.max(since, answered) >= deadlineMs
    const late = this.#waiting.filter(isLate)
    if (late.length === 0) return
    this.#waiting = this.#waiting.filter((each) => !isLate(each))
    for (const { refuse } of late) refuse(error)
  }
}
