/**
 * What Baileys takes for granted of its store, as cases that run against any: `runSuite` for programs, `run.mjs` for
 * people.
 *
 * A store is told of by an object:
 *
 *     {
 *       baileys,              the imported release
 *       open(name, {life}),   -> {state: {creds, keys}, saveCreds, close?}; the same name is the same session, opened
 *                             anew after `close`; `life: 'after a crash'` when the process before had no time to close
 *       spawn?(name),         -> {lines, kill}: a process of its own, see `crash-child.mjs`
 *       damage?(name)         makes what is stored of creds unreadable
 *     }
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { CREDS_CASES } from './cases/creds.mjs'
import { KEYS_CASES } from './cases/keys.mjs'
import { WRITES_CASES } from './cases/writes.mjs'

/** @typedef {{name: string, why: string, run: (bed: Bed) => Promise<void>, needs?: string}} Case */

/** @type {Case[]} */
export const CASES = [...KEYS_CASES, ...WRITES_CASES, ...CREDS_CASES]

/** @typedef {{name: string, why: string, outcome: 'kept' | 'broken' | 'not tried', detail?: string}} Result */

/**
 * @param store as above
 * @param {{only?: string, timeoutMs?: number}} [options] `only`: cases with this in their name
 * @returns {Promise<Result[]>} one a case
 */
export async function runSuite(store, { only = '', timeoutMs = 60_000 } = {}) {
  const results = []
  for (const { name, why, run, needs } of CASES.filter((each) => each.name.includes(only))) {
    if (needs && !store[needs]) {
      results.push({ name, why, outcome: 'not tried', detail: `the store has no ${needs}` })
      continue
    }
    const bed = new Bed(store)
    const failed = await within(run(bed), timeoutMs)
    await bed.close()
    results.push({ name, why, outcome: failed ? 'broken' : 'kept', ...(failed && { detail: firstLine(failed) }) })
  }
  return results
}

/** One session under test, through its lives. */
class Bed {
  #open = []

  constructor(store) {
    this.store = store
    this.baileys = store.baileys
    this.name = `conformance-${randomUUID()}`
  }

  /** @returns `{state, saveCreds, close}` of the session's next life */
  async open(options = {}) {
    const opened = await this.store.open(this.name, options)
    this.#open.push(opened)
    return opened
  }

  async reopen(opened) {
    await this.end(opened)
    return this.open()
  }

  async end(opened) {
    this.#open = this.#open.filter((each) => each !== opened)
    await opened.close?.()
  }

  async close() {
    for (const opened of this.#open.splice(0)) await Promise.resolve(opened.close?.()).catch(() => {})
  }

  /** Sets, and expects the same back: at once, and in the next life. */
  async keeps(type, values, same = assert.deepEqual) {
    const first = await this.open()
    await first.state.keys.set({ [type]: values })
    const ids = Object.keys(values)
    const check = (found, when) => {
      for (const id of ids) same(found[id], values[id], `${when}: ${type} ${JSON.stringify(id)}`)
    }
    check(await first.state.keys.get(type, ids), 'at once')
    const second = await this.reopen(first)
    check(await second.state.keys.get(type, ids), 'opened anew')
    await this.end(second)
  }
}

async function within(run, timeoutMs) {
  let timer
  const late = new Promise((resolve) => {
    timer = setTimeout(() => resolve(new Error('did not come to an end')), timeoutMs)
  })
  try {
    return await Promise.race([run.then(() => undefined, (error) => error ?? new Error('failed')), late])
  } finally {
    clearTimeout(timer)
  }
}

function firstLine({ message }) {
  const line = String(message).split('\n').find((each) => each.trim() !== '') ?? ''
  return line.length > 100 ? `${line.slice(0, 100)}…` : line
}
