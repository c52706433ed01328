"""Where a service listens: addresses and paths that nobody else serves.

Without SO_REUSEPORT, so that the kernel refuses a second service. With it both would start, and clients would meet one
or the other. Several serving processes share what one of them, their parent, has bound.
"""

import errno
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from service.errors import StartError

_BACKLOG: Final = 128
_ANSWER_S: Final = 1.0


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of the host. Raises StartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with ExitStack() as stack:
            bound = [stack.enter_context(_bound(family, address)) for family, address in _addresses(found)]
            stack.pop_all()
    except OSError as error:
        raise _refused(f"{host}:{port}", error, "the port: AUTHSTORE_PORT or --port") from None
    return bound


def bind_path(path: Path) -> socket.socket:
    """A listening unix socket, in place of that of a service that is gone. Raises StartError."""
    try:
        _free(path)
        return _bound(socket.AF_UNIX, str(path))
    except OSError as error:
        raise _refused(f"unix:{path}", error, "the path: AUTHSTORE_UNIX_SOCKET or --unix-socket") from None


def paths_of(sockets: Sequence[socket.socket]) -> dict[Path, tuple[int, int]]:
    """The paths of unix sockets just bound, and which files they are now."""
    paths = [Path(bound.getsockname()).absolute() for bound in sockets if bound.family == socket.AF_UNIX]
    return {path: _identity(path) for path in paths}


def remove_paths(paths: Mapping[Path, tuple[int, int]]) -> None:
    """Removes those that are still the same files. To be called while they listen: nobody replaces a socket that answers."""
    for path, identity in paths.items():
        with suppress(OSError):
            if _identity(path) == identity:
                path.unlink()


def address_of(bound: socket.socket, *, tls: bool) -> str:
    """How a listening socket is shown: `http://…`, `https://…` or `unix:…`."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{Path(name).absolute()}"
    host = f"[{name[0]}]" if bound.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _free(path: Path) -> None:
    """Removes a socket on which nobody answers. Raises OSError when somebody does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_ANSWER_S)
            client.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    raise OSError(errno.EADDRINUSE, "")


def _refused(where: str, error: OSError, change: str) -> StartError:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    advice = f": another process listens there; stop it, or change {change}" if name == "EADDRINUSE" else ""
    return StartError(f"cannot listen on {where}: {name}{advice}")


_Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def _addresses(
    found: Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, _Address]],
) -> list[tuple[socket.AddressFamily, _Address]]:
    """Each once, in order. A machine without IPv6 may still name addresses of it."""
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: _Address | str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not to wait for connections of an earlier life
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
