/** Baileys' own `useMultiFileAuthState`, below the folder CONFORMANCE_FOLDER; unless told below one that goes again. */
import { mkdtemp, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { release } from './release.mjs'

export default async function make() {
  const { CONFORMANCE_FOLDER: given } = process.env
  const folder = given ?? (await mkdtemp(join(tmpdir(), 'conformance-')))
  // For the processes that the suite starts.
  process.env.CONFORMANCE_FOLDER = folder
  const baileys = await release()
  return {
    baileys,
    open: (name) => baileys.useMultiFileAuthState(join(folder, name)),
    damage: (name) => truncate(join(folder, name, 'creds.json'), 100),
    end: async () => {
      if (given === undefined) await rm(folder, { recursive: true })
    },
  }
}
