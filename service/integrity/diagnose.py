"""A session for a bug report, without a byte of it: every value becomes lengths and digests, every id a pseudonym.

Lines of JSON, so that a session of any size fits: what it is, each row, what is wrong with it. Digests are keyed by random
bytes that are thrown away with the bundle: two bundles of one session cannot be compared, and nothing can be guessed.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

from protocol.redact import Redactor
from protocol.rules import CREDS
from protocol.types import session_uuid
from service.errors import Corrupt, NoSession, WrongMasterKey
from service.integrity.check import check_session, open_vault
from service.integrity.report import Report
from service.records import JournalEntry, SessionRow, StoredRow
from service.sql import integrity as sql
from service.store import AuthStore, Caller
from service.store.entries import Entry, in_journal
from service.vault import SessionVault

_CHUNK = 400


async def diagnose(store: AuthStore, caller: Caller, name: str) -> AsyncGenerator[dict[str, Any], None]:
    """The lines of a bundle. Raises NoSession, Deleted."""
    report = await check_session(store, caller, name)
    redactor = Redactor(secrets.token_bytes(32))
    sid = session_uuid(caller.tenant, name)
    async with store.database.connection() as connection, sql.snapshot(connection, sid) as found:
        if found is None:
            raise NoSession
        yield _about(found.row, report, redactor)
        try:
            vault = open_vault(found.row, store.masters)
        except (Corrupt, WrongMasterKey):
            vault = None
        async with aclosing(found.chunks(_CHUNK)) as chunks:
            async for chunk in chunks:
                for row in chunk:
                    yield _shown(row, vault, redactor)
        for entry in await found.entries():
            for line in _waiting(entry, vault, redactor):
                yield line
    for finding in report.findings:
        yield {
            "finding": finding.rule,
            "severity": finding.severity,
            "type": finding.ktype,
            "id": redactor.name(finding.ktype, finding.key_id),
            "detail": finding.detail,
        }


def _about(row: SessionRow, report: Report, redactor: Redactor) -> dict[str, Any]:
    head = row.head
    return {
        "bundle": 1,
        "authstore": version("baileys-auth-store"),
        "session": redactor.digest(row.name.encode()),
        "version": head.version,
        "epoch": head.epoch,
        "rows": head.rows,
        "journal": head.pending,
        "paired": head.identity.paired,
        "counters": list(head.identity.counters),
        "leased": row.lease is not None and row.lease.live,
        "errors": report.errors,
        "warnings": report.warnings,
    }


def _shown(row: StoredRow, vault: SessionVault | None, redactor: Redactor) -> dict[str, Any]:
    opened = None if vault is None else _open(row, vault)
    if opened is None:
        return {"type": row.ktype or CREDS, "unreadable": len(row.sealed)}
    return _value(row.ktype, *opened, redactor)


def _waiting(entry: JournalEntry, vault: SessionVault | None, redactor: Redactor) -> Iterator[dict[str, Any]]:
    """A commit that is not in rows yet, key by key; each comes after what the rows say of it."""
    about = {"journal": entry.version}
    try:
        opened = None if vault is None else Entry.decode(vault.open_entry(in_journal(entry.version), entry.sealed))
    except Corrupt:
        opened = None
    if opened is None:
        yield {**about, "unreadable": len(entry.sealed)}
        return
    creds = [] if opened.creds is None else [("", b"", opened.creds)]
    for ktype, key_id, text in [*creds, *opened.rows]:
        if text is None:
            yield {**about, "type": ktype, "id": redactor.name(ktype, key_id.decode()), "deleted": True}
        else:
            yield {**about, **_value(ktype, key_id, text, redactor)}


def _value(ktype: str, key_id: bytes, text: bytes, redactor: Redactor) -> dict[str, Any]:
    if not ktype:
        return {"type": CREDS, "bytes": len(text), "value": redactor.value(CREDS, text)}
    name = redactor.name(ktype, key_id.decode(errors="replace"))
    return {"type": ktype, "id": name, "bytes": len(text), "value": redactor.value(ktype, text)}


def _open(row: StoredRow, vault: SessionVault) -> tuple[bytes, bytes] | None:
    try:
        return vault.open(row.ktype, row.kh, row.digest, row.sealed)
    except Corrupt:
        return None
