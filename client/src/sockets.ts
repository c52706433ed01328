/** Sockets to the store: TCP, TLS, unix. */
import { connect as connectPlain } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { ConnectionOptions } from 'node:tls'

/** Certificates and the like, for `https:` addresses. */
export type TlsOptions = Pick<
  ConnectionOptions,
  'ca' | 'cert' | 'key' | 'passphrase' | 'pfx' | 'servername' | 'rejectUnauthorized' | 'checkServerIdentity'
>

/** @returns why a socket failed. A unix socket is named: by ENOENT alone one would look for a file of one's own. */
export function whyOf(error: NodeJS.ErrnoException & { address?: string; port?: number }): string {
  const { code, message, syscall, address, port } = error
  if (code === undefined) return message
  return syscall === 'connect' && address && port === undefined ? `${code}: the unix socket ${address}` : code
}

/** @returns what opens another connection to the address. @throws TypeError for an address of another kind. */
export function opener(url: URL, tls: TlsOptions): () => Socket {
  const { protocol, pathname } = url
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const common = { noDelay: true, keepAlive: true }
  if (protocol === 'unix:') return () => connectPlain({ path: decodeURIComponent(pathname) })
  if (protocol === 'http:') return () => connectPlain({ ...common, host, port: Number(url.port || 80) })
  if (protocol !== 'https:') throw new TypeError('the store url must be http:, https: or unix:')
  const named = /^[\d.]+$|:/.test(host) ? {} : { servername: host }
  return () => {
    const socket = connectTls({ host, port: Number(url.port || 443), ...named, ...tls })
    return socket.setNoDelay(true).setKeepAlive(true)
  }
}
