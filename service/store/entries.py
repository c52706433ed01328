"""A commit as it waits for the mirror: what was asked, in order, whole, and sealed under the session's data key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from service.errors import Corrupt

_Plain = tuple[bool, bytes | None, list[tuple[str, bytes, bytes | None]]]


@dataclass(frozen=True, slots=True)
class MirrorEntry:
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
            raise Corrupt("mirror entry", None) from None


def purpose(version: int) -> str:
    """What an entry is sealed for: its place in the order cannot be changed."""
    return f"mirror {version}"
