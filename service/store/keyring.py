"""Master keys against the database: the check at start, and rotation.

A database remembers which master keys its data keys are wrapped by. Starting without one of them is refused: a service
that cannot open what it finds would otherwise report corruption key by key.

A rotation needs nobody to stand still:

| step | what a serving process sees |
|---|---|
| the new key is put before the old one | nothing, or takes it over within a second |
| the database retires the old one | its next new session is refused by the statement; it reads its keys again and retries |
| data keys are wrapped anew, one pass | a data key wrapped by a key it does not know: it reads its keys again |

So no session is made under a retired key, not even by a process that was stopped in between, and what `status` shows as
unused stays unused. Killed on any line, a rotation is finished by running it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from service.errors import Corrupt, Unavailable, WrongMasterKey
from service.sql import access, sessions
from service.sql.pool import Connection, Database
from service.sql.sessions import Wrapped
from service.vault import MasterKeys, wrap_context

_FIRST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class MasterKeyRow:
    """``id`` is a fingerprint; ``in_use``: sessions are sealed under it; ``here``: it is configured."""

    id: str
    created_at: datetime
    retired_at: datetime | None
    in_use: bool
    here: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Rotated:
    """``wrapped``: data keys now under the current master key; ``broken``: those that do not open and stay as they are."""

    wrapped: int
    broken: int


async def check(connection: Connection, masters: MasterKeys) -> None:
    """WrongMasterKey when a key that seals sessions is not configured; registers the current key otherwise."""
    if masters.current not in _living(await access.list_master_keys(connection), masters):
        await access.add_master_key(connection, masters.current, masters.check_value())


def _living(known: Sequence[Any], masters: MasterKeys) -> set[str]:
    """The keys that sessions may be made under. Raises WrongMasterKey when those configured are not this database's."""
    if missing := masters.missing({row["id"] for row in known if row["in_use"]}):
        raise WrongMasterKey(
            "the configured master key does not open this database: its sessions are sealed under "
            + (f"key {min(missing)}" if len(missing) == 1 else f"{len(missing)} other keys")
            + f", configured is {masters.current}"
        )
    living = {row["id"] for row in known if row["retired_at"] is None}
    if living and masters.missing(living) == living:
        raise WrongMasterKey(
            f"the configured master key is not the one this database was set up with (key {min(living)}); "
            "to change it, configure the new key and the old one and run `authstore key rotate`"
        )
    return living


async def never_set_up(url: str) -> bool:
    """Whether this database has never had a master key: it has no schema yet, or is as a first start left it."""
    database = Database(url)
    await database.open()
    try:
        async with database.connection() as connection:
            return not await access.has_master_keys(connection)
    finally:
        await database.close()


async def check_opens(connection: Connection, masters: MasterKeys) -> None:
    """WrongMasterKey when sessions are sealed under a key that is not configured."""
    known = await access.list_master_keys(connection)
    if masters.missing({row["id"] for row in known if row["in_use"]}):
        raise WrongMasterKey
    masters.forget()


async def renew(connection: Connection, masters: MasterKeys) -> None:
    """After a session could not be made: reads the keys again and registers the current one.

    Unavailable when it was retired: this process has missed a rotation of keys that are configured for it. So also when
    the keys could not start a service here: what is made under such a key would be lost with it.
    """
    masters.refresh()
    known = await access.list_master_keys(connection)
    retired = any(row["id"] == masters.current and row["retired_at"] is not None for row in known)
    try:
        if not retired:
            _living(known, masters)
    except WrongMasterKey as error:
        raise Unavailable(error.detail) from None
    if retired or not await access.register_master_key(connection, masters.current, masters.check_value()):
        raise Unavailable("the configured master key is retired: restart with the new one before it")


async def status(database: Database, masters: MasterKeys) -> list[MasterKeyRow]:
    """Every master key the database knows."""
    async with database.connection() as connection:
        rows = await access.list_master_keys(connection)
    return [
        MasterKeyRow(
            row["id"],
            row["created_at"],
            row["retired_at"],
            row["in_use"],
            row["id"] in masters.ids(),
            row["id"] == masters.current,
        )
        for row in rows
    ]


async def rewrap(database: Database, masters: MasterKeys) -> Rotated:
    """Retires every master key but the current one and wraps every data key by that. Runs beside serving processes.

    Rows are not touched: only the 32-byte data keys are wrapped anew, each swapped only if it is still the one read.
    """
    wrapped = broken = 0
    after, kept = _FIRST, None
    async with database.connection() as connection:
        while kept != masters.current:
            kept = masters.current
            await access.add_master_key(connection, kept, masters.check_value())
            await access.retire_master_keys(connection, kept)
            masters.refresh()  # another rotation may have put its key first: that is the one to stay
        old = sorted(masters.ids() - {masters.current})
        while records := await sessions.find_wrapped(connection, old, after):
            swaps = [swap for record in records if (swap := _swap(masters, record)) is not None]
            await sessions.rewrap(connection, swaps, masters.current)
            wrapped += len(swaps)
            broken += len(records) - len(swaps)
            after = records[-1].sid
    return Rotated(wrapped, broken)


def _swap(masters: MasterKeys, stored: Wrapped) -> tuple[UUID, bytes, bytes] | None:
    context = wrap_context(stored.tenant, stored.sid.bytes, stored.dek_id)
    try:
        data_key = masters.unwrap(stored.master_key_id, stored.wrapped_key, context)
    except Corrupt:
        return None
    return stored.sid, stored.wrapped_key, masters.wrap(data_key, context)[1]
