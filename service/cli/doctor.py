"""doctor."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

from service.cli import asking, container
from service.cli.output import Format, FormatOption, counted, show
from service.cli.surroundings import settings_of, with_store
from service.config import Settings
from service.integrity import by_severity, open_findings
from service.store import AuthStore
from service.store.keyring import status

_LONG: Final = timedelta(minutes=1)
"""Commits that wait this long for a mirror are not on their way: its source does not take them."""

Row = dict[str, str]


def doctor(context: typer.Context, how: FormatOption = Format.table) -> None:
    """Checks an installation and says what to mend; exit 3 with findings, to which a note does not count."""
    settings = settings_of(context)
    findings = with_store(context, lambda store: _examine(settings, store))
    show(findings, how)
    sys.exit(3 if any(finding["verdict"] not in {"ok", "note"} for finding in findings) else 0)


async def _examine(settings: Settings, store: AuthStore) -> list[Row]:
    backend = await store.backend()
    keys = await status(store.database, store.masters)
    made = settings.embedded and settings.master_key is None
    return [
        _service(settings),
        _finding("database", "ok", f"PostgreSQL {backend.version}, schema {backend.schema}"),
        _finding("durability", "ok" if backend.fsync == "on" else "failed", f"fsync {backend.fsync}"),
        _finding("writable", "ok" if backend.writable else "failed", "primary" if backend.writable else "read-only"),
        _finding(
            "master key",
            "note" if made else "ok",
            "made in the data folder: keep a copy elsewhere, without it nothing can be opened"
            if made
            else "configured",
        ),
        _finding(
            "key rotation",
            "warning" if any(key.in_use and not key.current for key in keys) else "ok",
            f"{sum(key.in_use for key in keys)} in use",
        ),
        transport(settings, contained=container.is_inside()),
        await _integrity(store),
        await _mirrors(store),
    ]


def transport(settings: Settings, *, contained: bool) -> Row:
    """Pure. In a container everything listens on all of its own addresses, and who reaches those is decided outside."""
    if settings.tls_cert:
        return _finding("transport", "ok", "TLS")
    plain = f"plain HTTP on {settings.host}"
    if settings.host in {"127.0.0.1", "::1", "localhost"}:
        return _finding("transport", "ok", plain)
    if contained:
        outside = "publish it on the host's loopback or behind TLS, which cannot be seen from in here"
        return _finding("transport", "note", f"{plain} of a container: {outside}")
    return _finding("transport", "warning", plain)


def _service(settings: Settings) -> Row:
    try:
        place = asking.place_of(settings)
    except asking.NoService:
        return _finding("service", "note", "none runs on this data folder")
    try:
        body = asking.readiness(settings, place)
    except asking.NoAnswer:
        return _finding("service", "note", f"no answer from {place}")
    if body["status"] == "ok":
        return _finding("service", "ok", f"ready on {place}")
    return _finding("service", "warning", f"not ready on {place}: {body.get('reason', body['status'])}")


async def _integrity(store: AuthStore) -> Row:
    found = await open_findings(store, None)
    if found is None:
        return _finding("integrity", "note", "never checked: run authstore check --all")
    counts = by_severity(found)
    said = f"{counted(counts['error'], 'error')}, {counted(counts['warning'], 'warning')} open since the last check"
    if not found:
        return _finding("integrity", "ok", said)
    return _finding("integrity", "warning", f"{said}: authstore check --all --restart shows them")


async def _mirrors(store: AuthStore) -> Row:
    entries, sessions, oldest = await store.mirrors.waiting_in_all()
    if oldest is None:
        return _finding("mirrors", "ok", "no commit waits")
    said = f"{counted(entries, 'commit')} of {counted(sessions, 'session')} waiting"
    if datetime.now(UTC) - oldest < _LONG:
        return _finding("mirrors", "note", said)
    since = oldest.isoformat(timespec="seconds")
    return _finding("mirrors", "warning", f"{said} since {since}: authstore migrate mirror tells whose")


def _finding(check: str, verdict: str, says: str) -> Row:
    return {"check": check, "verdict": verdict, "says": says}
