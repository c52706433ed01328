"""Are two pre-key texts the same key pair? Only their bytes count: one store spells base64, another lists octets."""

from typing import Final

from protocol.buffer_json import to_bytes
from protocol.errors import BadValue
from protocol.json_text import parse

MOST_ID: Final = 0xFF_FFFF
"""The highest id that the wire holds: 24 bits. The store keeps any; only judging knows of it."""


def same_pair(one: bytes, other: bytes) -> bool:
    """True when both texts (UTF-8 JSON) hold the same private and public bytes; False when either is not a key pair."""
    try:
        return _pair(one) == _pair(other)
    except BadValue:
        return False


def _pair(text: bytes) -> tuple[bytes, bytes]:
    value = parse(text)
    if not isinstance(value, dict):
        raise BadValue("a pre-key is an object")
    return to_bytes(value.get("private")), to_bytes(value.get("public"))
