/** The release of Baileys that CONFORMANCE_BAILEYS names, as it is installed; `baileys` unless told. */

/** @returns {Promise<typeof import('baileys-7.0.0-rc14')>} */
export async function release() {
  const module = await import(process.env.CONFORMANCE_BAILEYS ?? 'baileys')
  // Imported into ESM, CommonJS releases show some of their members under `default` only.
  return module.proto ? module : module.default
}
