"""libsignal's session records as Baileys stores them, viewed for judging.

``{"_sessions": {<base key, base64>: state, …}, "version": "v1"}``; every byte field of a state is base64 text. Each part of a
state is read by itself, so that one damaged part does not hide another. BadValue says which member, never its value.
Public keys are given as they are stored (33 bytes), because libsignal finds chains and states by that text.
Source: libsignal-node ``src/session_record.js`` (``SessionEntry.serialize``); measured on 6.7.24 to 7.0.0-rc14.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.buffer_json import to_bytes
from protocol.curve import KEY_BYTES, bare
from protocol.errors import BadValue

VERSION: Final = "v1"
SENDING: Final = 1
RECEIVING: Final = 2
OURS: Final = 1
THEIRS: Final = 2

_FIRST_COUNTER: Final = -1
_NOT_CLOSED: Final = -1


@dataclass(frozen=True, slots=True)
class Index:
    """A state's ``indexInfo``: how it is found, whose it is, and whether it is in use."""

    base_key: bytes = field(repr=False)
    base_key_type: int
    open: bool
    remote_identity: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ratchet:
    """A state's ``currentRatchet``."""

    public: bytes = field(repr=False)
    private: bytes = field(repr=False)
    last_remote: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain. ``has_key`` is False once a receiving chain is closed: normal for all but the contact's current one."""

    kind: int
    counter: int
    has_key: bool


def is_unknown_form(value: Any) -> bool:
    """Bytes or text where an object of states should be: what a libsignal in WebAssembly would store."""
    return isinstance(value, str) or (isinstance(value, dict) and value.get("type") == "Buffer")


def states(value: Any) -> dict[str, Any]:
    """The states by their base key. BadValue when there are none to look at."""
    found = value.get("_sessions") if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise BadValue("a session record holds states", "/_sessions")
    return found


def parse_index(base_key: str, state: Any) -> Index:
    """The index of the state stored under ``base_key``. BadValue when it does not fit."""
    info = _object(state, "indexInfo")
    if info.get("baseKey") != base_key:
        raise BadValue("the base key is not the one it is stored under", "/indexInfo/baseKey")
    kind = info.get("baseKeyType")
    if kind not in (OURS, THEIRS) or kind is True:
        raise BadValue("the base key is neither ours nor theirs", "/indexInfo/baseKeyType")
    closed: Any = info.get("closed")
    if not _is_whole(closed) or (closed != _NOT_CLOSED and closed < 0):
        raise BadValue("closed is -1 or a time", "/indexInfo/closed")
    public = _public(info, "baseKey", "/indexInfo")
    identity = _public(info, "remoteIdentityKey", "/indexInfo")
    if len(identity) == KEY_BYTES:  # it goes into every MAC as it stands
        raise BadValue("the identity key has not its type byte", "/indexInfo/remoteIdentityKey")
    return Index(public, kind, closed == _NOT_CLOSED, identity)


def parse_ratchet(state: Any) -> Ratchet:
    """The ratchet. BadValue when a part is missing or has not its length."""
    ratchet = _object(state, "currentRatchet")
    _key(ratchet, "rootKey", "/currentRatchet")
    if not _is_whole(ratchet.get("previousCounter")):
        raise BadValue("a counter is a whole number", "/currentRatchet/previousCounter")
    pair = _object(ratchet, "ephemeralKeyPair", "/currentRatchet")
    private = _key(pair, "privKey", "/currentRatchet/ephemeralKeyPair")
    public = _public(pair, "pubKey", "/currentRatchet/ephemeralKeyPair")
    return Ratchet(public, private, _public(ratchet, "lastRemoteEphemeralKey", "/currentRatchet"))


def parse_chains(state: Any) -> Iterator[tuple[bytes, Chain]]:
    """Chains by the ratchet key they belong to. BadValue at the first damaged one."""
    for number, (address, chain) in enumerate(_object(state, "_chains").items(), 1):
        pointer = f"/_chains/#{number}"
        key = to_bytes(address, pointer)
        bare(key, pointer)
        yield key, _chain(chain, pointer)


def pending_base_key(state: Any) -> bytes | None:
    """The base key that an unanswered first message carries, None without one. BadValue when damaged."""
    pending = state.get("pendingPreKey") if isinstance(state, dict) else None
    if pending is None:
        return None
    if not isinstance(pending, dict) or not _is_whole(pending.get("signedKeyId")):
        raise BadValue("a pending pre-key names the signed pre-key", "/pendingPreKey/signedKeyId")
    if not _is_whole(pending.get("preKeyId", 0)):
        raise BadValue("a pre-key id is a whole number", "/pendingPreKey/preKeyId")
    return _public(pending, "baseKey", "/pendingPreKey")


def has_registration(state: Any) -> bool:
    """Whether Baileys would count this state as a session."""
    found = state.get("registrationId") if isinstance(state, dict) else None
    return isinstance(found, int | float) and not isinstance(found, bool)


def _chain(chain: Any, pointer: str) -> Chain:
    if not isinstance(chain, dict) or chain.get("chainType") not in (SENDING, RECEIVING) or chain["chainType"] is True:
        raise BadValue("a chain sends or receives", f"{pointer}/chainType")
    head = chain.get("chainKey")
    if not isinstance(head, dict) or not _is_whole(head.get("counter")) or head["counter"] < _FIRST_COUNTER:
        raise BadValue("a chain's counter is a whole number from -1", f"{pointer}/chainKey/counter")
    has_key = head.get("key") is not None
    if has_key:
        _key(head, "key", f"{pointer}/chainKey")
    _check_message_keys(chain.get("messageKeys"), head["counter"], f"{pointer}/messageKeys")
    return Chain(chain["chainType"], head["counter"], has_key)


def _check_message_keys(keys: Any, counter: int, pointer: str) -> None:
    if not isinstance(keys, dict):
        raise BadValue("message keys are an object", pointer)
    for number, text in keys.items():
        if not (number.isascii() and number.isdigit() and len(number) < 16 and int(number) <= counter):  # noqa: PLR2004
            raise BadValue("a message key is of a message of this chain", pointer)
        if len(to_bytes(text, pointer)) != KEY_BYTES:
            raise BadValue(f"a message key has {KEY_BYTES} bytes", pointer)


def _object(holder: Any, name: str, pointer: str = "") -> dict[str, Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(found, dict):
        raise BadValue("not an object", f"{pointer}/{name}")
    return found


def _key(holder: dict[str, Any], name: str, pointer: str) -> bytes:
    found = to_bytes(holder.get(name), f"{pointer}/{name}")
    if len(found) != KEY_BYTES:
        raise BadValue(f"{len(found)} bytes instead of {KEY_BYTES}", f"{pointer}/{name}")
    return found


def _public(holder: dict[str, Any], name: str, pointer: str) -> bytes:
    found = to_bytes(holder.get(name), f"{pointer}/{name}")
    bare(found, f"{pointer}/{name}")
    return found


def _is_whole(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and value.is_integer())
