"""Summaries, leases, deletion and the way back."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from service.errors import Corrupt, Deleted, LeaseHeld, NoSession, Unavailable
from service.records import Granted, Identity, Lease, LeaseAsk, SessionRow, Vacant
from service.sql import sessions as sql
from service.sql import whole
from service.sql.journal import read_journal
from service.sql.keys import Wanted, get_all
from service.sql.pool import Connection, Database
from service.sql.sids import sid_of
from service.store.changes import first_change
from service.store.guards import fenced
from service.store.heads import Heads
from service.store.journal import CREDS, Counts, counted, open_journal
from service.store.keyring import renew
from service.store.settling import Settler
from service.vault import SessionVault, new_data_key, wrap_context

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """A session as lists show it; ``keys``: type -> (count, stored bytes); ``mirrored``: commits go to another store too."""

    name: str = field(repr=False)
    version: int
    epoch: int
    lease: Lease | None
    paired: bool
    keys: Counts
    created_at: datetime
    updated_at: datetime
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """What a delete took away; ``restorable_until`` None when it is gone for good."""

    version: int
    rows: int
    restorable_until: datetime | None


@dataclass(frozen=True, slots=True)
class Gone:
    """A deleted session that can be restored; ``keys`` counts its rows without creds."""

    name: str = field(repr=False)
    keys: int
    deleted_at: datetime
    restorable_until: datetime


class Sessions:
    """Everything about sessions that is not their rows. ``window``: how long a deleted session can be brought back."""

    def __init__(self, database: Database, heads: Heads, settler: Settler, window: timedelta) -> None:
        self._database = database
        self._heads = heads
        self._settler = settler
        self._window = window

    async def show(self, tenant: str, name: str) -> Summary:
        sid = sid_of(tenant, name)

        async def look(connection: Connection) -> Summary:
            row = _living(await sql.find(connection, sid))
            counts = await sql.count_keys(connection, [sid])
            return _summary(*await self._whole(connection, row, counts[sid]))

        return await self._database.ask(look)

    async def list(self, tenant: str, prefix: str, after: str, limit: int) -> tuple[list[Summary], str | None]:
        """A page of summaries by name, and the cursor of the next page."""

        async def look(connection: Connection) -> tuple[list[Summary], str | None]:
            rows = await sql.find_page(connection, tenant, prefix, after, limit + 1)
            shown = rows[:limit]
            counts = await sql.count_keys(connection, [row.head.sid for row in shown])
            following = shown[-1].name if len(rows) > limit else None
            return [_summary(*await self._whole(connection, row, counts[row.head.sid])) for row in shown], following

        return await self._database.ask(look)

    async def lease(self, tenant: str, name: str, ask: LeaseAsk) -> Granted:
        """Takes or renews. Raises LeaseHeld, Deleted; Fenced when the ask's epoch is not that of this holder's lease."""
        sid = sid_of(tenant, name)
        async with self._database.connection() as connection:
            for _ in range(3):
                granted = await sql.take_lease(connection, sid, ask)
                if granted is not None:
                    return granted
                found = await sql.find(connection, sid)
                if isinstance(found, SessionRow) and found.head.deleted:
                    raise Deleted
                if ask.epoch is not None:
                    # Also of a session that is gone: what its owner remembers is not to be written into a new one.
                    raise fenced(ask.epoch, found)
                if isinstance(found, Vacant):
                    made = await self._make(connection, tenant, name, found, (ask.holder, ask.ttl_s))
                    if made is not None:
                        return made
                elif found.lease is not None and found.lease.bars(ask.holder) and not ask.takes_over(found.head.epoch):
                    raise LeaseHeld(found.lease.holder, found.lease.ends, found.head.epoch)
                # Else it was made or set free between the two looks.
        raise Unavailable("the lease changed hands just now; try again")

    async def release(self, tenant: str, name: str, epoch: int) -> None:
        """Ends the lease of this epoch. Raises Fenced, NoSession, Deleted."""
        sid = sid_of(tenant, name)
        async with self._database.connection() as connection:
            if not await sql.release_lease(connection, sid, epoch):
                raise fenced(epoch, _living(await sql.find(connection, sid)))

    async def delete(self, tenant: str, name: str, *, epoch: int | None, purge: bool) -> Removed:
        """Logout: gone at once, back within the window; ``purge`` leaves no window."""
        sid = sid_of(tenant, name)
        stand = self._heads.remembered(sid)
        if stand is not None and stand.head.pending:
            with suppress(Corrupt):  # a damaged one must be let go of, too
                await self._settler.settle_now(tenant, sid)  # its rows are counted
        async with self._database.connection() as connection:
            for _ in range(_ATTEMPTS):
                version, rows, since = await self._mark_deleted(connection, sid, epoch, again=purge)
                if not purge:
                    return Removed(version, rows, since + self._window)
                purged = await sql.purge(connection, sid, timedelta(0)) is not None
                if purged or isinstance(await sql.find(connection, sid), Vacant):
                    return Removed(version, rows, None)
                # Restored between the two statements.
        raise Unavailable("the session was restored just now; try again")

    async def _mark_deleted(
        self, connection: Connection, sid: UUID, epoch: int | None, *, again: bool
    ) -> tuple[int, int, datetime]:
        """``(version, rows, when)`` of a session that is deleted now; ``again``: or was before."""
        deleted = await sql.mark_deleted(connection, sid, epoch)
        self._heads.forget(sid)
        if deleted is not None:
            return deleted
        found = await sql.find(connection, sid)
        if isinstance(found, Vacant):
            raise NoSession
        head = found.head
        if found.deleted_at is None:
            # Without an epoch to be wrong about: it was made between the two looks, so before it there was none.
            raise NoSession if epoch is None else fenced(epoch, found)
        if not again:
            raise Deleted
        # Deleting raised it: the last owner's is the one before.
        if epoch not in {None, head.epoch, head.epoch - 1}:
            raise fenced(epoch, found)
        return head.version, head.rows, found.deleted_at

    async def restore(self, tenant: str, name: str) -> Summary:
        """Brings a deleted session back; one that was never deleted is left as it is. Raises NoSession."""
        sid = sid_of(tenant, name)
        async with self._database.connection() as connection:
            if not await sql.restore(connection, sid, self._window):
                found = await sql.find(connection, sid)
                if isinstance(found, Vacant) or found.head.deleted:
                    raise NoSession
        return await self.show(tenant, name)

    async def deleted(self, tenant: str) -> Sequence[Gone]:
        """Up to 1,000 that can be restored, the latest first."""
        found = await self._database.ask(lambda connection: sql.find_deleted(connection, tenant, self._window))
        return [Gone(name, keys, when, when + self._window) for name, keys, when in found]

    async def purge_expired(self) -> int:
        """Destroys what was deleted longer ago than the window; how many sessions."""
        purged = 0
        async with self._database.connection() as connection:
            for sid in await sql.find_expired(connection, self._window):
                purged += await sql.purge(connection, sid, self._window) is not None
        return purged

    async def census(self, tenant: str) -> dict[str, Any]:
        """Counts of one tenant: sessions, paired, leased, keys by type, newest write."""
        counted, keys = await self._database.ask(lambda connection: sql.census(connection, tenant))
        return {**(dict(counted) if counted is not None else {}), "keys": keys}

    async def _whole(self, connection: Connection, row: SessionRow, keys: Counts) -> tuple[SessionRow, Counts]:
        """A session with its rows counted, and what waits in its journal with them: of one moment, whatever settles now."""
        if not row.head.pending:
            return row, keys
        sid = row.head.sid
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = await read_journal(connection, sid)
            if found is None or found[0].head.deleted:
                return row, keys
            stand = self._heads.learn(row.tenant, found[0])
            pending = open_journal(stand.head, stand.vault, found[1])
            names = [name for name in pending.values if name != CREDS]
            got = await get_all(connection, [Wanted(sid, [stand.vault.find(*name) for name in names])])
            stored = {names[place]: len(each.sealed) for place, each in got[0].rows.items()}
            return found[0], counted((await sql.count_keys(connection, [sid]))[sid], pending, stored)

    async def _make(
        self, connection: Connection, tenant: str, name: str, vacant: Vacant, lease: tuple[str, float]
    ) -> Granted | None:
        sid = sid_of(tenant, name)
        dek_id, data_key = new_data_key()
        vault = SessionVault(tenant, sid.bytes, dek_id, data_key)
        change = first_change(sid, vacant, vault, [], Identity(), None)
        wrapped = self._heads.masters.wrap(data_key, wrap_context(tenant, sid.bytes, dek_id))
        made = await whole.create(
            connection, change, tenant=tenant, name=name, epoch=vacant.epoch + 1, wrapped=wrapped, lease=lease
        )
        if made is None:
            await renew(connection, self._heads.masters)
        return None if made is None else Granted(made["epoch"], made["lease_expires"], "granted")


def _living(found: SessionRow | Vacant) -> SessionRow:
    if isinstance(found, Vacant):
        raise NoSession
    if found.head.deleted:
        raise Deleted
    return found


def _summary(row: SessionRow, keys: Counts) -> Summary:
    lease = row.lease if row.lease is not None and row.lease.live else None
    return Summary(
        row.name,
        row.head.version,
        row.head.epoch,
        lease,
        row.head.identity.paired,
        keys,
        row.created_at,
        row.updated_at,
        row.head.mirrored,
    )
