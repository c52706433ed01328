/** The identity: never another one, never a part of it, never two owners. */
import assert from 'node:assert/strict'

export const CREDS_CASES = [
  {
    name: 'a new session has creds that the next life finds, once saved',
    why: 'the identity a phone was paired with',
    async run(bed) {
      const first = await bed.open()
      first.state.creds.nextPreKeyId = 31
      first.state.creds.routingInfo = Buffer.from([1, 2])
      first.state.creds.me = { id: '15550000000:1@s.whatsapp.net', name: 'x\ud83d' }
      await first.saveCreds()
      const { creds } = (await bed.reopen(first)).state
      assert.deepEqual(creds.signedIdentityKey, first.state.creds.signedIdentityKey)
      assert.deepEqual(creds.signedPreKey, first.state.creds.signedPreKey)
      assert.equal(creds.nextPreKeyId, 31)
      assert.deepEqual(creds.routingInfo, Buffer.from([1, 2]))
      assert.deepEqual(creds.me, first.state.creds.me)
    },
  },
  {
    name: 'creds that were handed out are the creds that are stored',
    why: 'a crash before the first save must not leave a phone paired with nobody',
    async run(bed) {
      const first = await bed.open()
      const { signedIdentityKey } = first.state.creds
      assert.deepEqual((await bed.reopen(first)).state.creds.signedIdentityKey, signedIdentityKey, 'another identity')
    },
  },
  {
    name: 'saves that nobody waited for arrive in their order',
    why: 'Baileys emits creds.update several times a second while it logs in',
    async run(bed) {
      const first = await bed.open()
      const { creds } = first.state
      const saves = []
      for (let n = 1; n <= 50; n++) {
        creds.nextPreKeyId = n
        creds.lastPropHash = 'x'.repeat((50 - n) * 20_000)
        saves.push(first.saveCreds())
      }
      await Promise.all(saves)
      assert.equal((await bed.reopen(first)).state.creds.nextPreKeyId, 50)
    },
  },
  {
    name: 'creds that cannot be read are an error, not a new identity',
    why: 'the phone would be logged out, and nobody told why',
    needs: 'damage',
    async run(bed) {
      const first = await bed.open()
      await first.saveCreds()
      await bed.end(first)
      await bed.store.damage(bed.name)
      await assert.rejects(bed.open(), 'a new identity was made')
    },
  },
  {
    name: 'a session has one owner',
    why: 'two that move one ratchet make messages nobody can read',
    async run(bed) {
      await bed.open()
      await assert.rejects(bed.open(), 'a second owner was let in')
    },
  },
]
