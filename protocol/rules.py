"""The catalogue of integrity rules, and what a breach of one looks like.

A rule is an error when Baileys fails or misbehaves on such state, a warning when the state is odd, wasteful or heals by itself.
Nothing normal is a breach: a closed receiving chain has no key, used pre-keys leave gaps, `registered` is false after a QR
pairing, a registration id may be 0. Severities were measured on real state of 6.7.24, 6.17.16 and 7.0.0-rc.4 to rc14.

``means`` says it to the one whose messages they are, ``do`` to the one who runs the session. A rule with a ``repair`` can be
mended exactly by `authstore check --fix`: nothing is guessed and nothing is lost.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

Severity = Literal["error", "warning"]

CREDS: Final = "creds"
"""The type under which findings name creds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the catalogue."""

    id: str
    severity: Severity
    says: str
    means: str
    do: str
    source: str
    repair: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach of a rule. ``ktype`` is `CREDS` for creds; ``detail`` holds lengths, counts and places, never bytes or ids."""

    rule: str
    ktype: str
    key_id: str = field(default="", repr=False)
    detail: str = ""

    @property
    def severity(self) -> Severity:
        return RULES[self.rule].severity

    @property
    def message(self) -> str:
        """What is wrong, what it means, what to do: three sentences."""
        rule = RULES[self.rule]
        says = f"{rule.says} ({self.detail})" if self.detail else rule.says
        return f"{says}. {rule.means}. {rule.do}."

    @property
    def repair(self) -> str | None:
        """What `check --fix` would do about it, None when nobody can mend it exactly."""
        return RULES[self.rule].repair


_PAIR_AGAIN: Final = "Pair the device again"
_BACKUP: Final = "Restore the session from a backup of its identity, or pair the device again"
# By the API, since the mark covers every row: what is deleted in the database is a finding of its own.
_DELETE: Final = "Delete the row (commit null for it, with the bot stopped)"
_SEND_AGAIN: Final = f"{_DELETE}: Baileys opens a new session with the next message"
_NEW_SENDER_KEY: Final = f"{_DELETE}: the sender sends a new one when asked to retry"
_OWN_SENDER_KEY: Final = (
    "Delete the row and the group's sender-key-memory (commit null for both, with the bot stopped): "
    "Baileys makes and hands out a new one"
)
_NOTHING: Final = "Nothing has to be done"
_WHO_WRITES: Final = "Find out who writes to the database beside the service, and restore from a backup"

_LIBSIGNAL: Final = "libsignal-node session_record.js, session_builder.js, session_cipher.js"
_SENDER_KEYS: Final = "Baileys Signal/Group/sender-key-state.ts, sender-key-record.ts"
_ADV_SOURCE: Final = "Baileys validate-connection.ts, configureSuccessfulPairing"
_CREDS_SOURCE: Final = "Baileys Types/Auth.ts, AuthenticationCreds"
_PRE_KEYS: Final = "Baileys Utils/signal.ts, getNextPreKeys; Signal, X3DH section 2.4"
_APP_STATE: Final = "Baileys Utils/chat-utils.ts, Utils/lt-hash.ts"
_LID: Final = "Baileys Signal/lid-mapping.ts, storeLIDPNMappings"
_STORE: Final = "service/vault.py"


_CREDS_RULES: Final = (
    Rule("creds-missing", "error", "There are keys and no creds",
         "The session cannot connect: its identity is gone", _BACKUP, _CREDS_SOURCE),
    Rule("creds-unreadable", "error", "The creds are not a JSON object",
         "The session cannot connect", _BACKUP, _CREDS_SOURCE),
    Rule("creds-key-pair", "error", "A key pair of the creds does not belong together",
         "WhatsApp or the contacts refuse this device", _BACKUP, "RFC 7748; " + _CREDS_SOURCE),
    Rule("key-unclamped", "warning", "A private key has bits set that X25519 ignores",
         "The key works, but no generator makes such a key: a bit may have flipped", "Compare it with a backup",
         "RFC 7748, section 5"),
    Rule("signed-pre-key-signature", "error", "The signed pre-key does not carry the identity's signature",
         "Nobody can open a new chat with this device", _BACKUP, "Signal, XEdDSA; Baileys Utils/crypto.ts, signedKeyPair"),
    Rule("registration-id", "error", "The registration id is not a whole number from 0 to 16383",
         "WhatsApp refuses the device's pre-keys", _BACKUP, "Baileys Utils/generics.ts, generateRegistrationId"),
    Rule("adv-secret", "error", "The ADV secret is not base64 of 32 bytes",
         "The device cannot be paired", _PAIR_AGAIN, _ADV_SOURCE),
    Rule("account-unreadable", "error", "The account the phone vouched with cannot be read",
         "Contacts reject what this device sends", _PAIR_AGAIN, _ADV_SOURCE),
    Rule("account-signature", "error", "The phone did not vouch for this identity key",
         "Creds of two pairings are mixed: contacts reject what this device sends", _PAIR_AGAIN, _ADV_SOURCE),
    Rule("device-signature", "error", "The device's own signature on its account does not verify",
         "Contacts reject what this device sends", _PAIR_AGAIN, _ADV_SOURCE),
    Rule("signal-identity", "warning", "The phone's identity key is not among the known Signal identities",
         "Messages from one's own phone may be taken for another device's", _NOTHING,
         "Baileys Utils/signal.ts, createSignalIdentity"),
    Rule("me-missing", "error", "The device is paired and does not know whose it is",
         "On the next start a QR code is shown instead of a login", _BACKUP, "Baileys Socket/socket.ts, validateConnection"),
    Rule("me-id", "error", "The device's own address is no address",
         "The session cannot connect; which sender keys are its own cannot be told, so they were not judged", _BACKUP,
         "Baileys WABinary/jid-utils.ts, jidDecode"),
    Rule("account-missing", "error", "There are keys of a paired device and creds without an account",
         "The creds are older than the pairing, or of another: first messages to contacts fail, or a QR code is shown",
         _BACKUP, _ADV_SOURCE),
    Rule("routing-info", "error", "The routing info is not bytes",
         "The session cannot connect", "Take routingInfo out of the creds: WhatsApp sends it again",
         "Baileys Utils/noise-handler.ts"),
    Rule("counter", "error", "A counter of the creds is missing or not a whole number",
         "New pre-keys cannot be made, or replace those that contacts hold", _BACKUP, _CREDS_SOURCE),
    Rule("counter-range", "error", "A counter of pre-keys is beyond the 24 bits that an id has on the wire",
         "Contacts are handed ids cut short, and their first messages do not decrypt (Invalid PreKey ID)",
         "Set it to the highest id in use and one more, or pair the device again",
         "Baileys Utils/signal.ts, xmppPreKey and xmppSignedPreKey"),
)  # fmt: skip

_PRE_KEY_RULES: Final = (
    Rule("pre-key-unreadable", "error", "A pre-key is not a pair of 32-byte keys",
         "A contact who was handed this pre-key cannot start a chat", _DELETE, _PRE_KEYS),
    Rule("pre-key-id", "warning", "A pre-key's id is beyond the 24 bits that it has on the wire",
         "No contact can name it: no counter is put past it either", _DELETE, "Baileys Utils/signal.ts, xmppPreKey"),
    Rule("pre-key-pair", "error", "A pre-key's public half is not its private half's",
         "A contact who was handed this pre-key cannot start a chat", _DELETE, "RFC 7748; " + _PRE_KEYS),
    Rule("pre-key-beyond-counter", "error", "Pre-keys exist that the counters of the creds do not know",
         "The creds are older than the keys: pre-keys that contacts hold will be made again, and their messages do not "
         "decrypt (Bad MAC)", "Run check --fix", _PRE_KEYS, "sets both counters past the highest pre-key"),
    Rule("pre-keys-gone", "error", "Pre-keys were made and none is left",
         "The first message of every new contact is lost (Invalid PreKey ID)",
         "Connect: Baileys uploads new ones; who holds an old one has to write again", _PRE_KEYS),
    Rule("pre-key-newest-missing", "warning", "The newest pre-key is not there",
         "A contact used it, or it was lost; Baileys uploads new ones at the next connect", _NOTHING, _PRE_KEYS),
    Rule("first-unuploaded-beyond-next", "error", "firstUnuploadedPreKeyId is greater than nextPreKeyId",
         "Pre-keys that were never uploaded are skipped", _BACKUP, _PRE_KEYS),
    Rule("unuploaded-missing", "error", "Pre-keys that wait for their upload are not there",
         "The upload of pre-keys fails, and new contacts cannot write", "Set firstUnuploadedPreKeyId to nextPreKeyId",
         _PRE_KEYS),
)  # fmt: skip

_SESSION_RULES: Final = (
    Rule("session-unreadable", "error", "A session record has not the structure of one",
         "Messages with this device of the contact fail", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-unknown-form", "warning", "A session record is in a form this release does not know",
         "It may be sound: it was not checked", "Upgrade the service", "Baileys pull request 2067 (libsignal in wasm)"),
    Rule("session-legacy", "warning", "A session record has no version",
         "libsignal migrates it when it is used", _NOTHING, _LIBSIGNAL),
    Rule("session-version", "error", "A session record has an unknown version",
         "libsignal refuses it: messages with this device of the contact fail", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-index", "error", "A session's index does not fit it",
         "Incoming messages do not find their session", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-ratchet", "error", "A session's ratchet is incomplete",
         "Messages with this device of the contact do not decrypt", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-ratchet-pair", "error", "A session's ratchet key pair does not belong together",
         "Answers of this device of the contact do not decrypt", _SEND_AGAIN, "RFC 7748; " + _LIBSIGNAL),
    Rule("session-chain", "error", "A chain of a session is damaged",
         "Messages of this chain do not decrypt", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-sending-chain", "error", "A session has no usable chain to send with",
         "Sending to this device of the contact fails", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-remote-ratchet", "warning", "The chain of the contact's last ratchet key is not there",
         "Late messages of the contact may not decrypt", _NOTHING, _LIBSIGNAL),
    Rule("session-pending-pre-key", "error", "An unanswered first message does not fit its session",
         "The contact cannot read the first messages", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-registration", "warning", "An open session has no registration id",
         "Baileys takes it for none and opens a new one", _NOTHING, _LIBSIGNAL),
    Rule("session-open-states", "warning", "A session record has not exactly one open state",
         "Baileys opens a new session with the next message", _NOTHING, _LIBSIGNAL),
    Rule("session-states", "warning", "A session record keeps more than 41 states",
         "Each message of this contact gets slower", _SEND_AGAIN, _LIBSIGNAL + ", CLOSED_SESSIONS_MAX"),
    Rule("session-chains", "warning", "A session keeps more than 500 chains",
         "Each message of this contact gets slower", _SEND_AGAIN, _LIBSIGNAL),
    Rule("session-orphan", "warning", "A session is left under a phone number that has a LID by now",
         "Baileys uses the session under the LID; this one only stays", _DELETE,
         "Baileys Signal/libsignal.ts, migrateSession"),
    Rule("identity-key-unreadable", "error", "An identity key is not 33 bytes of type 5",
         "A changed identity of the contact is not noticed", _DELETE, "Baileys Signal/libsignal.ts, saveIdentity"),
    Rule("identity-key-mismatch", "warning", "A session was made with another identity key than the contact's known one",
         "The contact may have a new phone; its next first message resets the session", _NOTHING,
         "Baileys Signal/libsignal.ts, saveIdentity"),
)  # fmt: skip

_SENDER_KEY_RULES: Final = (
    Rule("sender-key-unreadable", "error", "A sender key record has not the structure of one",
         "Messages of this sender to the group do not decrypt", _NEW_SENDER_KEY, _SENDER_KEYS),
    Rule("sender-key-states", "error", "A sender key record keeps more than 5 states",
         "No release of Baileys writes this", _NEW_SENDER_KEY, _SENDER_KEYS),
    Rule("sender-key-chain", "error", "A sender key's chain is damaged",
         "Messages of this sender to the group do not decrypt", _NEW_SENDER_KEY, _SENDER_KEYS),
    Rule("sender-key-message-keys", "error", "A skipped message key of a sender key is damaged",
         "A late message of this sender to the group does not decrypt", _NOTHING, _SENDER_KEYS),
    Rule("sender-key-pair", "error", "A sender key's signing key is damaged",
         "The group rejects what was signed with it", _NEW_SENDER_KEY, "RFC 7748; " + _SENDER_KEYS),
    Rule("own-sender-key-private", "error", "One's own sender key has no private signing key",
         "Messages to this group cannot be sent", _OWN_SENDER_KEY, _SENDER_KEYS),
    Rule("sender-key-legacy", "warning", "A sender key record is in the array form of 6.17.16 and older",
         "7.x cannot read it: messages to and from this group fail there", "Before moving to 7.x convert it: the migrator does",
         "Baileys WASignalGroup (6.x) and Signal/Group (7.x), measured"),
    Rule("sender-key-lost-keys", "warning", "Skipped message keys of a sender key were stored empty",
         "Late messages of this sender to the group do not decrypt", _NOTHING, "Baileys up to 6.7.18 and 6.17.16, measured"),
    Rule("sender-key-foreign-private", "warning", "Another's sender key comes with a private key",
         "The row may be another session's", _NEW_SENDER_KEY, _SENDER_KEYS),
    Rule("sender-key-growth", "warning", "One's own sender key keeps more than 500 message keys",
         "Each message to this group rewrites all of them", _OWN_SENDER_KEY, _SENDER_KEYS + ", measured"),
    Rule("sender-key-memory-unreadable", "error", "The list of who has one's sender key is not an object of true and false",
         "Sending to this group fails, or members do not get the key", _DELETE,
         "Baileys Socket/messages-send.ts, senderKeyMap"),
    Rule("sender-key-memory-stale", "error", "The group is said to have one's sender key, and that key is gone",
         "Messages to this group will not decrypt for anybody", "Run check --fix",
         "Baileys Socket/messages-send.ts, senderKeyMap", "deletes the sender-key-memory row, so that the key is handed out"),
)  # fmt: skip

_APP_STATE_RULES: Final = (
    Rule("app-state-key", "error", "An app-state key is not 32 bytes",
         "Chats that are pinned, archived or read elsewhere are not seen here", f"{_DELETE}: the phone sends it again",
         _APP_STATE),
    Rule("my-app-state-key", "error", "The app-state key this device writes with is not stored",
         "Pinning, archiving and reading chats fails", "Ask the phone for its keys, or pair the device again", _APP_STATE),
    Rule("app-state-version", "error", "The state of an app-state collection is damaged",
         "The collection does not sync", f"{_DELETE}: the collection is fetched whole", _APP_STATE),
    Rule("app-state-lthash", "warning", "The hash of an app-state collection is not that of its entries",
         "The next patch of the phone may be refused and the collection fetched anew; a removal made here leaves this too",
         _NOTHING, _APP_STATE),
)  # fmt: skip

_ADDRESS_RULES: Final = (
    Rule("lid-mapping-unreadable", "error", "A LID mapping is not a string of digits",
         "Messages of this contact are looked up under a wrong address", _DELETE, _LID),
    Rule("lid-mapping-pair", "warning", "A LID mapping and its way back do not agree",
         "This contact may show up as two", "Nothing has to be done: Baileys asks again", _LID),
    Rule("device-list", "error", "A device list is not a list of device numbers",
         "Messages do not reach all devices of this contact", _DELETE, "Baileys Socket/messages-send.ts"),
    Rule("tctoken", "error", "A privacy token has not the structure of one",
         "Messages to this contact may be refused", _DELETE, "Baileys Utils/tc-token-utils.ts"),
    Rule("tctoken-index", "error", "The index of privacy tokens is not a list of addresses",
         "Old tokens are never removed", _DELETE, "Baileys Utils/tc-token-utils.ts"),
)  # fmt: skip

_COMMON_RULES: Final = (
    Rule("value-unreadable", "error", "A value is not JSON", "Baileys cannot read this row", _DELETE, "RFC 8259"),
    Rule("bytes-spelling", "warning", "Bytes are spelled as a list or an object of numbers",
         "Some releases of Baileys do not read them (Invalid private key type)", "Run check --fix",
         "Baileys Utils/generics.ts, BufferJSON", "spells the bytes as BufferJSON does"),
    Rule("id-grammar", "warning", "An id is none that Baileys makes for this type",
         "Baileys never asks for this row", _DELETE, "protocol/file_names.py, GRAMMAR"),
    Rule("oversized", "warning", "A record is larger than it ever needs to be",
         "Each use of it reads and writes all of it", "See the rule of its type", "measured on real releases"),
)  # fmt: skip

_STORE_RULES: Final = (
    Rule("data-key-unreadable", "error", "The session's data key does not open under the configured master keys",
         "Nothing of this session can be read", "Configure the master key it was sealed with", _STORE),
    Rule("row-unreadable", "error", "A stored row does not open as what it says it is",
         "The row was changed, moved or exchanged in the database: what it held is lost", _WHO_WRITES, _STORE),
    Rule("entry-unreadable", "error", "A commit that waits in the journal does not open",
         "It was changed or exchanged in the database: what it set is lost, what came after it stands", _WHO_WRITES, _STORE),
    Rule("row-foreign-key", "error", "A stored row is sealed under a data key that is not the session's",
         "The row is left of another session of this name: it cannot be read", "Delete the row in the database", _STORE),
    Rule("set-unproven", "error", "The rows are not those that were committed",
         "Rows were deleted, brought back from an older time or added in the database", _WHO_WRITES, _STORE),
    Rule("columns-disagree", "error", "What the session's row says of its creds is not what the sealed creds say",
         "An identity could be replaced unnoticed", _WHO_WRITES, _STORE),
    Rule("session-misplaced", "error", "A session's row stands under another name or tenant than it was made for",
         "The session cannot be found by its name", _WHO_WRITES, _STORE),
    Rule("version-regressed", "error", "The session is at an older version than an earlier check has seen",
         "The database was put back to an older time: messages since then do not decrypt, and chats break (Bad MAC)",
         "Delete sessions, sender keys and sender-key-memory of this session, keep its identity", _STORE),
    Rule("orphan-rows", "error", "Rows are stored that belong to no session",
         "A session's row was deleted in the database", _WHO_WRITES, _STORE),
    Rule("session-unjudged", "error", "The session could not be judged",
         "Whether it is whole is not known; the others were judged",
         "Check it by its name: where that fails too it is a fault of this release, to be reported",
         "service/integrity/sweep.py"),
    Rule("session-vanished", "error", "A session that was checked before is gone and was never deleted",
         "The session is lost", _WHO_WRITES, _STORE),
)  # fmt: skip

RULES: Final = {
    rule.id: rule
    for rules in (
        _CREDS_RULES,
        _PRE_KEY_RULES,
        _SESSION_RULES,
        _SENDER_KEY_RULES,
        _APP_STATE_RULES,
        _ADDRESS_RULES,
        _COMMON_RULES,
        _STORE_RULES,
    )
    for rule in rules
}
"""Every rule by its id."""
