"""Folders of ``useMultiFileAuthState``: one, or a folder of them. A session is named by its folder.

A value is a file ``<type>-<id>.json`` with ``/`` as ``__`` and ``:`` as ``-``. A name is taken for a key only when it can be
no other; torn creds keep their session where it is, where Baileys would silently begin a new identity. Leftovers beside a
file (``.bak``, ``.tmp``) are listed, not used.

There is no moment at which a folder holds what one commit left: a snapshot is not consistent, a session is read until its
fingerprint stands still around the reading. On the way back every file is on disk under another name before the first is
replaced; each keeps the owner and the mode of the one it replaces, or nothing is written.

Links that lead out of the place, and what is no plain file, are listed and not opened.
"""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from protocol.file_names import Ambiguous, Exact, file_name, parse
from service.errors import BadInput
from service.migrate.source import (
    Fault,
    FaultKind,
    Found,
    Snapshot,
    Source,
    SourceAway,
    SourceError,
    SourceRefused,
    Write,
    WrongSource,
)
from service.migrate.sources import Layout
from service.migrate.sources.names import put_creds, put_named
from service.migrate.sources.threads import to_the_end

MAX_BYTES: Final = 64 * 1024 * 1024
"""A larger file is no value: the service would not take it either."""

CREDS_FILE: Final = "creds.json"
_SUFFIX: Final = ".json"
_OURS: Final = ".authstore-"  # files being written by us; one that is left over means nothing


class FilesSource(Source):
    """``root`` is a session itself (``alone``) or holds sessions."""

    kind: ClassVar[str] = "files"

    def __init__(self, root: Path, *, alone: bool) -> None:
        self._root = root
        self._alone = alone

    @property
    def place(self) -> str:
        return str(self._root)

    @property
    def only_session(self) -> str | None:
        return self._root.name if self._alone else None

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["FilesSnapshot"]:
        yield FilesSnapshot(self)

    async def fingerprint(self, session: str) -> str:
        with understood():
            return await asyncio.to_thread(_marks, self.folder(session))

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        with understood():
            await to_the_end(self._write, session, creds, rows, whole)

    async def close(self) -> None:
        """Nothing is held open."""

    def names(self) -> Iterator[str]:
        """Sessions by their folder's name."""
        if not self._root.is_dir():
            raise SourceAway
        if self._alone:
            if _is_session(self._root):
                yield self._root.name
            return
        for name in sorted(os.listdir(self._root)):
            if self.inside(self._root / name) and _is_session(self._root / name):
                yield name

    def folder(self, session: str) -> Path | None:
        """The session's folder; None when it cannot have one here, or it is a link that leads elsewhere."""
        if self._alone:
            return self._root if session == self._root.name else None
        if session in {"", ".", ".."} or "/" in session or "\0" in session:
            return None
        folder = self._root / session
        return folder if self.inside(folder) else None

    def inside(self, path: Path) -> bool:
        """Whether a path, its links followed, is below the place that was named."""
        try:
            return Path(os.path.realpath(path, strict=True)).is_relative_to(self._root)
        except FileNotFoundError:  # where it would be
            return Path(os.path.realpath(path)).is_relative_to(self._root)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return False

    def read(self, session: str) -> Found:
        """All of one session."""
        found = Found()
        folder = self.folder(session)
        if folder is None or not folder.is_dir():
            return found
        for name in sorted(os.listdir(folder)):
            if not name.startswith(_OURS):
                self._take(found, folder / name)
        return found

    def _take(self, found: Found, path: Path) -> None:
        name = path.name
        if not self.inside(path):
            found.faults.append(Fault(FaultKind.foreign, name, "a link that leads out of the folder"))
            return
        try:
            text = _read(path)
        except FileNotFoundError:
            if path.is_symlink():
                found.faults.append(Fault(FaultKind.foreign, name, "a link that leads nowhere"))
            return  # gone since the folder was listed
        if text is None:
            kind = FaultKind.torn_creds if name == CREDS_FILE else FaultKind.foreign
            found.faults.append(Fault(kind, name, "no plain file, or larger than any value"))
        elif name == CREDS_FILE:
            put_creds(found, text, name)
        elif name.endswith(_SUFFIX):
            put_named(found, name.removesuffix(_SUFFIX), text, name, mangled=True)
        else:
            found.faults.append(Fault(FaultKind.foreign, name, "not the file of a key"))

    def _write(self, session: str, creds: bytes | None, rows: Sequence[Write], whole: bool) -> None:
        folder = self._folder_to_write(session, whole=whole)
        texts = {file_name(row.ktype, row.key_id): row.text for row in rows if row.text is not None}
        if len(texts) != sum(row.text is not None for row in rows):
            raise SourceError("two keys would be one file there: nothing was written")
        if creds is not None:
            texts[CREDS_FILE] = creds
        with _staged(folder, texts) as staged:
            gone = [file_name(row.ktype, row.key_id) for row in rows if row.text is None]
            for name in gone + (list(filter(_is_ours, os.listdir(folder))) if whole else []):
                (folder / name).unlink(missing_ok=True)
            for name, temporary in staged.items():
                temporary.replace(folder / name)
        sync(folder)
        sync(folder.parent)

    def _folder_to_write(self, session: str, *, whole: bool) -> Path:
        folder = self.folder(session)
        if folder is None:
            raise SourceError("this place can have no session of that name")
        if not folder.is_dir():
            if not whole:  # what changed is no session: beside no creds a client begins a new identity
                raise SourceAway("the session's folder is gone")
            _make(folder)
        return folder


class FilesSnapshot(Snapshot):
    """The folder as it is when it is looked at."""

    consistent: ClassVar[bool] = False

    def __init__(self, source: FilesSource) -> None:
        self._source = source

    async def sessions(self) -> AsyncIterator[str]:
        with understood():
            names = await asyncio.to_thread(lambda: list(self._source.names()))
        for name in names:
            yield name

    async def read(self, session: str) -> Found:
        with understood():
            return await asyncio.to_thread(self._source.read, session)


async def open_it(path: str, layout: Layout | None) -> Source:
    """The folder at ``path``. SourceAway when there is none, WrongSource when it is something else."""
    if layout is not None:
        raise BadInput("[source] describes tables and keys of a server; folders are all alike", pointer="--map")
    try:
        with understood():
            return await asyncio.to_thread(_open, Path(path))
    except SourceAway:
        raise SourceAway("there is no such folder") from None


@dataclass(frozen=True, slots=True)
class Like:
    """Whose a file is and who may read it. Baileys takes one that it may not read for one that is not there."""

    owner: int
    group: int
    mode: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """As the plain file there; None when there is none."""
        with suppress(FileNotFoundError):
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                return cls(about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode) & 0o777)
        return None

    @classmethod
    def new_in(cls, folder: Path) -> Self:
        """A new file's: as the creds beside it, else the folder's owner's alone."""
        about = folder.stat()
        return cls.of(folder / CREDS_FILE) or cls(about.st_uid, about.st_gid, 0o600)

    def give(self, descriptor: int) -> None:
        """SourceRefused when this process cannot make the file so."""
        about = os.fstat(descriptor)
        try:
            if (about.st_uid, about.st_gid) != (self.owner, self.group):
                os.fchown(descriptor, self.owner, self.group)
            os.fchmod(descriptor, self.mode)
        except PermissionError:
            raise SourceRefused(
                "files there belong to another user, who could not read what is written: run this as that user or as root"
            ) from None


@contextmanager
def _staged(folder: Path, texts: Mapping[str, bytes]) -> Iterator[dict[str, Path]]:
    """Name -> a file beside it with the text, on disk, and as readable as what it will replace. All or none are made."""
    staged: dict[str, Path] = {}
    new = Like.new_in(folder)
    try:
        for name, text in texts.items():
            staged[name] = folder / f"{_OURS}{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"
            _put(staged[name], text, Like.of(folder / name) or new)
        yield staged
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _put(temporary: Path, text: bytes, like: Like) -> None:
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        like.give(descriptor)
        os.fsync(descriptor)


def _make(folder: Path) -> None:
    """A session's folder, its parent's owner's alone."""
    above = folder.parent.stat()
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        Like(above.st_uid, above.st_gid, 0o700).give(descriptor)
    except BaseException:
        folder.rmdir()
        raise
    finally:
        os.close(descriptor)


@contextmanager
def understood() -> Iterator[None]:
    """The system's errors as ours; their texts hold paths, and paths hold ids."""
    try:
        yield
    except PermissionError:
        raise SourceRefused from None
    except FileNotFoundError:
        raise SourceAway from None
    except OSError as error:
        raise SourceError(f"the file system answered {os.strerror(error.errno or 0)}") from None


def _open(path: Path) -> FilesSource:
    root = path.resolve(strict=True)
    if not root.is_dir():
        raise WrongSource("files: is followed by a folder, and there is a file")
    return FilesSource(root, alone=_is_session(root))


def _read(path: Path) -> bytes | None:
    """A plain file's bytes; None for anything else. A pipe is not waited for."""
    try:
        descriptor = os.open(path.resolve(), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    return text if len(text) <= MAX_BYTES else None


def _is_session(folder: Path) -> bool:
    return folder.is_dir() and any(_is_ours(name) for name in os.listdir(folder))


def _is_ours(name: str) -> bool:
    """Whether Baileys can have made a file of this name."""
    if name == CREDS_FILE:
        return True
    return name.endswith(_SUFFIX) and isinstance(parse(name.removesuffix(_SUFFIX)), Exact | Ambiguous)


def _marks(folder: Path | None) -> str:
    whole = hashlib.blake2b(digest_size=12)
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(folder)) if folder is not None else ():
            if name.startswith(_OURS):
                continue
            with suppress(FileNotFoundError):
                about = os.stat(folder / name) if folder is not None else None
                whole.update(repr((name, about and (about.st_mtime_ns, about.st_ctime_ns, about.st_size))).encode())
    return whole.hexdigest()


def sync(folder: Path) -> None:
    """The folder's names, on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
