/** What callers may ask for: each option of the kind it has to be, before anything is asked of the store. */
import type { RemoteAuthStateOptions } from './auth-state.js'
import type { BaileysModule } from './codec.js'
import { RefusedError } from './errors.js'

/** Node fires a timer beyond this at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

type Check = (value: unknown) => boolean

const isMs: Check = (value) => typeof value === 'number' && value > 0
const isTimer: Check = (value) => isMs(value) && (value as number) <= LONGEST_TIMER_MS
const isCount: Check = (value) => typeof value === 'number' && value >= 0

const OPTIONAL: Record<string, readonly [Check, string]> = {
  tls: [(value) => typeof value === 'object' && value !== null, 'an object'],
  holder: [(value) => typeof value === 'string' && value !== '', 'a text that is not empty'],
  ttl: [(value) => typeof value === 'number' && value >= 1 && value <= 3600, 'a number of seconds from 1 to 3600'],
  takeover: [(value) => typeof value === 'boolean', 'true or false'],
  memoryBytes: [isCount, 'a number of bytes'],
  commitDeadlineMs: [isMs, 'a number of milliseconds above 0'],
  openDeadlineMs: [isMs, 'a number of milliseconds above 0'],
  waitMs: [isCount, 'a number of milliseconds'],
  requestTimeoutMs: [isTimer, `a number of milliseconds from 1 to ${LONGEST_TIMER_MS}`],
}
const SESSION_NAME = /^(?!\.{1,2}$)[A-Za-z0-9._:@+-]{1,128}$/
const NEEDED = ['url', 'token', 'session', 'baileys']

/**
 * @returns the options, with the token as a header takes it and all that Baileys has to bring.
 * @throws TypeError that names the option, RefusedError for a name no session can have.
 */
export function checked<B extends BaileysModule>(options: RemoteAuthStateOptions<B>): RemoteAuthStateOptions<B> {
  if (typeof options !== 'object' || (options as unknown) === null) throw new TypeError('the options are an object')
  for (const name of Object.keys(options)) {
    if (!NEEDED.includes(name) && !Object.hasOwn(OPTIONAL, name)) throw new TypeError(`there is no option ${name}`)
  }
  for (const [name, [check, what]] of Object.entries(OPTIONAL)) {
    const value = (options as unknown as Record<string, unknown>)[name]
    if (value !== undefined && !check(value)) throw new TypeError(`the option ${name} has to be ${what}`)
  }
  const { session } = options
  if (typeof session !== 'string') throw new TypeError('the option session has to be a text: the name of the session')
  if (!SESSION_NAME.test(session)) {
    const what = 'a session name is 1 to 128 characters of A-Z a-z 0-9 . _ : @ + -, and neither . nor ..'
    throw new RefusedError(422, 'session-name', what)
  }
  const { url, token, baileys } = options
  return { ...options, url: addressIn(url), token: tokenIn(token), baileys: whole(baileys) as B }
}

/** @throws TypeError without the address: it may hold a password. */
function addressIn(url: unknown): URL {
  const known = 'http://…, https://… or unix:/path/of/the.socket'
  if (!(url instanceof URL) && (typeof url !== 'string' || url === '')) {
    throw new TypeError(`the option url has to be the address of the service: ${known}`)
  }
  if (typeof url === 'string' && !/^(https?:\/\/|unix:)/i.test(url.trim())) {
    throw new TypeError(`the option url has to begin with http://, https:// or unix: (${known})`)
  }
  try {
    return new URL(url)
  } catch {
    throw new TypeError('the option url is not an address: look at its host and its port')
  }
}

/** A token that was read from a file ends with the file's last line. */
function tokenIn(token: unknown): string {
  const trimmed = typeof token === 'string' ? token.replace(/[\r\n]+$/, '') : ''
  if (trimmed === '') throw new TypeError('the option token has to be a text that is not empty: a token of the service')
  return trimmed
}

type MaybeWrapped = Partial<BaileysModule> & { default?: MaybeWrapped }

/**
 * Imported into ESM, CommonJS releases show some of their members under `default` only: 6.17.16 its `proto`. Bundlers
 * and `import()` in CommonJS may put one more around that.
 */
function whole(baileys: unknown): BaileysModule {
  const found: { [Name in keyof BaileysModule]?: BaileysModule[Name] | undefined } = {}
  let layer = baileys as MaybeWrapped | null | undefined
  for (let depth = 0; layer && depth < 3; depth++, layer = layer.default) {
    found.proto ??= layer.proto
    found.initAuthCreds ??= layer.initAuthCreds
  }
  if (!found.proto || !found.initAuthCreds) {
    throw new TypeError(
      "the option baileys has to be the imported module, all of it (import * as baileys from 'baileys', " +
        'not its default export), or just { proto, initAuthCreds }',
    )
  }
  return found as BaileysModule
}
