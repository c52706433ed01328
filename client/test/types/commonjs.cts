/** The same from CommonJS, which of the releases tested only 6.17.16 can be required from. */
import baileys = require('baileys')
import store = require('baileys-auth-store')

async function main(): Promise<void> {
  const where = { url: 'unix:/run/authstore.sock', token: 'token', session: 'main' }
  const auth = await store.useRemoteAuthState({ ...where, baileys })
  const socket = baileys.makeWASocket({ auth: auth.state })
  socket.ev.on('creds.update', auth.saveCreds)
  // @ts-expect-error -- creds are those of the release, not `any`
  auth.state.creds.noSuchMember = 1
  auth.on('lost', (why: store.LostError) => {
    socket.end(why)
  })
  await auth.close()
}
void main()
