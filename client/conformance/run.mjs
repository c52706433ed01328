#!/usr/bin/env node
/**
 * Runs the suite and prints what a store keeps and what it breaks: `node run.mjs MODULE [part of a case's name]`.
 *
 * MODULE's default export is an async function that makes the store `index.mjs` tells of; `stores/` has examples. Exit
 * code 1: something is broken.
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { runSuite } from './index.mjs'
import { spawnOf } from './spawn.mjs'

const MARKS = { kept: 'kept     ', broken: 'BROKEN   ', 'not tried': 'not tried' }

const [file, only] = process.argv.slice(2)
if (!file) {
  process.stderr.write('usage: node run.mjs MODULE [part of a case’s name]\n')
  process.exit(2)
}
const module = resolve(file)
const { default: make } = await import(pathToFileURL(module))
const store = await make()
const results = await runSuite({ spawn: spawnOf(module), ...store }, { only })
for (const { name, why, outcome, detail } of results) {
  process.stdout.write(`${MARKS[outcome]}  ${name}\n`)
  if (outcome !== 'kept') process.stdout.write(`           ${detail}\n           because: ${why}\n`)
}
const broken = results.filter(({ outcome }) => outcome === 'broken').length
process.stdout.write(`${broken} of ${results.length} broken\n`)
await store.end?.()
process.exit(broken > 0 ? 1 : 0)
