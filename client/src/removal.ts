/** The deletion of a session by its owner. */
import { GoneError, RefusedError } from './errors.js'
import { parseJson } from './http.js'
import type { Call, Patience, StoreClient } from './http.js'

export interface RemovalOptions extends Patience {
  client: StoreClient
  session: string
  /** Of the owner's lease: a later owner's session is not deleted. */
  epoch: number
}

export class Removal {
  readonly #options: RemovalOptions
  /** Asked for and not failed, by `purge`: what was deleted so that it can be restored may be purged later. */
  readonly #done = new Map<boolean, Promise<void>>()

  constructor(options: RemovalOptions) {
    this.#options = options
  }

  /**
   * Asked again when an answer is lost. What is gone already is deleted: nobody but this, whose answer was lost, or an
   * operator can have done it.
   * @throws FencedError, RefusedError, UnavailableError past the deadline; then it may be called again.
   */
  ask(purge: boolean): Promise<void> {
    const known = this.#done.get(purge)
    if (known) return known
    const done = this.#remove(purge)
    this.#done.set(purge, done)
    done.catch(() => this.#done.delete(purge))
    return done
  }

  async #remove(purge: boolean): Promise<void> {
    const { client, session, epoch } = this.#options
    const path = `/v1/sessions/${session}?purge=${purge}`
    const call: Call = { method: 'DELETE', path, headers: { 'lease-epoch': epoch } }
    const read = (body: Buffer): void => {
      assertRemoved(body, session)
    }
    try {
      await client.call(call, read, this.#options)
    } catch (error) {
      if (!isGone(error, purge)) throw error
    }
  }
}

/** What can be restored is not purged. */
function isGone(error: unknown, purge: boolean): boolean {
  if (error instanceof GoneError) return !purge
  return error instanceof RefusedError && error.problem === 'no-session'
}

/** @throws SyntaxError */
function assertRemoved(body: Buffer, session: string): void {
  if ((parseJson(body) as { session?: unknown } | null)?.session !== session) throw new SyntaxError('not removed')
}
