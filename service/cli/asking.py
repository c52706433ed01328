"""Asking the running service how it is: which address, and what it says. Imports nothing of the store."""

import http.client
import ipaddress
import json
import socket
import ssl
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from service import trust, whereabouts
from service.config import Settings

_TIMEOUT_S: Final = 5
_PLACE: Final = frozenset({"host", "port", "unix_socket"})
_PORTS: Final = {"http": 80, "https": 443}
_UNIX: Final = "unix:"


class NoService(Exception):
    """None runs on the data folder."""


class NoAnswer(Exception):
    """The address does not answer as a service of ours does."""


def place_of(settings: Settings) -> str:
    """Where the service is: `http://…`, `https://…` or `unix:…`. Raises NoService.

    That is where the settings say when they do, else where the folder's own service listens. A folder that is
    another user's does not tell, and a database of one's own has none: there the defaults count.
    """
    if settings.embedded and not settings.model_fields_set & _PLACE:
        try:
            found = whereabouts.find(settings.data_dir)
        except PermissionError:
            return _configured(settings)
        if not found:
            raise NoService
        return next((place for place in found if place.startswith(_UNIX)), found[0])
    return _configured(settings)


def readiness(settings: Settings, place: str, *, own: bool = True) -> dict[str, str]:
    """What the service there says of its readiness; ``own``: it is the one of these settings. Raises NoAnswer."""
    try:
        with closing(_connection(settings, place, own=own)) as connection:
            connection.request("GET", "/health/ready")
            body: dict[str, str] = json.load(connection.getresponse())
            return {"status": str(body["status"])} | body
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        raise NoAnswer from None


def is_place(text: str) -> bool:
    """Whether this is an address that can be asked."""
    try:
        parts = urlsplit(text)
        return parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _configured(settings: Settings) -> str:
    if settings.unix_socket is not None:
        return f"{_UNIX}{settings.unix_socket}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.tls_cert is None else 'https'}://{host}:{settings.port}"


def _connection(settings: Settings, place: str, *, own: bool) -> http.client.HTTPConnection:
    if place.startswith(_UNIX):
        connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_TIMEOUT_S)
        connection.sock.connect(place.removeprefix(_UNIX))
        return connection
    parts = urlsplit(place)
    host = parts.hostname or ""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what to ask, not to bind
    port = parts.port or _PORTS[parts.scheme]
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=_trusting(settings, host, own=own))


def _trusting(settings: Settings, host: str, *, own: bool) -> ssl.SSLContext:
    """Of a service of ours or on this machine the certificate is for its public name: only the answer's status counts.

    Where client certificates are asked for, the service's own is shown: its authority may well be theirs.
    """
    context = trust.for_clients()
    if own or _is_here(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None and settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
