/** Redis as such stores usually use it, and as well as one could. A hash a session, a field a key. */
import { Redis } from 'ioredis'
import { decode, encode } from '../codec.mjs'
import { keyed, revived } from './shared.mjs'

/** The usual style: one HSET, HGET or HDEL a key, all at once, through BufferJSON. */
export function redisUsual({ url }, baileys) {
  const redis = new Redis(url)
  const { BufferJSON, initAuthCreds } = baileys
  const write = (hash, field, value) =>
    value ? redis.hset(hash, field, JSON.stringify(value, BufferJSON.replacer)) : redis.hdel(hash, field)
  const read = async (hash, field) => {
    const text = await redis.hget(hash, field)
    return text === null ? null : JSON.parse(text, BufferJSON.reviver)
  }
  return {
    async open(session) {
      const hash = `${session}:auth`
      const creds = (await read(hash, 'creds')) ?? initAuthCreds()
      const keys = {
        async get(type, ids) {
          const values = await Promise.all(ids.map((id) => read(hash, `${type}-${id}`)))
          return Object.fromEntries(ids.map((id, n) => [id, revived(type, values[n], baileys)]))
        },
        async set(data) {
          await Promise.all(keyed(data).map(([field, value]) => write(hash, field, value)))
        },
      }
      return { state: { creds, keys }, saveCreds: () => write(hash, 'creds', creds), close: async () => {} }
    },
    end: () => redis.quit(),
  }
}

/** The best one could do by hand: one command a call, one transaction a set, and no replacer. */
export function redisBest({ url }, baileys) {
  const redis = new Redis(url)
  return {
    async open(session) {
      const hash = `${session}:best`
      const text = await redis.hget(hash, 'creds')
      const creds = text === null ? baileys.initAuthCreds() : decode(text)
      const keys = {
        async get(type, ids) {
          const texts = await redis.hmget(hash, ...ids.map((id) => `${type}-${id}`))
          const found = {}
          for (const [n, id] of ids.entries()) {
            if (texts[n] !== null) found[id] = revived(type, decode(texts[n]), baileys)
          }
          return found
        },
        set: (data) => setAtOnce(redis, hash, data),
      }
      return { state: { creds, keys }, saveCreds: () => redis.hset(hash, 'creds', encode(creds)), close: async () => {} }
    },
    end: () => redis.quit(),
  }
}

async function setAtOnce(redis, hash, data) {
  const put = []
  const gone = []
  for (const [field, value] of keyed(data)) {
    if (value) put.push(field, encode(value))
    else gone.push(field)
  }
  if (gone.length === 0) await redis.hset(hash, ...put)
  else if (put.length === 0) await redis.hdel(hash, ...gone)
  else await redis.multi().hset(hash, ...put).hdel(hash, ...gone).exec()
}
