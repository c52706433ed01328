// The package is ESM; Node decides per folder, so the CommonJS build needs its own marker.
import { writeFileSync } from 'node:fs'

writeFileSync(new URL('../dist/cjs/package.json', import.meta.url), '{ "type": "commonjs" }\n')
