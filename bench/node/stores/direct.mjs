/**
 * The strongest store one could write by hand over Postgres: the driver in the same process, named prepared statements,
 * one statement a get and one a set, a narrow table, a codec without replacer. No fencing, no version, no digest.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import pg from 'pg'
import { decode, encode } from '../codec.mjs'
import { keyed, revived } from './shared.mjs'

const TABLE = (column) => `CREATE TABLE IF NOT EXISTS auth_keys (
  session text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, value ${column} NOT NULL, PRIMARY KEY (session, key)
) WITH (fillfactor = 70)`

const GET = 'SELECT key, value FROM auth_keys WHERE session = $1 AND key = ANY($2)'
const PUT = (value) => `INSERT INTO auth_keys SELECT $1, r.key, ${value}
  FROM unnest($2::text[], $3::text[]) AS r(key, value) ON CONFLICT (session, key) DO UPDATE SET value = excluded.value`
const CHANGE = (value) => `WITH gone AS (
  DELETE FROM auth_keys WHERE session = $1 AND key = ANY($4::text[])
) ${PUT(value)}`

/** Values as text in a text column. */
const plain = {
  column: 'text',
  value: 'r.value',
  seal: (value) => encode(value),
  open: (stored) => decode(stored),
}

/** The same through Baileys' own codec, as most stores use it. */
function usual({ BufferJSON: { replacer, reviver } }) {
  return {
    ...plain,
    seal: (value) => JSON.stringify(value, replacer),
    open: (stored) => JSON.parse(stored, reviver),
  }
}

/** Values under AES-256-GCM in a bytea column; base64 on the way, since the driver doubles bytes in arrays. */
function sealed() {
  const key = randomBytes(32)
  return {
    column: 'bytea',
    value: "decode(r.value, 'base64')",
    seal(value) {
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      const body = Buffer.concat([cipher.update(encode(value), 'utf8'), cipher.final()])
      return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64')
    },
    open(stored) {
      const decipher = createDecipheriv('aes-256-gcm', key, stored.subarray(0, 12))
      decipher.setAuthTag(stored.subarray(12, 28))
      return decode(decipher.update(stored.subarray(28), undefined, 'utf8') + decipher.final('utf8'))
    },
  }
}

export async function direct({ url, connections = 16, aes = false, codec = 'fast' }, baileys) {
  const { column, value, seal, open } = aes ? sealed() : codec === 'usual' ? usual(baileys) : plain
  // Without it the planner makes a plan a call for arrays of one element.
  const pool = new pg.Pool({ connectionString: url, max: connections, options: '-c plan_cache_mode=force_generic_plan' })
  pool.on('error', () => {})
  await pool.query(TABLE(column))
  const statements = { put: PUT(value), change: CHANGE(value) }
  const get = (session, names) => pool.query({ name: 'get', text: GET, values: [session, names] })
  const set = (session, entries) => setAtOnce(pool, statements, session, entries, seal)
  return {
    async open(session) {
      const { rows } = await get(session, ['creds'])
      const creds = rows.length > 0 ? open(rows[0].value) : baileys.initAuthCreds()
      const keys = {
        async get(type, ids) {
          const found = {}
          const { rows } = await get(session, ids.map((id) => `${type}-${id}`))
          for (const { key, value } of rows) found[key.slice(type.length + 1)] = revived(type, open(value), baileys)
          return found
        },
        set: (data) => set(session, keyed(data)),
      }
      return { state: { creds, keys }, saveCreds: () => set(session, [['creds', creds]]), close: async () => {} }
    },
    end: () => pool.end(),
  }
}

async function setAtOnce(pool, { put, change }, session, entries, seal) {
  const names = []
  const values = []
  const gone = []
  for (const [name, value] of entries) {
    if (value === null || value === undefined) gone.push(name)
    else {
      names.push(name)
      values.push(seal(value))
    }
  }
  if (gone.length === 0) await pool.query({ name: 'put', text: put, values: [session, names, values] })
  else await pool.query({ name: 'change', text: change, values: [session, names, values, gone] })
}
