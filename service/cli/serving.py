"""serve, health, doctor."""

import http.client
import json
import signal
import socket
import ssl
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service import process
from service.cli.output import Format, FormatOption, show
from service.cli.surroundings import settings_of, with_store
from service.config import Settings, load_settings
from service.store import AuthStore
from service.store.keyring import status

_HEALTH_TIMEOUT_S = 5


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen.")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes.")] = None,
    unix_socket: Annotated[Path | None, typer.Option(help="Listen here too.")] = None,
) -> None:
    """Runs the service in the foreground until SIGTERM or SIGINT."""
    # Until the loop listens for signals: a KeyboardInterrupt can be raised, and lost, where Python ignores exceptions.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    context.obj |= {"host": host, "port": port, "workers": workers, "unix_socket": unix_socket}
    process.run(settings_of(context), partial(load_settings, **context.obj))


def health(context: typer.Context) -> None:
    """Asks the running service whether it is ready; exit 0 or 1."""
    settings = settings_of(context)
    try:
        body = _readiness(settings)
    except (OSError, http.client.HTTPException, ValueError):
        typer.echo(f"no answer from {settings.unix_socket or f'{settings.host}:{settings.port}'}", err=True)
        sys.exit(1)
    typer.echo(body.get("reason", body["status"]))
    sys.exit(0 if body["status"] == "ok" else 1)


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


def _readiness(settings: Settings) -> dict[str, str]:
    """What the service says, over its unix socket when it has one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - what to ask, not to bind
    context = None if settings.unix_socket is not None else _trusting(settings)
    connection = (
        http.client.HTTPConnection(host, settings.port, timeout=_HEALTH_TIMEOUT_S)
        if context is None
        else http.client.HTTPSConnection(host, settings.port, timeout=_HEALTH_TIMEOUT_S, context=context)
    )
    with closing(connection):
        if settings.unix_socket is not None:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(_HEALTH_TIMEOUT_S)
            connection.sock.connect(str(settings.unix_socket))
        connection.request("GET", "/health/ready")
        body: dict[str, str] = json.load(connection.getresponse())
        return body


def _trusting(settings: Settings) -> ssl.SSLContext | None:
    """The certificate is for the public name, and this asks the loopback: only the answer's status counts.

    Where client certificates are asked for, the service's own is shown: its authority may well be theirs.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
