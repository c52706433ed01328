/**
 * Leases of this process that nobody uses any more, and that the store may still keep: a take whose answer was lost,
 * or a session given up while the store was away or would not have its token. The next open of the session goes by the
 * same holder; by a new one it would have to wait until the lease of its own past is over.
 */
export interface Ghost {
  holder: string
  /** On the clock of `performance.now()`: by then the store has let it go. */
  until: number
  /** Ends the attempts to release it, which must not reach its successor. */
  stop: () => void
}

/** By the address of the service and the session's name. */
const ghosts = new Map<string, Ghost>()

export function remember(place: string, ghost: Ghost): void {
  for (const [other, { until }] of ghosts) if (until < performance.now()) ghosts.delete(other)
  ghosts.set(place, ghost)
}

/** @returns one that an open may take over, and no other open with it. @param holder by which it has to go, if any. */
export function recall(place: string, holder: string | undefined): Ghost | undefined {
  const ghost = ghosts.get(place)
  if (!ghost || (holder !== undefined && holder !== ghost.holder)) return undefined
  ghosts.delete(place)
  ghost.stop()
  return ghost.until < performance.now() ? undefined : ghost
}

/** It is known to be released. */
export function forget(place: string, ghost: Ghost): void {
  if (ghosts.get(place) === ghost) ghosts.delete(place)
}
