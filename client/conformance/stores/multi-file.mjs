/** Baileys' own `useMultiFileAuthState`, below the folder CONFORMANCE_FOLDER. */
import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { release } from './release.mjs'

export default async function make() {
  const { CONFORMANCE_FOLDER: folder = 'conformance-folder' } = process.env
  const baileys = await release()
  return {
    baileys,
    open: (name) => baileys.useMultiFileAuthState(join(folder, name)),
    damage: (name) => truncate(join(folder, name, 'creds.json'), 100),
  }
}
