/** Waiting for a session that another owner holds. */
import { setTimeout as sleep } from 'node:timers/promises'
import { HeldError } from './errors.js'

const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5_000
/** After the lease's told end, so that the store's clock has passed it too. */
const GRACE_MS = 100

/**
 * @param waitMs how long to go on asking while `open` throws HeldError; what it takes otherwise counts as well.
 * @throws what `open` throws, HeldError when the time is over.
 */
export async function openWhenFree<T>(waitMs: number, open: () => Promise<T>): Promise<T> {
  const end = performance.now() + waitMs
  for (let attempt = 0; ; attempt++) {
    try {
      return await open()
    } catch (error) {
      const left = end - performance.now()
      if (!(error instanceof HeldError) || left <= 0) throw error
      await sleep(Math.min(left, pauseBefore(attempt, error.expiresAt)))
    }
  }
}

/** In ms. Not past the end of the lease, unless by our clock that is over and by the store's it is not. */
function pauseBefore(attempt: number, expiresAt: string | undefined): number {
  const growing = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt)
  const untilEnd = Date.parse(expiresAt ?? '') - Date.now() + GRACE_MS
  return untilEnd > 0 ? Math.min(growing, untilEnd) : growing
}
