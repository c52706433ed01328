"""The operating-system user that runs Postgres: ourselves, or for root a system user, since Postgres refuses root."""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.embedded.errors import NoAccount, UnsafeFolder

SYSTEM_USER: Final = "authstore-pg"
# Debian's and Red Hat's own; never `nobody`, which other daemons share.
_FALLBACK_USER: Final = "postgres"
_SBIN: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """A user with a name: peer authentication goes by names."""

    name: str
    uid: int
    gid: int

    @property
    def is_self(self) -> bool:
        """Whether this process already runs as this user."""
        return self.uid == os.geteuid()

    def reaches(self, path: Path) -> bool:
        """Whether the user may search every folder above the path, and read and search or execute the path itself."""
        if self.is_self:
            return True
        real = path.resolve()
        return self._may(real, stat.S_IROTH | stat.S_IXOTH) and self.traverses(real.parent)

    def traverses(self, folder: Path) -> bool:
        """Whether the user may search the folder and all above it. Access lists are not asked: they rarely deny."""
        real = folder.resolve()
        return self.is_self or all(self._may(step, stat.S_IXOTH) for step in (real, *real.parents))

    def _may(self, path: Path, bits: int) -> bool:
        try:
            status = path.stat()
        except OSError:
            return False
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return status.st_mode >> shift & bits == bits


def name_of(uid: int) -> str:
    """The user's name. Raises NoAccount: neither Postgres nor peer authentication works for a number alone."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise NoAccount(f"user {uid} has no name on this machine: give it a line in /etc/passwd") from None


def for_data(pg: Path) -> Account:
    """The user that runs Postgres on this data: who owns it, or who shall own it when it is not there yet."""
    if pg.is_symlink():
        raise UnsafeFolder(f"{pg} is a link: let the data folder itself be one instead")
    owner = pg.lstat().st_uid if pg.is_dir() else None
    me = os.geteuid()
    if me != 0:
        if owner not in (None, me):
            raise UnsafeFolder(f"{pg} belongs to another user: run as that user, or as root")
        return Account(name_of(me), me, os.getegid())
    if owner == 0:
        raise UnsafeFolder(f"{pg} belongs to root, as whom Postgres refuses to run: give it to {SYSTEM_USER}")
    if owner is not None:
        return Account(name_of(owner), owner, pwd.getpwuid(owner).pw_gid)
    return _named(SYSTEM_USER) or _created() or _named(_FALLBACK_USER) or _none()


def _named(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid) if entry.pw_uid != 0 else None


def _created() -> Account | None:
    useradd = shutil.which("useradd", path=_SBIN)
    if useradd is None:
        return None
    shell = shutil.which("nologin", path=_SBIN) or "/bin/false"
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", shell]
    # Its exit code is not asked: another process may have made the user a moment earlier.
    subprocess.run([useradd, *options, SYSTEM_USER], check=False, capture_output=True, env={"PATH": _SBIN})  # noqa: S603
    return _named(SYSTEM_USER)


def _none() -> Account:
    raise NoAccount(
        f"Postgres refuses to run as root and no user for it could be made: create a system user named {SYSTEM_USER}, "
        f"or run the service as a plain user"
    )
