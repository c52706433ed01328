/**
 * HTTP/1.1 over kept connections, one exchange at a time on each: what node:http does, at a fraction of its cost.
 *
 * Everything asked of the store may be asked twice, so a connection that the other side had closed in the meantime is
 * replaced without a word.
 */
import type { Socket } from 'node:net'
import { AnswerReader } from './answer-reader.js'
import type { RawAnswer } from './answer-reader.js'
import { opener, whyOf } from './sockets.js'
import type { TlsOptions } from './sockets.js'

export type { TlsOptions }

/** More would only queue in the service, and each costs it memory. */
const MOST_CONNECTIONS = 32

/** Shorter than what lies between keeps a silent connection in mind. */
const LONGEST_IDLE_MS = 30_000

/** From so many characters on a body is sent beside its head. */
const LONG_BODY = 32_768

export interface RawCall {
  method: string
  path: string
  /** Lines, each with its end. */
  headers: string
  body?: string | undefined
  background?: boolean | undefined
}

/** A request on its way: its head is ASCII. */
interface Message {
  head: string
  body?: string
  encoding?: 'latin1' | 'utf8'
  background?: boolean
}

export class Connections {
  readonly #open: () => Socket
  /** Host header, and the path in front of every other. */
  readonly #host: string
  readonly #prefix: string
  readonly #idle: Connection[] = []
  readonly #waiting: ((connection: Connection | undefined) => void)[] = []
  #count = 0
  #sweeping: NodeJS.Timeout | undefined
  #closed = false
  /** What may be the matter where nothing was ever answered. */
  #guess: string

  readonly #longestIdleMs: number

  /** @param url `http://…`, `https://…`, or `unix:/path/of/the.socket`. @throws TypeError for another one. */
  constructor(url: URL, tls: TlsOptions = {}, longestIdleMs = LONGEST_IDLE_MS) {
    this.#longestIdleMs = longestIdleMs
    this.#host = url.host || 'localhost'
    this.#prefix = url.protocol === 'unix:' ? '' : url.pathname.replace(/\/$/, '')
    this.#open = opener(url, tls)
    this.#guess = url.protocol === 'http:' ? ' (is it https?)' : ''
  }

  /** @throws Error without an answer: unreachable, cut off, late, aborted, or not HTTP. */
  exchange(call: RawCall, timeoutMs: number, signal?: AbortSignal): Promise<RawAnswer> {
    return this.ask(call, (answer) => answer, timeoutMs, signal)
  }

  /** @returns what `read` makes of the answer; what it calls foreign ends the connection, which may be out of step. */
  async ask<T>(call: RawCall, read: (answer: RawAnswer) => T, timeoutMs: number, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const message = this.#messageOf(call)
    if (call.background) message.background = true
    const end = performance.now() + timeoutMs
    for (;;) {
      const connection = this.#takeIdle() ?? (await this.#take(timeoutMs))
      const { used } = connection
      try {
        // While it waited for the connection, too.
        signal?.throwIfAborted()
        const answer = await connection.exchange(message, end, signal)
        this.#guess = ''
        return read(answer)
      } catch (error) {
        if (error instanceof Foreign) connection.destroy()
        else if (used && error instanceof Late) this.#dropSilent(error.since)
        if (!used || !(error instanceof Stale) || signal?.aborted) throw this.#told(error)
      } finally {
        this.#give(connection)
      }
    }
  }

  /** Closes what is idle; what is under way ends with its answer. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#sweeping)
    for (const connection of this.#idle.splice(0)) connection.destroy()
  }

  /** A server of TLS hangs up on who does not speak it. */
  #told(error: unknown): unknown {
    const isGuess = this.#guess !== '' && error instanceof Mute && HANG_UPS.has(error.message)
    return isGuess ? new Error(error.message + this.#guess) : error
  }

  #messageOf({ method, path, headers, body }: RawCall): Message {
    const head = `${method} ${this.#prefix}${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${headers}`
    if (body === undefined) return { head: method === 'GET' ? `${head}\r\n` : `${head}content-length: 0\r\n\r\n` }
    const length = Buffer.byteLength(body)
    // Latin-1 leaves ASCII as it is, without a look at each character.
    const encoding = length === body.length ? 'latin1' : 'utf8'
    return { head: `${head}content-type: application/json\r\ncontent-length: ${length}\r\n\r\n`, body, encoding }
  }

  #takeIdle(): Connection | undefined {
    for (let idle = this.#idle.pop(); idle; idle = this.#idle.pop()) {
      if (idle.usable) return idle
      this.#count--
    }
    return undefined
  }

  async #take(timeoutMs: number): Promise<Connection> {
    if (this.#count < MOST_CONNECTIONS) return this.#connect()
    const given = await new Promise<Connection | undefined>((resolve, reject) => {
      const late = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1)
        reject(new Error('no connection came free in time'))
      }, timeoutMs)
      const take = (connection: Connection | undefined): void => {
        clearTimeout(late)
        resolve(connection)
      }
      this.#waiting.push(take)
    })
    return given ?? this.#connect()
  }

  #connect(): Connection {
    // A TLS option may be one that throws.
    const connection = new Connection(this.#open())
    this.#count++
    return connection
  }

  #give(connection: Connection): void {
    const kept = connection.usable && !this.#closed
    if (!kept) {
      connection.destroy()
      this.#count--
    }
    const next = this.#waiting.shift()
    if (next) next(kept ? connection : undefined)
    else if (kept) this.#rest(connection)
  }

  /** What kept one connection from answering may keep all of its age: those are not to use up a deadline each. */
  #dropSilent(since: number): void {
    for (const connection of [...this.#idle]) if (connection.heardAt < since) this.#drop(connection)
  }

  #drop(connection: Connection): void {
    const index = this.#idle.indexOf(connection)
    if (index < 0) return
    this.#idle.splice(index, 1)
    this.#count--
    connection.destroy()
  }

  /** One timer for all, and none while nothing is idle. */
  #sweep(): void {
    this.#sweeping ??= setTimeout(() => {
      this.#sweeping = undefined
      this.#dropSilent(performance.now() - this.#longestIdleMs)
      if (this.#idle.length > 0) this.#sweep()
    }, this.#longestIdleMs).unref()
  }

  #rest(connection: Connection): void {
    this.#idle.push(connection)
    this.#sweep()
    connection.onIdleEnd = () => {
      this.#drop(connection)
    }
  }
}

/** An answer that is not one to what was asked. */
export class Foreign extends Error {
  /** @param failure what it means to who asked, if not just that there was no answer. */
  constructor(
    message: string,
    readonly failure?: Error,
  ) {
    super(message)
  }
}

/** An answer that did not come in time. */
export class Late extends Error {
  /** @param since when the request left, on the clock of `performance.now()`. */
  constructor(readonly since: number) {
    super('no answer in time')
  }
}

/** A connection that ended before anything of HTTP came. */
class Mute extends Error {}

/** And before a byte came: one that was kept had ended already. */
class Stale extends Mute {}

/** Ends of a connection that there was. */
const HANG_UPS = new Set(['ended', 'closed', 'ECONNRESET', 'EPIPE'])

class Connection {
  readonly #socket: Socket
  #reader: AnswerReader | undefined
  #finish: ((error: Error | undefined) => void) | undefined
  #deadline = 0
  #alarm: NodeJS.Timeout | undefined
  /** When the alarm goes off: it is left alone while that is not past the deadline. */
  #alarmAt = 0
  #sentAt = 0
  used = false
  /** When something last came, on the clock of `performance.now()`. */
  heardAt = 0
  onIdleEnd: (() => void) | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#onData(chunk)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#onEnd(whyOf(error))
    })
    socket.on('close', () => {
      this.#onEnd('closed')
    })
    socket.on('end', () => {
      this.#onEnd('ended')
    })
  }

  get usable(): boolean {
    return !this.#socket.destroyed && this.#socket.readable && this.#socket.writable
  }

  destroy(): void {
    clearTimeout(this.#alarm)
    this.#socket.destroy()
  }

  /** @param deadline on the clock of `performance.now()`. */
  exchange(message: Message, deadline: number, signal?: AbortSignal): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const reader = new AnswerReader()
      const abort = (): void => {
        this.#finish?.(new Error('aborted'))
      }
      this.#sentAt = performance.now()
      this.#watch(deadline)
      signal?.addEventListener('abort', abort)
      this.#reader = reader
      this.#finish = (error) => {
        signal?.removeEventListener('abort', abort)
        this.#finish = this.#reader = undefined
        this.used = true
        if (error ?? !reader.keepsAlive) this.#socket.destroy()
        // An idle connection keeps no process alive.
        else this.#socket.unref()
        if (error) reject(error)
        else resolve(reader.answer)
      }
      if (message.background) this.#socket.unref()
      else this.#socket.ref()
      this.#send(message)
    })
  }

  #send({ head, body = '', encoding = 'latin1' }: Message): void {
    const socket = this.#socket
    if (body.length < LONG_BODY) {
      socket.write(head + body, encoding)
      return
    }
    // Put together they would be copied once more.
    socket.cork()
    socket.write(head, 'latin1')
    socket.write(body, encoding)
    socket.uncork()
  }

  /** One timer serves many exchanges, and keeps no process alive: the socket does, while an answer is due. */
  #watch(deadline: number): void {
    this.#deadline = deadline
    if (this.#alarm && this.#alarmAt <= deadline) return
    clearTimeout(this.#alarm)
    this.#alarmAt = deadline
    this.#alarm = setTimeout(() => {
      this.#onAlarm()
    }, deadline - performance.now()).unref()
  }

  #onAlarm(): void {
    this.#alarm = undefined
    if (!this.#finish) return
    if (performance.now() < this.#deadline) this.#watch(this.#deadline)
    else this.#finish(new Late(this.#sentAt))
  }

  #onData(chunk: Buffer): void {
    this.heardAt = performance.now()
    const reader = this.#reader
    if (!reader) {
      this.#socket.destroy()
      return
    }
    try {
      if (reader.push(chunk)) this.#finish?.(undefined)
    } catch (error) {
      this.#finish?.(error as Error)
    }
  }

  #onEnd(why: string): void {
    const reader = this.#reader
    if (reader?.endsWithConnection()) this.#finish?.(undefined)
    else if (reader?.began === false) this.#finish?.(new Stale(why))
    else this.#finish?.(reader?.isHttp === false ? new Mute(why) : new Error(why))
    this.destroy()
    this.onIdleEnd?.()
    this.onIdleEnd = undefined
  }
}
