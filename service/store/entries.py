"""A commit as it waits in the journal or for the mirror: what was asked, in order, whole, to be sealed under the data key."""

from collections.abc import Sequence
from typing import Self

import msgspec

from service.errors import Corrupt
from service.records import Value

_Plain = tuple[bool, bytes | None, list[tuple[str, bytes, bytes | None]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Plain).decode


class Entry(Value, frozen=True, gc=False):
    """``rows``: type, id, JSON text or None to delete. ``whole``: what was there before is gone. ``creds`` None: unchanged."""

    whole: bool
    creds: bytes | None
    rows: Sequence[tuple[str, bytes, bytes | None]]

    def encode(self) -> bytes:
        return _encode((self.whole, self.creds, self.rows))

    @classmethod
    def decode(cls, text: bytes) -> Self:
        try:
            return cls(*_decode(text))
        except msgspec.DecodeError:
            raise Corrupt("entry", None) from None


def in_mirror(version: int) -> str:
    """What a mirror's entry is sealed for: its place in the order cannot be changed."""
    return f"mirror {version}"


def in_journal(version: int) -> str:
    """What a journal's entry is sealed for."""
    return f"journal {version}"
