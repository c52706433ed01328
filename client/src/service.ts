/** One service as all sessions of this process see it: its connections, and one line of commits that leave together. */
import { Admission } from './admission.js'
import { CommitLine } from './commit-line.js'
import type { TlsOptions } from './connections.js'
import { StoreClient } from './http.js'

export interface ServiceAddress {
  url: string | URL
  token: string
  tls?: TlsOptions | undefined
}

interface Known {
  /** Of its address and token. */
  key: string
  tls: TlsOptions | undefined
  service: Service
}

const inUse: Known[] = []

export class Service {
  readonly client: StoreClient
  readonly opens: Admission
  readonly commits: CommitLine
  #users = 0

  private constructor(
    readonly address: string,
    client: StoreClient,
  ) {
    this.client = client
    this.opens = new Admission(() => client.answeredAt)
    this.commits = new CommitLine(client)
  }

  /** @returns the one of this address and token, for another session; each has to `leave` it. */
  static join({ url, token, tls }: ServiceAddress): Service {
    const address = new URL(url)
    const { href } = address
    const key = `${href} ${token}`
    let known = inUse.find((each) => each.key === key && each.tls === tls)
    if (!known) {
      known = { key, tls, service: new Service(href, new StoreClient(address, token, tls)) }
      inUse.push(known)
    }
    known.service.#users++
    return known.service
  }

  leave(): void {
    if (--this.#users > 0) return
    const index = inUse.findIndex(({ service }) => service === this)
    if (index >= 0) inUse.splice(index, 1)
    this.client.close()
  }
}
