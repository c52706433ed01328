/** How much one request carries: what the service takes at most, and what is far enough from that for any of them. */

/** Characters and keys that several writes share of a commit, and that a piece of something longer has. */
export const SHARED = { size: 2 ** 20, keys: 20_000 }
/** Characters around a key: quotes, colon and comma. */
export const AROUND_KEY = 4
/** What the service takes in one commit. */
export const MOST_KEYS = 100_000

/** @returns the ids by type, in order, cut into pieces that fit a request each. */
export function piecesOf(ids: Iterable<[type: string, ids: Iterable<string>]>): Map<string, string[]>[] {
  const pieces: Map<string, string[]>[] = []
  let left = { size: 0, keys: 0 }
  for (const [type, each] of ids) {
    for (const id of each) {
      if (left.keys === 0 || left.size < id.length + AROUND_KEY) {
        pieces.push(new Map())
        left = { ...SHARED }
      }
      const piece = pieces.at(-1)
      const known = piece?.get(type)
      if (known) known.push(id)
      else piece?.set(type, [id])
      left.keys--
      left.size -= id.length + AROUND_KEY
    }
  }
  return pieces
}

interface Deletion {
  changes: Map<string, Map<string, null>>
  size: number
}

/** @param piece ids by type. @returns what deletes them, and its size in characters. */
export function deletionOf(piece: ReadonlyMap<string, string[]>): Deletion {
  const changes = new Map<string, Map<string, null>>()
  let size = 0
  for (const [type, ids] of piece) {
    changes.set(type, new Map(ids.map((id) => [id, null])))
    for (const id of ids) size += id.length + AROUND_KEY
  }
  return { changes, size }
}
