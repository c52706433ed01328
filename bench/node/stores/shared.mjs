/** What several stores do the same way. */

/** @returns `[type-id, value]` of everything in a `set`. */
export function keyed(data) {
  const all = []
  for (const type in data) for (const id in data[type]) all.push([`${type}-${id}`, data[type][id]])
  return all
}

/** @returns a key's value as Baileys expects it: app-state keys as their protobuf message. */
export function revived(type, value, baileys) {
  if (type !== 'app-state-sync-key' || !value) return value
  return baileys.proto.Message.AppStateSyncKeyData.fromObject(value)
}
