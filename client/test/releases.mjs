/** The releases of Baileys that the client is tested with, as npm ships them. */
const NAMES = { '6.7.24': 'baileys-6.7.24', '6.17.16': 'baileys-6.17.16', '7.0.0-rc14': 'baileys-7.0.0-rc14' }

export const VERSIONS = Object.keys(NAMES)

/** @returns {Promise<typeof import('baileys-7.0.0-rc14')>} */
export async function loadRelease(version) {
  const module = await import(NAMES[version])
  // Imported into ESM, 6.17.16 shows some of its members under `default` only.
  return module.proto ? module : module.default
}
