/**
 * Leases of this process that nobody uses any more, and that the store may still keep: a take whose answer was lost,
 * or a session given up while the store was away or would not have its token. The next open of the session goes by the
 * same holder; by a new one it would have to wait until the lease of its own past is over.
 *
 * Whose a session is only the store knows: two tokens may be two tenants', each with a session of that name, or one
 * tenant's former and present one. So a ghost is there for opens with its own token, and for others only when the store
 * itself names its holder.
 */
export interface Ghost {
  /** Of the session: the address of the service and the session's name. */
  place: string
  token: string
  holder: string
  /** Made up by this process: then no other process goes by that name, whatever tenant it works for. */
  unique: boolean
  /** On the clock of `performance.now()`: by then the store has let it go. */
  until: number
  /** Ends the attempts to release it, which must not reach its successor. */
  stop: () => void
}

/** By place, in the order they were remembered. */
const ghosts = new Map<string, Set<Ghost>>()

export function remember(ghost: Ghost): void {
  for (const all of ghosts.values()) for (const old of all) if (isOver(old)) forget(old)
  const { place, token, holder } = ghost
  const former = at(place).find((each) => each.token === token && each.holder === holder)
  if (former) take(former)
  const all = ghosts.get(place)
  if (all) all.add(ghost)
  else ghosts.set(place, new Set([ghost]))
}

/** @returns one that an open may take over, and no other open with it. @param holder by which it has to go, if any. */
export function recall(place: string, token: string, holder: string | undefined): Ghost | undefined {
  const isOurs = (each: Ghost): boolean => each.token === token && (holder === undefined || holder === each.holder)
  return take(at(place).find(isOurs))
}

/** The same, whatever its token. @param holder of the lease that lives, as the store names it to who asks. */
export function recallHeld(place: string, holder: string | undefined): Ghost | undefined {
  return take(at(place).find((each) => each.unique && each.holder === holder))
}

/** It is known to be released. */
export function forget(ghost: Ghost): void {
  const all = ghosts.get(ghost.place)
  if (all?.delete(ghost) && all.size === 0) ghosts.delete(ghost.place)
}

/** @returns whether it may live, and nobody has recalled it. */
export function isLeft(ghost: Ghost): boolean {
  return !isOver(ghost) && at(ghost.place).includes(ghost)
}

function take(ghost: Ghost | undefined): Ghost | undefined {
  if (!ghost) return undefined
  forget(ghost)
  ghost.stop()
  return isOver(ghost) ? undefined : ghost
}

/** @returns the latest first. */
function at(place: string): Ghost[] {
  return [...(ghosts.get(place) ?? [])].reverse()
}

function isOver({ until }: Ghost): boolean {
  return until < performance.now()
}
