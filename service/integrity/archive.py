"""What a repair replaced, and what it wrote, kept together so that undoing it cannot bring back what is older than it.

Each row that a repair replaces is copied to `integrity_archive` before the commit, sealed as one piece with a keyed digest of
what the repair is about to write and the Idempotency-Key it commits with. After the commit the copies are sealed anew, as those
of a repair that was made: of one that was killed before its commit nothing is ever put back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from service.errors import BadInput, Corrupt
from service.records import StoredRow
from service.sql import integrity as sql
from service.sql.pool import Connection
from service.store.request import Row
from service.vault import SessionVault

_DIGEST_BYTES: Final = 16
_Plain = tuple[bytes, bytes, bytes | None, bytes]


@dataclass(frozen=True, slots=True)
class Archived:
    """One row as a repair found it. ``written``: the digest of what it was to become, None where it was to go.

    ``commit``: the Idempotency-Key of the repair; ``made``: it is known to have been committed.
    """

    ktype: str
    key_id: bytes = field(repr=False)
    before: bytes = field(repr=False)
    written: bytes | None = field(repr=False)
    commit: UUID
    made: bool


def archived(vault: SessionVault, row: Row, before: bytes, commit: UUID) -> Archived:
    """What is kept of a row that a repair is about to write."""
    written = None if row.value is None else digest(vault, row.ktype, row.key_id, row.value)
    return Archived(row.ktype, row.key_id, before, written, commit, made=False)


def digest(vault: SessionVault, ktype: str, key_id: bytes, text: bytes) -> bytes:
    """A row's keyed digest."""
    return b"".join(half.to_bytes(_DIGEST_BYTES // 2, "big", signed=True) for half in vault.digest(ktype, key_id, text))


async def keep(
    connection: Connection, sid: UUID, version: int, vault: SessionVault, rows: Iterable[Archived], *, made: bool
) -> None:
    """Stores what is kept of the repair at ``version``, in the place of what was kept of it before."""
    await sql.archive(connection, sid, version, [_sealed(vault, version, row, made=made) for row in rows])


async def find(connection: Connection, sid: UUID, vault: SessionVault) -> tuple[int, list[Archived]] | None:
    """``(version before the repair, its rows)`` of the session's last repair. Raises BadInput, Corrupt."""
    found = await sql.find_archived(connection, sid)
    return None if found is None else (found[0], _opened(vault, *found))


def _sealed(vault: SessionVault, version: int, row: Archived, *, made: bool) -> StoredRow:
    kh = vault.find(row.ktype, row.key_id)
    text = msgspec.msgpack.encode((row.key_id, row.before, row.written, row.commit.bytes))
    box = vault.seal_entry(_purpose(version, kh, made=made), text)
    return StoredRow(kh, row.ktype, vault.digest(row.ktype, row.key_id, row.before), box)


def _opened(vault: SessionVault, version: int, stored: Sequence[StoredRow]) -> list[Archived]:
    return [_open(vault, version, row) for row in stored]


def _open(vault: SessionVault, version: int, row: StoredRow) -> Archived:
    for made in (True, False):
        try:
            text = vault.open_entry(_purpose(version, row.kh, made=made), row.sealed)
        except Corrupt:
            continue
        key_id, before, written, commit = msgspec.msgpack.decode(text, type=_Plain)
        return Archived(row.ktype, key_id, before, written, UUID(bytes=commit), made)
    vault.open(row.ktype, row.kh, row.digest, row.sealed)  # as earlier releases kept it, or Corrupt
    raise BadInput(
        "an earlier release made this repair and did not keep what it wrote: what changed since cannot be told, "
        "so nothing is put back"
    )


def _purpose(version: int, kh: bytes, *, made: bool) -> str:
    return f"repair {'made' if made else 'begun'} {version} {kh.hex()}"
