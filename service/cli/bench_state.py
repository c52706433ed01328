"""Synthetic state in the shapes of a live session, for `bench`: random, nobody's."""

import base64
import secrets
from collections.abc import Callable
from typing import Any, Final

_SESSION_BYTES: Final = 1150  # 1.5 KB as base64
WHOLE: Final = {"pre-key": 430, "session": 330, "lid-mapping": 300, "sender-key": 67}

Keys = dict[str, dict[str, Any]]


def creds() -> dict[str, Any]:
    """Creds of a paired session."""
    pairs = ("noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey")
    creds: dict[str, Any] = {name: _pair() for name in pairs}
    creds["signedPreKey"] = {"keyPair": _pair(), "signature": _buffer(64), "keyId": 1}
    counters = {"nextPreKeyId": 813, "firstUnuploadedPreKeyId": 813, "accountSyncCounter": 1, "registrationId": 1}
    return creds | counters | {"account": {"details": _text(10)}, "advSecretKey": _text(32)}


def whole() -> Keys:
    """A session's 1,127 keys."""
    make: dict[str, Callable[[], Any]] = {
        "pre-key": _pair,
        "session": session,
        "lid-mapping": lambda: "100000000000002",
        "sender-key": lambda: _buffer(900),
    }
    return {kind: {_id(kind, n): make[kind]() for n in range(count)} for kind, count in WHOLE.items()}


def _id(kind: str, n: int) -> str:
    return address(n) if kind == "session" else str(n + 1)


def address(n: int) -> str:
    """A contact's address."""
    return f"1555{1_000_000 + n}.0"


def pre_keys(first: int, count: int) -> Keys:
    """So many pre-keys."""
    return {"pre-key": {str(number): _pair() for number in range(first, first + count)}}


def _pair() -> dict[str, Any]:
    return {"private": _buffer(32), "public": _buffer(32)}


def session() -> dict[str, Any]:
    """A Signal session with a contact."""
    return {"_sessions": {_text(33): {"state": _text(_SESSION_BYTES)}}, "version": "v1"}


def _buffer(length: int) -> dict[str, str]:
    return {"type": "Buffer", "data": _text(length)}


def _text(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode()
