/**
 * A process that writes and then waits to be killed: `node crash-child.mjs MODULE NAME`. MODULE's default export makes
 * the store, as for `run.mjs`. Prints `answered` once the store has said yes to the last write.
 */
import { pathToFileURL } from 'node:url'

const [module, name] = process.argv.slice(2)
const { default: make } = await import(pathToFileURL(module))
const { open } = await make()
const { state } = await open(name, {})
for (let n = 0; n < 200; n++) await state.keys.set({ session: { [n]: { n } } })
process.stdout.write('answered\n')
setInterval(() => {}, 1000)
