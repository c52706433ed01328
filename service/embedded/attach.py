"""A command beside a running service: use its Postgres, or start one for as long as the command runs."""

import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.embedded import folder as folders
from service.embedded import processes
from service.embedded.errors import AlreadyRunning, NotAnswering
from service.embedded.folder import SOCKET, Folder
from service.embedded.server import EmbeddedPostgres
from service.embedded.settings import ServerSettings

# SSLRequest of the protocol: answered with one byte, by a process forked for it, and never logged.
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_ANSWER_S: Final = 5.0
_RETRY_S: Final = 0.1
_PATIENCE_S: Final = 60.0


def attach(data_dir: Path) -> str | None:
    """The URL of the Postgres that serves this folder now, or None when none answers. Touches nothing.

    A copy of the folder of a running service names that service everywhere, and must not lead to it.
    Raises UnsafeFolder for a user who is neither that of the service nor root.
    """
    folder = Folder.at(data_dir)
    socket_folder = folder.recorded_socket_folder() or _of_an_earlier_release(folder)
    if socket_folder is None or not processes.has_service(folder) or not _answers(socket_folder / SOCKET):
        return None
    if folders.listener_of(socket_folder) not in (processes.postmaster_of(folder), 0) or not folder.is_held():
        return None
    return folders.dsn(socket_folder)


@contextmanager
def running(data_dir: Path, *, pg_bin: Path | None = None, settings: ServerSettings | None = None) -> Iterator[str]:
    """The URL of a Postgres on this folder: that of the running service, or one started here and stopped at the end.

    Raises NotAnswering when the folder stays held for 60 s by a service whose Postgres does not answer.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        url = attach(data_dir)
        if url is not None:
            yield url
            return
        server = EmbeddedPostgres(data_dir, pg_bin=pg_bin, settings=settings)
        try:
            url = server.start()
        except AlreadyRunning:
            if time.monotonic() > deadline:
                raise NotAnswering from None
            time.sleep(_RETRY_S)
            continue
        try:
            yield url
        finally:
            server.stop()
        return


def _of_an_earlier_release(folder: Folder) -> Path | None:
    """Where a service of a release that did not note its folder has its socket, as long as that service lives.

    A copy has the same note: what it says is taken only where the Postgres is seen to work in this very folder.
    """
    return folder.unsigned_socket_folder() if processes.is_seen_in(folder) else None


def _answers(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(path))
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"N", b"S")
    except OSError:
        return False
