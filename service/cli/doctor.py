"""doctor."""

import sys

import typer

from service.cli.output import Format, FormatOption, show
from service.cli.surroundings import settings_of, with_store
from service.config import Settings
from service.store import AuthStore
from service.store.keyring import status


def doctor(context: typer.Context, how: FormatOption = Format.table) -> None:
    """Checks an installation and says what to mend; exit 3 with findings, to which a note does not count."""
    settings = settings_of(context)
    findings = with_store(context, lambda store: _examine(settings, store))
    show(findings, how)
    sys.exit(3 if any(finding["verdict"] not in {"ok", "note"} for finding in findings) else 0)


async def _examine(settings: Settings, store: AuthStore) -> list[dict[str, str]]:
    backend = await store.backend()
    keys = await status(store.database, store.masters)
    made = settings.embedded and settings.master_key is None
    return [
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
        _finding(
            "transport",
            "ok" if settings.tls_cert or settings.host in {"127.0.0.1", "::1", "localhost"} else "warning",
            "TLS" if settings.tls_cert else f"plain HTTP on {settings.host}",
        ),
    ]


def _finding(check: str, verdict: str, says: str) -> dict[str, str]:
    return {"check": check, "verdict": verdict, "says": says}
