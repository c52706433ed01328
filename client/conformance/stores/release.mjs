/** The release of Baileys to run with: that of CONFORMANCE_BAILEYS, or the first of these that is installed. */
const NAMES = ['baileys', '@whiskeysockets/baileys', 'baileys-7.0.0-rc14']

/** @returns {Promise<typeof import('baileys-7.0.0-rc14')>} */
export async function release() {
  const module = await import(process.env.CONFORMANCE_BAILEYS ?? NAMES.find(isInstalled) ?? 'baileys')
  // Imported into ESM, CommonJS releases show some of their members under `default` only.
  return module.proto ? module : module.default
}

function isInstalled(name) {
  try {
    return Boolean(import.meta.resolve(name))
  } catch {
    return false
  }
}
