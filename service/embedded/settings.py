"""What we tell Postgres: its configuration files, and what the operator's own settings may not change.

What keeps commits durable, the network out and values out of the log goes on the command line, which no file and no
ALTER SYSTEM overrides. The rest goes to postgresql.conf, rewritten at every start, below DIR/postgresql.user.conf.
"""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.embedded import launch
from service.embedded.account import Account, name_of
from service.embedded.binaries import Binaries
from service.embedded.errors import SettingsRefused
from service.embedded.folder import PORT, SUPERUSER, Folder, Place

_DURABLE: Final = ("fsync", "full_page_writes", "synchronous_commit")
_USER_CONF_COPY: Final = "authstore.user.conf"
_USER_CONF_LIMIT: Final = 1 << 20
_CONNECTIONS: Final = 50
_CONNECTIONS_BESIDE: Final = 15
_LINE = re.compile(rb"line (\d+)")

_HBA: Final = "local all all peer map=svc\n"

_CONF: Final = f"""\
# Written by the service at every start. Own settings go to postgresql.user.conf in the data folder.
shared_buffers = {{shared_buffers_mb}}MB
max_connections = {{max_connections}}
cluster_name = 'authstore'
jit = off
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0
idle_in_transaction_session_timeout = 30s
timezone = 'UTC'
log_timezone = 'UTC'

# A log without values: no statements, no parameters, no DETAIL lines, which quote rows.
log_statement = none
log_min_error_statement = panic
log_error_verbosity = terse
log_line_prefix = '%m [%p] '

logging_collector = on
log_directory = 'log'
log_filename = 'postgres-%Y%m%d-%H%M%S.log'
log_file_mode = 0600
log_rotation_age = 0
log_rotation_size = 10MB

include_if_exists = '{_USER_CONF_COPY}'
"""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What differs between installations. ``shared_buffers_mb`` in MiB."""

    shared_buffers_mb: int = 128
    max_connections: int = _CONNECTIONS

    @staticmethod
    def connections_for(pooled: int) -> int:
        """Enough for services with so many connections at most, and beside them for a command and for us."""
        return max(_CONNECTIONS, pooled + _CONNECTIONS_BESIDE)


def write(folder: Folder, account: Account, settings: ServerSettings) -> None:
    """Write the configuration files into the data, owned by the account."""
    files = {
        "postgresql.conf": _CONF.format(
            shared_buffers_mb=settings.shared_buffers_mb, max_connections=settings.max_connections
        ).encode(),
        "pg_hba.conf": _HBA.encode(),
        "pg_ident.conf": _ident({"root", account.name, name_of(os.geteuid())}).encode(),
        _USER_CONF_COPY: _user_conf(folder.user_conf),
    }
    descriptor = os.open(folder.pg, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name, content in files.items():
            _put(descriptor, name, content, account)
    finally:
        os.close(descriptor)


def checked(account: Account, binaries: Binaries, place: Place) -> list[str]:
    """Arguments that hold the durability settings in place. Raises SettingsRefused when a file switches one off."""
    arguments = []
    for name in _DURABLE:
        command = [binaries.program("postgres"), "-D", place.name, "-C", name]
        answer = launch.run(account, command, keep=place.keep)
        if answer.returncode != 0:
            lines = ", ".join(sorted({number.decode() for number in _LINE.findall(answer.stderr)}))
            raise SettingsRefused(f"postgresql.user.conf cannot be used{f' (line {lines})' if lines else ''}")
        value = answer.stdout.decode().strip()
        if value == "off":
            raise SettingsRefused(f"{name} is off: an acknowledged commit could be lost. Remove that setting")
        arguments += ["-c", f"{name}={value}"]
    return arguments


def arguments(place: Place, socket_place: Place) -> list[str]:
    """Arguments that keep the network and strangers out, and parameters out of the log."""
    quoted = socket_place.name.replace('"', '""')
    fixed = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": f'"{quoted}"',
        "unix_socket_permissions": "0700",
        "hba_file": f"{place.name}/pg_hba.conf",
        "ident_file": f"{place.name}/pg_ident.conf",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
    }
    return [word for name, value in fixed.items() for word in ("-c", f"{name}={value}")]


def _ident(users: Iterable[str]) -> str:
    return "".join(f'svc "{user}" {SUPERUSER}\n' for user in sorted(users))


def _user_conf(path: Path) -> bytes:
    """The operator's settings, handed on as a copy: the account may not be able to read the original."""
    try:
        with path.open("rb") as file:
            content = file.read(_USER_CONF_LIMIT + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsRefused(f"postgresql.user.conf cannot be read: {error.strerror}") from error
    if len(content) > _USER_CONF_LIMIT:
        raise SettingsRefused("postgresql.user.conf is larger than 1 MiB")
    return content


def _put(folder: int, name: str, content: bytes, account: Account) -> None:
    """Replace a file, without following anything that the account could have planted in its own folder."""
    fresh = f"{name}.{secrets.token_hex(8)}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        if not account.is_self:
            os.fchown(descriptor, account.uid, account.gid)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
    finally:
        os.close(descriptor)
    os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
