/** A proxy in front of the real service that can lose requests, lose answers, answer by itself, or be away. */
import { createServer, request } from 'node:http'

export class Faults {
  #target
  #server = createServer((incoming, outgoing) => this.#pass(incoming, outgoing))
  /** What to do with a request: `undefined` passes it on. @type {(request) => Fault | undefined} */
  rule = () => undefined
  /** Waited for before a request is passed on or answered. */
  delay
  /** Every request seen: `{ method, path, headers, body }`. */
  seen = []
  /** Called when the service has answered, whether or not anybody hears it. */
  onAnswer

  /**
   * @typedef {{ status: number, body: object, headers?: object }} Answer
   * @typedef {'lose-request' | 'lose-answer' | 'cut-answer' | 'hang' | Answer} Fault
   */
  constructor(target) {
    this.#target = new URL(target)
  }

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    this.url = `http://127.0.0.1:${this.#server.address().port}`
    return this
  }

  close() {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  commits() {
    return this.seen.filter(({ path }) => path.endsWith('/commit'))
  }

  async #pass(incoming, outgoing) {
    const chunks = []
    for await (const chunk of incoming) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const { method, url: path, headers } = incoming
    const asked = { method, path, headers, body: body.toString() }
    this.seen.push(asked)
    const fault = this.rule(asked)
    await this.delay?.(asked)
    if (fault === 'hang') return
    if (fault === 'lose-request') return outgoing.destroy()
    if (typeof fault === 'object') {
      // In the name of the service.
      const echo = headers['authstore-echo'] && { 'authstore-echo': headers['authstore-echo'] }
      outgoing.writeHead(fault.status, { 'content-type': 'application/problem+json', ...echo, ...fault.headers })
      return outgoing.end(JSON.stringify(fault.body))
    }
    const { hostname, port } = this.#target
    const onward = request({ hostname, port, method, path, headers }, (answer) => {
      this.onAnswer?.(answer.statusCode)
      if (fault === 'lose-answer') {
        answer.resume().on('end', () => outgoing.destroy())
        return
      }
      outgoing.writeHead(answer.statusCode, answer.headers)
      if (fault === 'cut-answer') {
        answer.once('data', (chunk) => outgoing.write(chunk.subarray(0, -1), () => outgoing.destroy()))
        return
      }
      answer.pipe(outgoing)
    })
    onward.on('error', () => outgoing.destroy())
    onward.end(body)
  }
}

export const problem = (status, slug, headers) => {
  return { status, headers, body: { type: `urn:authstore:problem:${slug}`, title: slug, status } }
}
