"""health: asked every few seconds where containers run, so it imports nothing of the store."""

import http.client
import json
import socket
import ssl
import sys
from contextlib import closing
from typing import Final

import typer

from service.config import Settings, load_settings

_TIMEOUT_S: Final = 5


def health(context: typer.Context) -> None:
    """Asks the running service whether it is ready; exit 0 or 1."""
    settings = load_settings(**context.obj)
    try:
        body = _readiness(settings)
    except (OSError, http.client.HTTPException, ValueError):
        typer.echo(f"no answer from {settings.unix_socket or f'{settings.host}:{settings.port}'}", err=True)
        sys.exit(1)
    typer.echo(body.get("reason", body["status"]))
    sys.exit(0 if body["status"] == "ok" else 1)


def _readiness(settings: Settings) -> dict[str, str]:
    """What the service says, over its unix socket when it has one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - what to ask, not to bind
    context = None if settings.unix_socket is not None else _trusting(settings)
    connection = (
        http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)
        if context is None
        else http.client.HTTPSConnection(host, settings.port, timeout=_TIMEOUT_S, context=context)
    )
    with closing(connection):
        if settings.unix_socket is not None:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(_TIMEOUT_S)
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
