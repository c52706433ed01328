"""A session's values with nothing of them left but their form: for bug reports.

Bytes and texts become lengths and keyed digests, equal ones equal, so that what belongs together can be seen. The digests' key
is made for one bundle and thrown away: phone numbers are few, and a plain hash of one can be guessed. Kept as they are: the
names of Baileys' own members, its counters, kinds and times, true, false and null.
"""

import hashlib
import re
from typing import Any, Final

from protocol.errors import BadValue
from protocol.json_text import parse
from protocol.spelling import read, spelling_of

# fmt: off
_NAMES: Final = frozenset({
    "noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey", "signedPreKey", "keyPair", "private", "public",
    "signature", "keyId", "timestampS", "registrationId", "advSecretKey", "processedHistoryMessages", "key",
    "remoteJid", "fromMe", "id", "participant", "messageTimestamp", "nextPreKeyId", "firstUnuploadedPreKeyId",
    "accountSyncCounter", "accountSettings", "unarchiveChats", "defaultDisappearingMode", "registered", "pairingCode",
    "lastPropHash", "routingInfo", "lastAccountSyncTimestamp", "platform", "myAppStateKeyId", "additionalData", "me",
    "name", "lid", "notify", "verifiedName", "imgUrl", "status", "account", "details", "accountSignatureKey",
    "accountSignature", "deviceSignature", "signalIdentities", "identifier", "deviceId", "identifierKey", "_sessions",
    "version", "currentRatchet", "ephemeralKeyPair", "pubKey", "privKey", "lastRemoteEphemeralKey", "previousCounter",
    "rootKey", "indexInfo", "baseKey", "baseKeyType", "closed", "used", "created", "remoteIdentityKey", "_chains",
    "chainKey", "counter", "chainType", "messageKeys", "pendingPreKey", "signedKeyId", "preKeyId", "senderKeyId",
    "senderChainKey", "iteration", "seed", "senderSigningKey", "senderMessageKeys", "keyData", "fingerprint", "rawId",
    "currentIndex", "deviceIndexes", "timestamp", "low", "high", "unsigned", "hash", "indexValueMap", "valueMac",
    "token", "senderTimestamp", "type", "data",
})
_NUMBERS: Final = frozenset({
    "closed", "used", "created", "timestamp", "senderTimestamp", "messageTimestamp", "lastAccountSyncTimestamp",
    "nextPreKeyId", "firstUnuploadedPreKeyId", "counter", "iteration", "previousCounter", "version", "timestampS",
    "keyId", "registrationId", "accountSyncCounter", "baseKeyType", "chainType", "deviceId", "signedKeyId",
    "preKeyId", "senderKeyId", "rawId", "currentIndex", "deviceIndexes",
})
# fmt: on
_WORDS: Final = frozenset({"v1", "android", "iphone", "smba", "smbi"})
_IDS: Final = frozenset(
    {
        "",
        "__index",
        "critical_block",
        "critical_unblock_low",
        "regular_high",
        "regular_low",
        "regular",
        "status@broadcast",
    }
)
_DIGITS: Final = re.compile("[0-9]{5,}")
_ADDRESS: Final = re.compile(
    r"[0-9]+(?:-[0-9]+)?(?:_[0-9]{1,3})?(?:[:.][0-9]{1,4})?(?:@(?:s\.whatsapp\.net|g\.us|lid|hosted|hosted\.lid|broadcast|c\.us))?"
    r"(?:::[0-9]+(?:_[0-9]{1,3})?::[0-9]{1,4})?(?:_reverse)?"
)
_OCTETS_FROM: Final = 8
_OCTET: Final = 256


class Redactor:
    """Redacts one bundle. ``key``: random bytes, made for it and kept nowhere."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<Redactor>"

    def digest(self, data: bytes) -> str:
        """12 hexadecimal digits: equal for equal bytes of this bundle."""
        return hashlib.blake2b(data, key=self._key, digest_size=6).hexdigest()

    def name(self, ktype: str, key_id: str) -> str:
        """An id with its form left: numbers of five digits and more become digests, anything unknown one digest."""
        if key_id in _IDS or (ktype == "pre-key" and key_id.isdigit() and len(key_id) <= 8):  # noqa: PLR2004 - 24 bits
            return key_id
        return self._address(key_id)

    def value(self, ktype: str, text: bytes) -> Any:
        """The value as JSON that can be shown. Text that is no JSON, or nested too deep, becomes its length and digest."""
        try:
            return self._shown(ktype, parse(text))
        except (ValueError, BadValue):
            return {"not_json": len(text), "digest": self.digest(text)}
        except RecursionError:
            return {"too_deep": len(text), "digest": self.digest(text)}

    def _shown(self, ktype: str, found: Any) -> Any:
        if ktype in ("sender-key", "tctoken") and isinstance(found, dict):
            return self._with_record(found)
        return self._any(found, "")

    def _with_record(self, found: dict[str, Any]) -> Any:
        """Bytes that hold JSON themselves, beside what else is there."""
        holder = found.get("token") if "token" in found else found
        try:
            inside = parse(read(holder))
        except (ValueError, BadValue):
            inside = None
        shown = self._any(found, "")
        return [shown, {"inside": self._any(inside, "")}] if isinstance(inside, list) else shown

    def _any(self, value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            if len(value) >= _OCTETS_FROM and all(type(each) is int and 0 <= each < _OCTET for each in value):
                return {"bytes": len(value), "digest": self.digest(bytes(value)), "spelling": "list"}
            return [self._any(each, name) for each in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bool) or value is None:
            return value
        return value if name in _NUMBERS else {"number": len(str(value))}

    def _object(self, value: dict[str, Any]) -> Any:
        if value.get("type") == "Buffer" or (value and all(name.isdigit() for name in value)):
            try:
                data = read(value)
            except BadValue:
                pass
            else:
                return {"bytes": len(data), "digest": self.digest(data), "spelling": str(spelling_of(value))}
        return {self._member(name): self._any(each, name) for name, each in value.items()}

    def _member(self, name: str) -> str:
        if name in _NAMES or (name.isascii() and name.isdigit() and len(name) < 5):  # noqa: PLR2004 - no phone number
            return name
        return self._address(name)

    def _text(self, value: str) -> Any:
        if value in _WORDS or value in _IDS:
            return value
        if _ADDRESS.fullmatch(value):
            return self._address(value)
        try:
            data = read(value)
        except BadValue:
            return {"text": len(value), "digest": self.digest(value.encode("utf-8", "surrogatepass"))}
        return {"bytes": len(data), "digest": self.digest(data), "spelling": "text"}

    def _address(self, text: str) -> str:
        if _ADDRESS.fullmatch(text) is None:
            return f"?{self.digest(text.encode('utf-8', 'surrogatepass'))}"
        return _DIGITS.sub(lambda found: f"u{self.digest(found[0].encode())}", text)
