// Runs every test/*.test.mjs, two files at a time: most of the time they wait for services that come and go.
// `node --test` has an option for that only from 20.10 on, and one file at a time on two cores without it.
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from 'node:test'
import { tap } from 'node:test/reporters'

/** Of a file: one that hangs is a failure, not a run without end. The longest take half a minute. */
const LONGEST_MS = 300_000
const folder = fileURLToPath(new URL('../test/', import.meta.url))
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.test.mjs'))
  .map((name) => folder + name)

if (files.length === 0) throw new Error('no tests')
run({ files, concurrency: 2, timeout: LONGEST_MS })
  .on('test:fail', () => (process.exitCode = 1))
  .compose(tap)
  .pipe(process.stdout)
