"""What a commit must know of creds: which identity, paired or not, and the counters that never go back.

A view for judging: the stored text is never rewritten, unknown fields are not looked at. Sources: Baileys'
``AuthenticationCreds``; "paired" is ``account`` present (``registered`` stays false after a QR pairing); rolling a
counter back makes Baileys issue pre-key ids again, and peers holding the old bundle get ``Bad MAC``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from protocol.buffer_json import to_bytes
from protocol.errors import BadValue
from protocol.json_text import parse

COUNTERS: Final = ("nextPreKeyId", "firstUnuploadedPreKeyId", "accountSyncCounter", "signedPreKey.keyId")
"""The members that must not go down, in the order of ``CredsView.counters``."""

_COUNTER_MAX = 2**53 - 1  # what JavaScript counts exactly
_CURVE_KEY = 32
_PREFIXED_KEY = 33
_TYPE_BYTE = 5  # libsignal's, before a Curve25519 key


Counters = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class CredsView:
    """``identity`` is the public identity key (32 bytes) or None; ``counters`` follow ``COUNTERS``, None where absent."""

    identity: bytes | None
    paired: bool
    counters: Counters


def view(text: bytes) -> CredsView:
    """Reads creds (UTF-8 JSON of an object). BadValue with a pointer when a judged member is not what it must be."""
    creds = parse(text)
    if not isinstance(creds, dict):
        raise BadValue("creds is an object")
    return CredsView(
        identity=_identity(creds.get("signedIdentityKey")),
        paired=creds.get("account") is not None,
        counters=(
            _counter(creds, "nextPreKeyId"),
            _counter(creds, "firstUnuploadedPreKeyId"),
            _counter(creds, "accountSyncCounter"),
            _counter(creds.get("signedPreKey"), "keyId", "/signedPreKey"),
        ),
    )


def regressed(old: Counters, new: Counters) -> Iterator[str]:
    """Names of the counters that go down (or vanish) from ``old`` to ``new``."""
    for name, before, after in zip(COUNTERS, old, new, strict=True):
        if before is not None and (after is None or after < before):
            yield name


def _identity(pair: Any) -> bytes | None:
    if pair is None:
        return None
    pointer = "/signedIdentityKey/public"
    if not isinstance(pair, dict):
        raise BadValue("a key pair is an object", "/signedIdentityKey")
    public = to_bytes(pair.get("public"), pointer)
    if len(public) == _PREFIXED_KEY and public[0] == _TYPE_BYTE:
        public = public[1:]
    if len(public) != _CURVE_KEY:
        raise BadValue(f"a public key has {_CURVE_KEY} bytes, this one has {len(public)}", pointer)
    return public


def _counter(holder: Any, name: str, parent: str = "") -> int | None:
    if holder is None:
        return None
    if not isinstance(holder, dict):
        raise BadValue("not an object", parent)
    value = holder.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _COUNTER_MAX:
        raise BadValue("a counter is a whole number from 0 to 2^53-1", f"{parent}/{name}")
    return value
