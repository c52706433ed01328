/** The `spawn` of a store that is described by a module. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const CHILD = fileURLToPath(new URL('./crash-child.mjs', import.meta.url))

/** @param {string} module the file whose default export makes the store, in the child too; its environment is ours */
export function spawnOf(module) {
  return (name) => {
    const child = spawn(process.execPath, [CHILD, module, name], { stdio: ['ignore', 'pipe', 'inherit'] })
    const exited = once(child, 'exit')
    const answered = Promise.race([
      once(child.stdout, 'data'),
      exited.then(() => {
        throw new Error('the process ended before the store had answered')
      }),
    ])
    answered.catch(() => {})
    const kill = async () => {
      child.kill('SIGKILL')
      await exited
    }
    return { answered, kill }
  }
}
