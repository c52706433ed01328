/** This package's store: AUTHSTORE_URL and AUTHSTORE_TOKEN say where; AUTHSTORE_MEMORY_BYTES bounds its memory. */
import { useRemoteAuthState } from 'baileys-auth-store'
import { release } from './release.mjs'

export default async function make() {
  const { AUTHSTORE_URL: url, AUTHSTORE_TOKEN: token, AUTHSTORE_MEMORY_BYTES: bytes } = process.env
  // Each case would say so by itself, as if the store were at fault.
  if (!url || !token) throw new Error('AUTHSTORE_URL and AUTHSTORE_TOKEN have to say where the service is')
  const baileys = await release()
  const common = { url, token, baileys, ...(bytes && { memoryBytes: Number(bytes) }) }
  return {
    baileys,
    // A killed owner's lease lives on for a while.
    open: (session, { life } = {}) => useRemoteAuthState({ ...common, session, takeover: life === 'after a crash' }),
  }
}
