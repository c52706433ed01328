"""The small records, viewed for judging: pre-keys, identity keys, app state, LID mappings, device lists, tokens, memory.

Sources: Baileys ``Types/Auth.ts`` (``SignalDataTypeMap``) and the writers named in `protocol.rules`. Every function raises
BadValue when the value cannot be what its type says; unknown members are not looked at.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.buffer_json import to_bytes
from protocol.curve import KEY_BYTES, TYPE_BYTE
from protocol.errors import BadValue
from protocol.json_text import parse
from protocol.lthash import HASH_BYTES
from protocol.spelling import read

TOKEN_INDEX: Final = "__index"
REVERSE: Final = "_reverse"

_DIGITS: Final = re.compile("[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Collection:
    """The state of an app-state collection."""

    hash: bytes = field(repr=False)
    macs: list[bytes] = field(repr=False)


def key_pair(value: Any, pointer: str = "") -> tuple[bytes, bytes]:
    """``(private, public)`` as stored, lengths not judged."""
    if not isinstance(value, dict):
        raise BadValue("a key pair is an object", pointer)
    return to_bytes(value.get("private"), f"{pointer}/private"), to_bytes(value.get("public"), f"{pointer}/public")


def identity_key(value: Any) -> bytes:
    """The 33 bytes of a contact's identity key."""
    found = to_bytes(value)
    if len(found) != KEY_BYTES + 1 or found[0] != TYPE_BYTE:
        raise BadValue(f"{len(found)} bytes instead of {KEY_BYTES + 1}")
    return found


def app_state_key(value: Any) -> bytes:
    """The 32 bytes of an app-state key."""
    if not isinstance(value, dict):
        raise BadValue("an app-state key is an object")
    found = to_bytes(value.get("keyData"), "/keyData")
    if len(found) != KEY_BYTES:
        raise BadValue(f"{len(found)} bytes instead of {KEY_BYTES}", "/keyData")
    return found


def collection(value: Any) -> Collection:
    """The state of a collection."""
    if not isinstance(value, dict) or type(value.get("version")) is not int or value["version"] < 0:
        raise BadValue("a version is a whole number", "/version")
    found = to_bytes(value.get("hash"), "/hash")
    if len(found) != HASH_BYTES:
        raise BadValue(f"{len(found)} bytes instead of {HASH_BYTES}", "/hash")
    entries = value.get("indexValueMap")
    if not isinstance(entries, dict):
        raise BadValue("entries are an object", "/indexValueMap")
    return Collection(found, [_mac(entry) for entry in entries.values()])


def lid_mapping(value: Any) -> str:
    """The user that a LID or a phone number stands for."""
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise BadValue("not a string of digits")
    return value


def check_device_list(value: Any) -> None:
    """A list of device numbers, as text."""
    if not isinstance(value, list) or not all(isinstance(each, str) and _DIGITS.fullmatch(each) for each in value):
        raise BadValue("not a list of numbers as text")


def check_token(value: Any) -> None:
    """A privacy token; its bytes may be none."""
    if not isinstance(value, dict):
        raise BadValue("a token is an object")
    read(value.get("token"), "/token")
    for name in ("timestamp", "senderTimestamp"):
        at = value.get(name)
        is_number = isinstance(at, int | float) and not isinstance(at, bool)
        if not (at is None or is_number or (isinstance(at, str) and _DIGITS.fullmatch(at))):
            raise BadValue("a time is a number", f"/{name}")


def token_index(value: Any) -> list[str]:
    """The addresses in the index of tokens."""
    if not isinstance(value, dict):
        raise BadValue("an index is a token")
    text = read(value.get("token"), "/token")
    try:
        found = parse(text) if text else []
    except ValueError:
        raise BadValue("the bytes are no JSON", "/token") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise BadValue("not a list of addresses", "/token")
    return found


def has_members(value: Any) -> bool:
    """Whether a sender key memory says of anybody that they have the key."""
    if not isinstance(value, dict) or not all(type(each) is bool for each in value.values()):
        raise BadValue("not an object of true and false")
    return any(value.values())


def _mac(entry: Any) -> bytes:
    found = to_bytes(entry.get("valueMac") if isinstance(entry, dict) else None, "/indexValueMap")
    if len(found) != KEY_BYTES:
        raise BadValue(f"{len(found)} bytes instead of {KEY_BYTES}", "/indexValueMap")
    return found
