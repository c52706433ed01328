/** This project's service: through its client as shipped, and through bare HTTP to tell the client's part. */
import { Agent, request as httpRequest } from 'node:http'
import { decode, encode } from '../codec.mjs'
import { revived } from './shared.mjs'

/** @param options of `useRemoteAuthState`, on top of where and who. */
export async function client({ url, token, options = {} }, baileys) {
  const { useRemoteAuthState } = await import('../../../client/dist/esm/index.js')
  const failed = []
  return {
    async open(session) {
      const auth = await useRemoteAuthState({ url, token, session, baileys, ...options })
      auth.on('lost', (why) => failed.push(why))
      return auth
    },
    async end() {
      if (failed.length > 0) throw failed[0]
    },
  }
}

/** The HTTP API alone: no lease, no memory, no queue; one request a call over kept connections. */
export function bareHttp({ url, token }, baileys) {
  const { hostname, port } = new URL(url)
  const agent = new Agent({ keepAlive: true, noDelay: true })
  const call = (method, path, body) => exchange({ agent, hostname, port, method, path }, token, body)
  return {
    async open(session) {
      const path = `/v1/sessions/${session}`
      const found = await call('GET', `${path}/creds`)
      const creds = found === undefined ? baileys.initAuthCreds() : decode(found)
      const commit = (body) => call('POST', `${path}/commit`, body)
      const keys = {
        async get(type, ids) {
          const text = await call('POST', `${path}/keys/get`, JSON.stringify({ [type]: ids }))
          const values = text === undefined ? {} : (decode(text)[type] ?? {})
          for (const id in values) values[id] = revived(type, values[id], baileys)
          return values
        },
        set: (data) => commit(`{"keys":${encode(data)}}`),
      }
      return {
        state: { creds, keys },
        saveCreds: () => commit(`{"creds":${encode(creds)}}`),
        close: async () => {},
      }
    },
    end: async () => agent.destroy(),
  }
}

/** @returns the answer's text; undefined for 404. */
function exchange(where, token, body) {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  if (body !== undefined) headers['content-length'] = Buffer.byteLength(body)
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ ...where, headers }, (answer) => {
      const chunks = []
      answer.on('data', (chunk) => chunks.push(chunk))
      answer.on('error', reject)
      answer.on('end', () => {
        const status = answer.statusCode
        if (status === 404) resolve(undefined)
        else if (status < 300) resolve(Buffer.concat(chunks).toString('utf8'))
        else reject(new Error(`the service answered ${status}`))
      })
    })
    asked.on('error', reject)
    asked.end(body)
  })
}
