/** What a user writes in an ES module; compiled against each release under both of its names, never run. */
import * as baileys from 'baileys'
import { addTransactionCapability, makeCacheableSignalKeyStore, makeWASocket } from 'baileys'
import type { AuthenticationCreds, AuthenticationState, SignalKeyStore } from 'baileys'
import { FencedError, LostError, useRemoteAuthState } from 'baileys-auth-store'
import type { RemoteAuthState, RemoteAuthStateOptions } from 'baileys-auth-store'

const where = { url: 'http://127.0.0.1:8480', token: 'token', session: 'main' }
const auth = await useRemoteAuthState({ ...where, baileys, holder: 'host-1', ttl: 60, takeover: true, memoryBytes: 0 })

const socket = makeWASocket({ auth: auth.state })
socket.ev.on('creds.update', auth.saveCreds)
const stop: () => void = auth.on('lost', (why) => {
  const reason: 'fenced' | 'gone' | 'unavailable' | 'version-mismatch' | 'refused' | 'corrupt' | 'held' = why.reason
  void socket.end(why)
  return reason
})
stop()

const state: AuthenticationState = auth.state
const creds: AuthenticationCreds = auth.state.creds
const keys: SignalKeyStore = auth.state.keys
auth.state.creds.nextPreKeyId = creds.nextPreKeyId + 1
// @ts-expect-error -- creds are those of the release, not `any`
auth.state.creds.noSuchMember = 1
// @ts-expect-error -- as are the options
await useRemoteAuthState({ ...where, baileys, memory: 0 })
// @ts-expect-error -- without the module there is no telling how to make creds
await useRemoteAuthState(where)

declare const logger: Parameters<typeof addTransactionCapability>[1]
const options = { maxCommitRetries: 10, delayBetweenTriesMs: 3000 }
const wrapped: SignalKeyStore = addTransactionCapability(auth.state.keys, logger, options)
const cached: SignalKeyStore = makeCacheableSignalKeyStore(auth.state.keys, logger)
makeWASocket({ auth: { creds: auth.state.creds, keys: makeCacheableSignalKeyStore(auth.state.keys, logger) } })

const found = await keys.get('pre-key', ['1'])
await keys.set({ 'pre-key': { 1: found['1'] ?? null }, session: { 'a.0': new Uint8Array(1) } })
await auth.state.keys.clear()
for await (const [id, value] of auth.state.keys.list('session')) console.log(id, value)
for await (const id of auth.state.keys.listIds('session')) console.log(id.length)

const patient = await useRemoteAuthState({ ...where, baileys, waitMs: 70_000 })
await patient.delete()
await patient.delete({ purge: true })
// @ts-expect-error -- nothing else can be asked of it
await patient.delete({ force: true })
const detail: string | undefined = new LostError(new FencedError()).detail
await useRemoteAuthState({ ...where, baileys: { proto: baileys.proto, initAuthCreds: baileys.initAuthCreds } })

const passed: RemoteAuthState<typeof baileys> = auth
const asked: RemoteAuthStateOptions<typeof baileys> = { ...where, baileys }
await auth.close()
export { asked, cached, detail, LostError, passed, state, wrapped }
