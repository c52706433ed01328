"""One session from snapshot to verdict. Judging takes processor time, so it runs in a thread, one session a store at a time;
tenants take turns.
"""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final

from protocol.rules import RULES, Finding
from protocol.types import session_uuid
from service.errors import Corrupt, Deleted, NoSession, Unavailable, WrongMasterKey
from service.integrity.report import Report
from service.integrity.stored import StoredCheck
from service.observe import get_logger
from service.records import SessionRow
from service.sql import integrity as sql
from service.sql.integrity import Snapshot
from service.store import AuthStore, Caller
from service.store.holders import CHECK
from service.vault import CREDS_TYPE, MasterKeys, SessionVault, wrap_context

_CHUNK: Final = 400
_UNPROVEN: Final = frozenset({"set-unproven", "data-key-unreadable"})
_log = get_logger("authstore.integrity")


async def check_session(store: AuthStore, caller: Caller, name: str) -> Report:
    """Judges a session as it is stored now and remembers the verdict. Raises NoSession, Deleted, Unavailable."""
    tenant = caller.need("read")
    sid = session_uuid(tenant, name)
    async with (
        store.holders.one(CHECK, tenant),
        store.database.connection() as connection,
        sql.snapshot(connection, sid) as found,
    ):
        if found is None:
            raise NoSession
        if found.row.head.deleted:
            raise Deleted
        report = await _judge(found, store.masters)
    await _keep(store, found.row, report)
    return report


async def open_findings(store: AuthStore, caller: Caller | None) -> dict[str, int] | None:
    """Findings of the last verdicts by rule, of the caller's tenant or (None) of all; None when nothing was ever checked."""
    tenant = None if caller is None else caller.need("read")
    async with store.database.connection() as connection:
        found = await sql.open_findings(connection, tenant)
        return found if found or await sql.ever_checked(connection, tenant) else None


def by_severity(rules: dict[str, int]) -> dict[str, int]:
    """Counts by rule -> ``{"error": n, "warning": n}``. A rule that this release does not know counts as an error."""
    counts = {"error": 0, "warning": 0}
    for rule, count in rules.items():
        counts[RULES[rule].severity if rule in RULES else "error"] += count
    return counts


async def _judge(found: Snapshot, masters: MasterKeys) -> Report:
    row = found.row
    report = Report(row.tenant, row.name, row.head.version)
    try:
        vault = open_vault(row, masters)
    except (Corrupt, WrongMasterKey):
        report.add([Finding("data-key-unreadable", "")])
        return report
    check = StoredCheck(row, found.seen, vault)
    await asyncio.to_thread(_add, report, check.journal(await found.entries()))
    await asyncio.to_thread(_add, report, check.creds(await found.one(vault.find(CREDS_TYPE, b""))))
    async with aclosing(found.chunks(_CHUNK)) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(_add, report, check.rows(chunk))
    await asyncio.to_thread(_add, report, check.finish())
    report.checked, report.highest_pre_key = check.checked, check.highest_pre_key
    return report


def open_vault(row: SessionRow, masters: MasterKeys) -> SessionVault:
    """The vault of a session as its row stands. Raises Corrupt, WrongMasterKey."""
    head = row.head
    context = wrap_context(row.tenant, head.sid.bytes, head.dek_id)
    data_key = masters.unwrap(head.master_key_id, head.wrapped_key, context)
    return SessionVault(row.tenant, head.sid.bytes, head.dek_id, data_key)


def _add(report: Report, findings: Iterable[Finding]) -> None:
    report.add(findings)


async def _keep(store: AuthStore, row: SessionRow, report: Report) -> None:
    try:
        async with store.database.connection() as connection:
            counts = (report.errors, report.warnings)
            # A version counts as seen only where the mark proves it: who can write the database could claim any other.
            seen = 0 if report.rules.keys() & _UNPROVEN else report.version
            await sql.keep_verdict(connection, row, seen, report.checked, counts, report.rules)
    except Unavailable:
        # A standby judges as well as a primary; it only cannot remember.
        _log.warning("a verdict was not kept")
