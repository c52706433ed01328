"""Every spelling of bytes met in Baileys JSON -> bytes. Nothing else in the project knows base64 of values.

| spelling | written by |
|---|---|
| ``{"type":"Buffer","data":"<base64>"}`` | BufferJSON, the only one every Baileys release revives |
| ``{"type":"Buffer","data":[1,2,3]}`` | plain ``JSON.stringify`` of a Buffer |
| ``{"0":1,"1":2}`` | plain ``JSON.stringify`` of a Uint8Array |
| ``"<base64>"`` | protobuf ``toJSON`` |
"""

import base64
import binascii
from contextlib import suppress
from typing import Any

from protocol.errors import BadValue


def to_bytes(value: Any, pointer: str = "") -> bytes:
    """The bytes of any spelling; BadValue (with ``pointer``) for anything else."""
    if isinstance(value, str):
        return _base64(value, pointer)
    if isinstance(value, dict):
        if value.get("type") == "Buffer":
            data = value.get("data")
            return _base64(data, pointer) if isinstance(data, str) else _octets(data, pointer)
        return _octets(_by_index(value, pointer), pointer)
    raise BadValue("not bytes in any spelling", pointer)


def _base64(text: str, pointer: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadValue("not base64", pointer) from None


def _octets(data: Any, pointer: str) -> bytes:
    if isinstance(data, list) and set(map(type, data)) <= {
        int
    }:  # true and false are no octets, though bytes() takes them
        with suppress(ValueError):
            return bytes(data)
    raise BadValue("not a list of octets", pointer)


def _by_index(value: dict[str, Any], pointer: str) -> list[Any]:
    # jsonb orders such keys by length and then by byte, so the order met is not the order meant.
    members = [value.get(str(i)) for i in range(len(value))]
    if not value or any(member is None for member in members):
        raise BadValue("not bytes in any spelling", pointer)
    return members
