/** The libraries people use, as their documentation says; each loaded for itself. */

/** One pool for all sessions: given a configuration it would make a pool a session. */
export async function postgresBaileys({ url }) {
  const { default: pg } = await import('pg')
  const { default: library } = await import('postgres-baileys')
  const pool = new pg.Pool({ connectionString: url })
  pool.on('error', () => {})
  // The library does not wait for its table, so that the first session would not find it.
  await pool.query('CREATE TABLE IF NOT EXISTS auth_data (session_key VARCHAR(255) PRIMARY KEY, data TEXT NOT NULL)')
  return {
    async open(session) {
      const { state, saveCreds } = await library.usePostgreSQLAuthState(pool, session)
      return { state, saveCreds, close: async () => {} }
    },
    end: () => pool.end(),
  }
}

/** One connection for the whole process: a global of the library. */
export async function mysqlBaileys({ host, port, user, password, database }) {
  const { default: library } = await import('mysql-baileys')
  return {
    async open(session) {
      const { state, saveCreds } = await library.useMySQLAuthState({ session, host, port, user, password, database })
      return { state, saveCreds, close: async () => {} }
    },
    // It has no way to close: its connection ends with the process.
    end: async () => {},
  }
}

const credentials = (EntitySchema) =>
  new EntitySchema({
    name: 'Credentials',
    properties: {
      id: { type: 'number', primary: true },
      sessionId: { type: 'string', unique: true, index: true },
      creds: { type: 'json', columnType: 'jsonb', nullable: true },
      keys: { type: 'json', columnType: 'jsonb', nullable: true },
      createdAt: { type: 'Date', onCreate: () => new Date() },
      updatedAt: { type: 'Date', onCreate: () => new Date(), onUpdate: () => new Date() },
    },
  })

/** Redis in front, one row a session in Postgres behind it. */
export async function waAuthStore({ url, redisUrl }) {
  const { EntitySchema, MikroORM } = await import('@mikro-orm/core')
  const { PostgreSqlDriver } = await import('@mikro-orm/postgresql')
  const { BaileysAuthStore, BaileysOrmAdapter, BaileysRedisAdapter, useBaileysAuthState } = await import('wa-auth-store')
  const Credentials = credentials(EntitySchema)
  const orm = await MikroORM.init({ entities: [Credentials], driver: PostgreSqlDriver, clientUrl: url, debug: false })
  await orm.schema.updateSchema()
  const redis = new BaileysRedisAdapter(redisUrl)
  await redis.connect()
  const store = new BaileysAuthStore(redis, new BaileysOrmAdapter(orm.em, Credentials))
  return {
    async open(session) {
      const { state, saveCreds } = await useBaileysAuthState(store, session)
      return { state, saveCreds, close: async () => {} }
    },
    end: () => Promise.all([orm.close(), redis.disconnect()]),
  }
}
