"""The exact repairs: planned from findings, shown before they are made, archived, committed under the session's lease.

| rule | repair |
|---|---|
| `pre-key-beyond-counter` | both pre-key counters go past the highest pre-key |
| `sender-key-memory-stale` | the memory row goes, so that the sender key is handed out again |
| `bytes-spelling` | bytes are spelled as BufferJSON does |

Nothing else is touched. What a repair replaces is kept beside what it wrote (`archive.py`), and `undo` puts a row back only
while it is exactly what the repair wrote: whatever the session's owner wrote since stays.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final
from uuid import UUID, uuid4

from protocol.checks.creds import whole
from protocol.errors import BadValue
from protocol.json_edit import set_members
from protocol.json_text import parse
from protocol.pre_key import MOST_ID
from protocol.repairs import Repair, repair
from protocol.rules import CREDS, RULES, Finding
from protocol.types import session_uuid
from service.errors import BadInput, NoSession, OutcomeUnknown, Refused, VersionMismatch
from service.integrity import archive
from service.integrity.archive import Archived, archived
from service.integrity.check import check_session, open_vault
from service.integrity.report import Report
from service.records import Head, Vacant
from service.sql import integrity as sql
from service.sql.sessions import find
from service.store import AuthStore, Caller
from service.store.request import CommitRequest, Row
from service.vault import CREDS_TYPE, SessionVault

_LEASE_S: Final = 60.0
_ATTEMPTS: Final = 4
_COUNTERS: Final = "pre-key-beyond-counter"
_MEMORY: Final = "sender-key-memory-stale"
_SPELLING: Final = "bytes-spelling"


@dataclass(frozen=True, slots=True)
class Step:
    """One row that changes: ``value`` is its new text, None deletes it; ``before`` what it is. ``rules``: what asks for it."""

    ktype: str
    key_id: str = field(repr=False)
    rules: tuple[str, ...]
    value: bytes | None = field(repr=False)
    before: bytes = field(repr=False)

    @property
    def row(self) -> Row:
        return Row(*_stored_name(self.ktype, self.key_id), self.value)

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


@dataclass(frozen=True, slots=True)
class Undone:
    """How many rows were put back, and ``(type, id)`` of those that were left alone, as they are not what was written then."""

    back: int
    left: tuple[tuple[str, str], ...] = field(repr=False)


async def mend(store: AuthStore, caller: Caller, shown: Plan) -> Report:
    """Makes the plan that was shown, and judges again.

    Raises LeaseHeld while another owns the session, VersionMismatch when it is not what was shown any more.
    """
    if not shown.steps:
        return await check_session(store, caller, shown.session)
    async with _leased(store, caller, shown.session) as epoch:
        _, now = await plan(store, caller, shown.session)
        if now != shown:
            raise VersionMismatch("the session changed since the repairs were shown")
        sid, version, commit = session_uuid(caller.tenant, shown.session), shown.version, uuid4()
        _, vault = await _stand(store, caller, shown.session)
        kept = [archived(vault, step.row, step.before, commit) for step in shown.steps]
        async with store.database.connection() as connection:
            await archive.keep(connection, sid, version, vault, kept, made=False)
        try:
            rows = [step.row for step in shown.steps]
            await store.commit(caller, shown.session, _request(rows, epoch, version, commit))
        except (Refused, VersionMismatch) as error:
            if not isinstance(error, OutcomeUnknown):  # what may have been made must be there to be undone
                async with store.database.connection() as connection:
                    await sql.forget_archived(connection, sid, version)
            raise
        async with store.database.connection() as connection:
            await archive.keep(connection, sid, version, vault, kept, made=True)
    return await check_session(store, caller, shown.session)


async def undo(store: AuthStore, caller: Caller, name: str) -> Undone:
    """Puts back what the session's last repair replaced, row by row, as far as nobody wrote the row since.

    Raises BadInput when no repair is archived, or in a form that does not say what was written; LeaseHeld.
    """
    caller.need("write")
    async with _leased(store, caller, name) as epoch:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await _undo(store, caller, name, epoch)
            except VersionMismatch:
                continue  # what was compared is not what is there any more
        return await _undo(store, caller, name, epoch)


async def _undo(store: AuthStore, caller: Caller, name: str, epoch: int) -> Undone:
    sid = session_uuid(caller.tenant, name)
    head, vault = await _stand(store, caller, name)
    async with store.database.connection() as connection:
        found = await archive.find(connection, sid, vault)
    if found is None:
        raise BadInput("no repair of this session is archived")
    version, rows = found
    # Read after the version: when they are of another one, the commit does not apply.
    values = await store.get(caller, name, [(row.ktype, row.key_id) for row in rows])
    back, left = [], []
    for at, row in enumerate(rows):
        if _is_as_written(row, values.get(at), head, vault):
            back.append(row)
        elif values.get(at) != row.before:
            left.append(row)
    if back:
        # The counters of the creds go back too, from those very creds: that is what undoing means.
        force = any(row.ktype == CREDS_TYPE for row in back)
        as_before = [Row(row.ktype, row.key_id, row.before) for row in back]
        await store.commit(caller, name, _request(as_before, epoch, head.version, uuid4(), force=force))
    stay = {vault.find(row.ktype, row.key_id) for row in left}
    done = [kh for row in rows if (kh := vault.find(row.ktype, row.key_id)) not in stay]
    async with store.database.connection() as connection:
        await sql.forget_archived(connection, sid, version, done)
    return Undone(len(back), tuple(sorted((row.ktype or CREDS, row.key_id.decode()) for row in left)))


def _is_as_written(row: Archived, value: bytes | None, head: Head, vault: SessionVault) -> bool:
    """Whether a row is what the repair left there, and nothing that came later."""
    commit = head.remembered(row.commit.bytes)
    if value is None or row.written is None:
        # A row that is not there does not tell who deleted it: only while the repair is the session's last commit.
        return value is None and row.written is None and commit is not None and commit.version == head.version
    made = row.made or commit is not None
    return made and archive.digest(vault, row.ktype, row.key_id, value) == row.written


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
        return Step(ktype, key_id, (_MEMORY,), None, value)
    mended = value
    try:
        if _SPELLING in rules:
            mended = repair(_stored_name(ktype, key_id)[0], mended, frozenset({Repair.bytes})).text
        if _COUNTERS in rules:
            mended = _past(mended, report.highest_pre_key)
    except BadValue:
        return None
    return Step(ktype, key_id, tuple(rules), mended, value) if mended != value else None


def _past(creds: bytes, highest: int) -> bytes:
    """Both counters past the highest pre-key; one that is there already stays. BadValue where there is no id past it."""
    value = parse(creds)
    if not isinstance(value, dict):
        raise BadValue("creds is an object")
    if highest >= MOST_ID:
        raise BadValue("there is no id past the highest")
    names = ("nextPreKeyId", "firstUnuploadedPreKeyId")
    return set_members(creds, {name: highest + 1 for name in names if not (whole(value.get(name)) or 0) > highest})


def _request(rows: Sequence[Row], epoch: int, version: int, commit: UUID, *, force: bool = False) -> CommitRequest:
    """What is committed at the version that was looked at, and at no other."""
    creds = next((row.value for row in rows if row.ktype == CREDS_TYPE), None)
    keys = [row for row in rows if row.ktype != CREDS_TYPE]
    return CommitRequest(creds, keys, force=force, lease_epoch=epoch, if_match=version, key=commit)


def _stored_name(ktype: str, key_id: str) -> tuple[str, bytes]:
    return (CREDS_TYPE, b"") if ktype == CREDS else (ktype, key_id.encode())


async def _stand(store: AuthStore, caller: Caller, name: str) -> tuple[Head, SessionVault]:
    async with store.database.connection() as connection:
        found = await find(connection, session_uuid(caller.tenant, name))
    if isinstance(found, Vacant):
        raise NoSession
    return found.head, open_vault(found, store.masters)


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
