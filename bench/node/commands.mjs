/** A process that is told what to do: one JSON command a line on stdin, one JSON answer a line on stdout. */
import { createInterface } from 'node:readline'

/** @param commands by name, each a function of the command's other members; ends the process with its input. */
export async function obey(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...rest } = JSON.parse(line)
    let answer
    try {
      answer = (await commands[name](rest)) ?? {}
    } catch (error) {
      // Drivers quote whole statements with their values.
      answer = { error: `${error.name}: ${error.message.slice(0, 120)}` }
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`)
  }
  process.exit(0)
}
