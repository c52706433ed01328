/**
 * Every store behind one face: `open(session) -> {state: {creds, keys}, saveCreds, close}` and `end()`.
 *
 * A kind is loaded when asked for, so that a library that does not load leaves out itself alone.
 */
const KINDS = {
  'multi-file': async () => (await import('./files.mjs')).multiFile,
  'postgres-baileys': async () => (await import('./libraries.mjs')).postgresBaileys,
  'mysql-baileys': async () => (await import('./libraries.mjs')).mysqlBaileys,
  'wa-auth-store': async () => (await import('./libraries.mjs')).waAuthStore,
  'redis-usual': async () => (await import('./redis.mjs')).redisUsual,
  'redis-best': async () => (await import('./redis.mjs')).redisBest,
  direct: async () => (await import('./direct.mjs')).direct,
  client: async () => (await import('./service.mjs')).client,
  'bare-http': async () => (await import('./service.mjs')).bareHttp,
}

/** @param {string} kind one of the above @param settings where and how, by kind */
export async function makeStore(kind, settings, baileys) {
  const make = KINDS[kind]
  if (!make) throw new Error(`no store of kind ${kind}`)
  return (await make())(settings, baileys)
}
