/**
 * Drives the stores for the orchestrator, which tells it by these commands:
 *
 *     make       {store, kind, settings}          a store; settings as its kind wants them
 *     examine    {store}                          does it give back what it was given?
 *     fill       {store, keys?, crowd?}           the sessions that workloads use
 *     prepare    {store, workload, n, crowd?}     outside of what is timed and counted
 *     run        {least?, budgetMs?}              -> {took: [ms], seconds}
 *     finish     {}
 *     load       {store, sessions, keys}          more closed sessions, for size
 *     fillCrowd  {store, crowd}                   a crowd's sessions get the main one's contacts
 *     churn      {store, seconds, crowd}          session updates at full speed -> {updates, p50, p99}
 *     open       {store, sessions, keys}          opens and keeps new sessions, for memory
 *     memory     {}                               -> bytes after a full collection
 *     end        {store}
 */
import * as baileys from 'baileys'
import { encode } from './codec.mjs'
import { obey } from './commands.mjs'
import { makeStore } from './stores/index.mjs'
import { Bed, examine, prepareCrowd, SERIAL } from './workloads.mjs'
import { mix } from './values.mjs'

// Stdout is the orchestrator's; libraries print where they like.
console.log = console.info = console.debug = console.error

const stores = new Map()
const kept = []
let loaded = 0
let current

const same = (left, right) => encode(sorted(left)) === encode(sorted(right))

/** Stores over jsonb reorder members, which loses nothing. */
function sorted(value) {
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) return value.map(sorted)
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, member]) => [name, sorted(member)]))
}

async function serial(op, n, { least = 1, budgetMs = Infinity }) {
  const took = []
  const began = performance.now()
  for (let i = 0; i < n; i++) {
    const start = performance.now()
    await op(i)
    const now = performance.now()
    took.push(now - start)
    if (now - began > budgetMs && took.length >= least) break
  }
  return { took, seconds: (performance.now() - began) / 1000 }
}

const COMMANDS = {
  async make({ store, kind, settings }) {
    const made = await makeStore(kind, settings, baileys)
    stores.set(store, { made, bed: new Bed(made, baileys, store) })
  },

  examine: ({ store }) => examine(stores.get(store).bed, same),

  async fill({ store, keys, crowd = 0 }) {
    const { bed } = stores.get(store)
    await bed.fill(keys)
    await bed.gather(crowd)
  },

  async prepare({ store, workload, n, crowd = 32 }) {
    const { bed } = stores.get(store)
    if (workload === 'w8') {
      const run = await prepareCrowd(bed, n, crowd)
      current = { run: ({ budgetMs = Infinity }) => run(budgetMs) }
    } else {
      const { op, finish } = await SERIAL[workload](bed, n)
      current = { run: (limits) => serial(op, n, limits), finish }
    }
    globalThis.gc?.({ type: 'minor' })
  },

  run: (limits) => current.run(limits),

  async finish() {
    await current.finish?.()
    current = undefined
  },

  async load({ store, sessions, keys }) {
    const { made } = stores.get(store)
    const values = mix(baileys, keys)
    const one = async () => {
      const session = await made.open(`load-${process.pid}-${loaded++}`)
      await session.state.keys.set(values)
      await session.close()
    }
    let next = 0
    const lane = async () => {
      for (; next < sessions; next++) await one()
    }
    await Promise.all([lane(), lane(), lane(), lane()])
  },

  async fillCrowd({ store, crowd }) {
    const { bed } = stores.get(store)
    await bed.gather(crowd)
    for (const session of bed.crowd.slice(0, crowd)) await session.state.keys.set({ session: bed.whole.session })
  },

  async churn({ store, seconds, crowd }) {
    const { bed } = stores.get(store)
    const end = performance.now() + seconds * 1000
    const took = []
    const loop = async (lane) => {
      while (performance.now() < end) {
        const start = performance.now()
        await bed.crowd[lane].state.keys.set({ session: { [bed.address()]: bed.next() } })
        took.push(performance.now() - start)
      }
    }
    await Promise.all(Array.from({ length: crowd }, (_, lane) => loop(lane)))
    took.sort((a, b) => a - b)
    return { updates: took.length, p50: took[took.length >> 1], p99: took[Math.floor(took.length * 0.99)] }
  },

  async open({ store, sessions, keys }) {
    const { made } = stores.get(store)
    for (let n = 0; n < sessions; n++) {
      const session = await made.open(`open-${process.pid}-${kept.length}`)
      // Values of its own: sharing them among sessions would hide what each one costs.
      if (keys > 0) await session.state.keys.set(mix(baileys, keys))
      kept.push(session)
    }
  },

  async memory() {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
    globalThis.gc?.()
    return process.memoryUsage()
  },

  async end({ store }) {
    const { made, bed } = stores.get(store)
    stores.delete(store)
    for (const session of [bed.main, ...bed.crowd, ...kept.splice(0)]) await session?.close()
    await made.end()
  },
}

await obey(COMMANDS)
