"""The exact repairs: planned from findings, shown before they are made, archived, committed under the session's lease.

| rule | repair |
|---|---|
| `pre-key-beyond-counter` | both pre-key counters go past the highest pre-key |
| `sender-key-memory-stale` | the memory row goes, so that the sender key is handed out again |
| `bytes-spelling` | bytes are spelled as BufferJSON does |

Nothing else is touched. Rows that a repair replaces are copied to `integrity_archive` before the commit, sealed as they are;
`undo` puts them back. A copy whose commit did not happen is dropped again.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from protocol.errors import BadValue
from protocol.json_edit import set_members
from protocol.json_text import parse
from protocol.repairs import Repair, repair
from protocol.rules import CREDS, RULES, Finding
from protocol.types import session_uuid
from service.errors import BadInput, NoSession, VersionMismatch
from service.integrity.check import check_session, open_vault
from service.integrity.report import Report
from service.records import StoredRow, Vacant
from service.sql import integrity as sql
from service.sql.sessions import find
from service.store import AuthStore, Caller
from service.store.request import CommitRequest, Row
from service.vault import CREDS_TYPE, SessionVault

_LEASE_S: Final = 60.0
_COUNTERS: Final = "pre-key-beyond-counter"
_MEMORY: Final = "sender-key-memory-stale"
_SPELLING: Final = "bytes-spelling"


@dataclass(frozen=True, slots=True)
class Step:
    """One row that changes: ``value`` is its new text, None deletes it. ``rules``: what asks for it."""

    ktype: str
    key_id: str = field(repr=False)
    rules: tuple[str, ...]
    value: bytes | None = field(repr=False)

    @property
    def does(self) -> str:
        return "; ".join(RULES[rule].repair or "" for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be mended at ``version``."""

    session: str = field(repr=False)
    version: int
    steps: tuple[Step, ...]


async def plan(store: AuthStore, caller: Caller, name: str) -> tuple[Report, Plan]:
    """Judges the session and says what can be mended exactly. Raises what a check raises."""
    report = await check_session(store, caller, name)
    asked = _asked(report.findings)
    values = await _values(store, caller, name, asked)
    steps = tuple(step for place, rules in asked.items() if (step := _step(place, rules, values.get(place), report)))
    return report, Plan(name, report.version, steps)


async def mend(store: AuthStore, caller: Caller, shown: Plan) -> Report:
    """Makes the plan that was shown, and judges again.

    Raises LeaseHeld while another owns the session, VersionMismatch when it is not what was shown any more.
    """
    async with _leased(store, caller, shown.session) as epoch:
        _, now = await plan(store, caller, shown.session)
        if now != shown:
            raise VersionMismatch("the session changed since the repairs were shown")
        sid = session_uuid(caller.tenant, shown.session)
        await store.settle(caller, shown.session)  # what is archived is rows
        vault = await _vault(store, caller, shown.session)
        places = [vault.find(*_stored_name(step.ktype, step.key_id)) for step in shown.steps]
        async with store.database.connection() as connection:
            await sql.archive(connection, sid, shown.version, places)
        try:
            await store.commit(caller, shown.session, _request(shown.steps, epoch, shown.version))
        except BaseException:
            async with store.database.connection() as connection:
                await sql.forget_archived(connection, sid, shown.version)
            raise
    return await check_session(store, caller, shown.session)


async def undo(store: AuthStore, caller: Caller, name: str) -> int:
    """Puts back what the session's last repair replaced; how many rows. Raises BadInput when nothing was replaced."""
    sid = session_uuid(caller.need("write"), name)
    async with _leased(store, caller, name) as epoch:
        vault = await _vault(store, caller, name)
        async with store.database.connection() as connection:
            found = await sql.find_archived(connection, sid)
        if found is None:
            raise BadInput("no repair of this session is archived")
        version, stored = found
        steps = [_as_it_was(vault, row) for row in stored]
        # The counters of the creds go back too: that is what undoing means.
        await store.commit(caller, name, _request(steps, epoch, None, force=True))
        async with store.database.connection() as connection:
            await sql.forget_archived(connection, sid, version)
    return len(stored)


def _asked(findings: Iterable[Finding]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Rules with a repair, by the row they ask for."""
    asked: dict[tuple[str, str], tuple[str, ...]] = {}
    for finding in findings:
        if finding.repair is not None:
            place = (finding.ktype, finding.key_id)
            asked[place] = tuple(sorted({*asked.get(place, ()), finding.rule}))
    return asked


async def _values(
    store: AuthStore, caller: Caller, name: str, places: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], bytes]:
    wanted = list(places)
    if not wanted:
        return {}
    values = await store.get(caller, name, [_stored_name(*place) for place in wanted])
    return {wanted[at]: value for at, value in values.items()}


def _step(place: tuple[str, str], rules: Sequence[str], value: bytes | None, report: Report) -> Step | None:
    """The repair of one row; None when it cannot be made exactly after all."""
    ktype, key_id = place
    if value is None:
        return None
    if _MEMORY in rules:
        return Step(ktype, key_id, (_MEMORY,), None)
    mended = value
    try:
        if _SPELLING in rules:
            mended = repair(_stored_name(ktype, key_id)[0], mended, frozenset({Repair.bytes})).text
        if _COUNTERS in rules:
            mended = _past(mended, report.highest_pre_key)
    except BadValue:
        return None
    return Step(ktype, key_id, tuple(rules), mended) if mended != value else None


def _past(creds: bytes, highest: int) -> bytes:
    """Both counters past the highest pre-key; one that is there already stays."""
    value = parse(creds)
    names = ("nextPreKeyId", "firstUnuploadedPreKeyId")
    return set_members(creds, {name: highest + 1 for name in names if not value.get(name, 0) > highest})


def _request(steps: Sequence[Step], epoch: int, version: int | None, *, force: bool = False) -> CommitRequest:
    creds = next((step.value for step in steps if step.ktype == CREDS), None)
    rows = [Row(*_stored_name(step.ktype, step.key_id), step.value) for step in steps if step.ktype != CREDS]
    return CommitRequest(creds, rows, force=force, lease_epoch=epoch, if_match=version)


def _as_it_was(vault: SessionVault, row: StoredRow) -> Step:
    key_id, text = vault.open(row.ktype, row.kh, row.digest, row.sealed)
    return Step(row.ktype or CREDS, key_id.decode(), (), text)


def _stored_name(ktype: str, key_id: str) -> tuple[str, bytes]:
    return (CREDS_TYPE, b"") if ktype == CREDS else (ktype, key_id.encode())


async def _vault(store: AuthStore, caller: Caller, name: str) -> SessionVault:
    async with store.database.connection() as connection:
        found = await find(connection, session_uuid(caller.tenant, name))
    if isinstance(found, Vacant):
        raise NoSession
    return open_vault(found, store.masters)


@asynccontextmanager
async def _leased(store: AuthStore, caller: Caller, name: str) -> AsyncIterator[int]:
    """The session's lease, for as long as it is written. Raises LeaseHeld."""
    await store.show(caller, name)  # a lease would make a session that is not there
    holder = f"authstore check {token_hex(4)}"
    granted = await store.lease(caller, name, holder, _LEASE_S, takeover=False, epoch=None)
    try:
        yield granted.epoch
    finally:
        await store.release(caller, name, granted.epoch)
