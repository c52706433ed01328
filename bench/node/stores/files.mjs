/** Baileys' own multi-file state: one file a key, never fsynced. */
import { join } from 'node:path'

export function multiFile({ folder }, baileys) {
  return {
    async open(session) {
      const { state, saveCreds } = await baileys.useMultiFileAuthState(join(folder, session))
      return { state, saveCreds, close: async () => {} }
    },
    end: async () => {},
  }
}
