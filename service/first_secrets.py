"""The secrets an installation starts with: master keys and the first token, configured or made once.

With an embedded database they are made in the data folder, 0600, when nobody configured them. A database of one's own
has no such folder that outlives a container: there the master key must be configured.
"""

import base64
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.config import ConfigError, Settings
from service.errors import WrongMasterKey
from service.vault import KEY_BYTES, MasterKeys

MASTER_KEY_FILE: Final = "master.key"
MADE_FILE: Final = "master.key.made"
TOKEN_FILE: Final = "token"
_UNFINISHED: Final = f".{MASTER_KEY_FILE}.new-"


def master_keys(
    settings: Settings, reload: Callable[[], Settings], *, unused: Callable[[], bool] = lambda: False
) -> MasterKeys:
    """The configured master keys, or the data folder's. Raises ConfigError.

    ``unused``: whether the folder's database has never had a key. Only such a folder gets one: beside what is sealed
    under a key that is not there, another would look like it, and be kept in its place.
    """

    def read() -> Sequence[bytes]:
        try:
            return _read_master_keys(reload(), lambda: False)
        except (ConfigError, OSError):
            raise WrongMasterKey("the master keys cannot be read") from None

    return MasterKeys(_read_master_keys(settings, unused), read)


def first_token(settings: Settings) -> str | None:
    """The configured first token, or the data folder's; None beside a database of one's own."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    if not settings.embedded:
        return None
    path = settings.data_dir / TOKEN_FILE
    try:
        return _kept(path, lambda: "bas_first_" + secrets.token_urlsafe(32))
    except OSError as error:
        raise ConfigError([_unusable(path, error)]) from None


def token_file(settings: Settings) -> Path | None:
    """Where the made token is, None when it is configured."""
    made = settings.embedded and settings.token is None
    return (settings.data_dir / TOKEN_FILE).absolute() if made else None


def add_master_key(settings: Settings) -> Path:
    """Puts a new master key before the data folder's own. Raises ConfigError when keys are configured elsewhere.

    One at a time, and the file stays its owner's: a command of root's must not take it from a service of a plain user.
    """
    if settings.master_keys or not settings.embedded:
        raise ConfigError(["The master key is configured: put the new key before the old one there, then rotate."])
    path = settings.data_dir / MASTER_KEY_FILE
    try:
        with _alone(path.parent):
            _put_first(path, _new_key())
    except FileNotFoundError:
        raise ConfigError([f"{path} is missing: there is no key to rotate."]) from None
    except OSError as error:
        raise ConfigError([_unusable(path, error)]) from None
    return path


def _put_first(path: Path, key: str) -> None:
    for unfinished in path.parent.glob(f"{_UNFINISHED}*"):
        unfinished.unlink()
    with path.open("r", encoding="ascii") as file:
        old, kept = os.fstat(file.fileno()), file.read()
    beside = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
    _write(beside, key + "\n" + kept, old)
    beside.replace(path)
    _sync_folder(path.parent)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While it is open nobody else changes the keys of this folder."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _unusable(path: Path, error: OSError) -> str:
    return f"{path} cannot be used ({error.strerror}): run as the user of the service, or as root."


def _read_master_keys(settings: Settings, unused: Callable[[], bool]) -> Sequence[bytes]:
    if settings.master_keys:
        return settings.master_keys
    if not settings.embedded:
        raise ConfigError(
            ["AUTHSTORE_MASTER_KEY or AUTHSTORE_MASTER_KEY_FILE must be set with a database of your own."]
        )
    path = settings.data_dir / MASTER_KEY_FILE
    try:
        if not path.exists():
            _make_master_key(path, unused)
        text = path.read_text("ascii")
        return [base64.b64decode(line, validate=True) for line in text.split()]
    except ValueError:
        raise ConfigError([f"{path} does not hold master keys."]) from None
    except OSError as error:
        raise ConfigError([_unusable(path, error)]) from None


def _make_master_key(path: Path, unused: Callable[[], bool]) -> None:
    made = path.with_name(MADE_FILE)
    if made.exists():
        raise ConfigError([f"{path} is missing: what this folder holds is sealed under it. Put its copy back."])
    if not unused():
        raise ConfigError(
            [
                f"AUTHSTORE_MASTER_KEY is not set, and {path} does not exist: "
                "what this folder holds is sealed under the key that it was set up with."
            ]
        )
    _kept(path, _new_key)
    _kept(made, lambda: "A master key was made beside this file.")


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds, written first when it is not there. Two starters at once agree on one content."""
    if not path.exists():
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        _write(beside, make() + "\n")
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
        _sync_folder(path.parent)
    return path.read_text("ascii").strip()


def _write(path: Path, text: str, like: os.stat_result | None = None) -> None:
    """A new file, ours alone, or of the owner and mode of another."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        if like is not None:
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
