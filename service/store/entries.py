"""A commit as it waits in the journal or for the mirror: what was asked, in order, whole, to be sealed under the data key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from service.errors import Corrupt

_Plain = tuple[bool, bytes | None, list[tuple[str, bytes, bytes | None]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """``rows``: type, id, JSON text or None to delete. ``whole``: what was there before is gone. ``creds`` None: unchanged."""

    whole: bool
    creds: bytes | None = field(repr=False)
    rows: Sequence[tuple[str, bytes, bytes | None]] = field(repr=False)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode((self.whole, self.creds, self.rows))

    @classmethod
    def decode(cls, text: bytes) -> Self:
        try:
            return cls(*msgspec.msgpack.decode(text, type=_Plain))
        except msgspec.DecodeError:
            raise Corrupt("entry", None) from None


def in_mirror(version: int) -> str:
    """What a mirror's entry is sealed for: its place in the order cannot be changed."""
    return f"mirror {version}"


def in_journal(version: int) -> str:
    """What a journal's entry is sealed for."""
    return f"journal {version}"
