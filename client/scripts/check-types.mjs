/**
 * Compiles `test/types` and the bot against each Baileys release tested, under both names it is published by, as the
 * projects of users do: ES modules resolved as Node and as bundlers do it, and CommonJS. Needs `npm run build`.
 */
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const VERSIONS = ['6.7.24', '6.17.16', '7.0.0-rc14']
const NAMES = { baileys: 'baileys', '@whiskeysockets/baileys': 'whiskeysockets' }
const WAYS = {
  'ESM, resolved by Node': { file: 'esm.mts', module: 'NodeNext', moduleResolution: 'NodeNext' },
  'ESM, resolved by a bundler': { file: 'esm.mts', module: 'ESNext', moduleResolution: 'Bundler' },
  CommonJS: { file: 'commonjs.cts', module: 'NodeNext', moduleResolution: 'NodeNext', only: ['6.17.16'] },
  'the bot': { file: '../../examples/bot.mjs', module: 'NodeNext', moduleResolution: 'NodeNext', loose: true },
}

/** @returns what the compiler has to say, a line each. */
function complaints(folder, { file, module, moduleResolution, loose }) {
  const { options, errors } = ts.convertCompilerOptionsFromJson(
    {
      target: 'ES2022',
      lib: ['ES2022', 'DOM'],
      types: ['node'],
      // JavaScript names no types of parameters.
      strict: !loose,
      allowJs: true,
      checkJs: true,
      skipLibCheck: true,
      noEmit: true,
      module,
      moduleResolution,
      // Installed by other names, so that all releases lie side by side.
      paths: { baileys: [`${ROOT}node_modules/${folder}/lib/index.d.ts`] },
    },
    ROOT,
  )
  const program = ts.createProgram([`${ROOT}test/types/${file}`], options, reusing(ts.createCompilerHost(options)))
  const host = { getCurrentDirectory: () => ROOT, getCanonicalFileName: (name) => name, getNewLine: () => '\n' }
  const used = program.getSourceFiles().some(({ fileName }) => fileName.includes(`/node_modules/${folder}/lib/`))
  if (!used) throw new Error(`${folder} was not looked at`)
  return [...errors, ...ts.getPreEmitDiagnostics(program)].map((each) => ts.formatDiagnostic(each, host))
}

const libraries = new Map()

/** Reads TypeScript's own libraries once, which is half of the work. */
function reusing(host) {
  const read = host.getSourceFile.bind(host)
  host.getSourceFile = (name, ...rest) => {
    if (!name.includes('/typescript/lib/lib.')) return read(name, ...rest)
    if (!libraries.has(name)) libraries.set(name, read(name, ...rest))
    return libraries.get(name)
  }
  return host
}

let bad = 0
for (const version of VERSIONS) {
  for (const [name, prefix] of Object.entries(NAMES)) {
    for (const [label, { only, ...way }] of Object.entries(WAYS)) {
      if (only && !only.includes(version)) continue
      const found = complaints(`${prefix}-${version}`, way)
      if (found.length === 0) continue
      bad++
      process.stderr.write(`${name} ${version}, ${label}:\n${found.join('')}\n`)
    }
  }
}
process.exitCode = bad > 0 ? 1 : 0
