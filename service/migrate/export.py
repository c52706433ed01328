"""Sessions out of the store: as lines of JSON, which keep everything, or as folders that ``useMultiFileAuthState`` opens.

Values are written as they are stored, byte for byte. What is whole can be told from what is not: lines say at their end
that it is (`sources.ndjson`), a folder gets its name when all of it is on disk. Files are 0600, folders 0700.
"""

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from protocol.file_names import file_name
from protocol.spelling import CREDS
from service.errors import BadInput, Corrupt, Deleted, NoSession
from service.migrate.sources import ndjson
from service.migrate.sources.files import CREDS_FILE, sync
from service.store import AuthStore, Caller

_PAGE = 500


async def every_session(store: AuthStore, caller: Caller) -> list[str]:
    """Names of the tenant's sessions, in order."""
    names: list[str] = []
    more: str | None = ""
    while more is not None:
        page, more = await store.list(caller, "", more, _PAGE)
        names += [each.name for each in page]
    return names


@dataclass(slots=True)
class Exported:
    """What came of an export: how many sessions and keys are in it, and why a session is not, by its name.

    ``all_or_none``: the first session that fails ends the export. Else the others go on; one that was deleted since it was
    listed is none that failed.
    """

    all_or_none: bool
    sessions: int = 0
    keys: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """One session of it."""
        try:
            yield
        except (NoSession, Deleted):
            if self.all_or_none:
                raise
        except Corrupt as error:
            if self.all_or_none:
                raise
            self.failed[name] = error.detail


async def export_lines(
    store: AuthStore, caller: Caller, names: Sequence[str], out: IO[bytes], done: Exported
) -> Exported:
    """Writes sessions as lines, each when all of it is read. Raises NoSession, Deleted, Corrupt if it is all or none: what is
    written then has no end."""
    caller.need("admin")
    out.write(ndjson.head())
    for name in names:
        with done.one(name):
            lines, keys = await _lines(store, caller, name)
            out.writelines(lines)
            done.sessions, done.keys = done.sessions + 1, done.keys + keys
    out.write(ndjson.tail(done.sessions))
    out.flush()
    return done


async def export_file(store: AuthStore, caller: Caller, names: Sequence[str], path: Path, done: Exported) -> Exported:
    """The same into a new file, on disk before it has its name. BadInput when there is one already."""
    async with _beside(path) as new:
        with ndjson.private(new, "xb") as out:
            await export_lines(store, caller, names, out, done)
            os.fsync(out.fileno())
        return done


async def export_folder(
    store: AuthStore, caller: Caller, names: Sequence[str], path: Path, done: Exported, *, alone: bool
) -> Exported:
    """Sessions as folders in a new folder, or the only one as that folder itself (``alone``).

    BadInput when there is such a folder already, or when two keys or sessions would be one file.
    """
    caller.need("admin")
    async with _beside(path) as new:
        new.mkdir(mode=0o700)
        for name in names:
            folder = new if alone else _inside(new, name)
            before = done.sessions
            with done.one(name):
                keys = await _export_session(store, caller, name, folder)
                sync(folder)
                done.sessions, done.keys = before + 1, done.keys + keys
            if done.sessions == before:
                shutil.rmtree(folder)
        sync(new)
    return done


async def _lines(store: AuthStore, caller: Caller, name: str) -> tuple[list[bytes], int]:
    """A session's lines, and how many of them are keys."""
    async with store.state(caller, name) as state:
        lines = [ndjson.session_head(name, state.row.head.version)]
        rows = keys = 0
        async for chunk in state.chunks:
            for each in chunk:
                lines.append(_line(each.ktype, each.key_id.decode(), each.value))
                keys += each.ktype != CREDS
            rows += len(chunk)
    return [*lines, ndjson.session_tail(name, rows)], keys


async def _export_session(store: AuthStore, caller: Caller, name: str, folder: Path) -> int:
    keys = 0
    async with store.state(caller, name) as state:
        async for chunk in state.chunks:
            for each in chunk:
                is_creds = each.ktype == CREDS
                _put(folder / (CREDS_FILE if is_creds else file_name(each.ktype, each.key_id.decode())), each.value)
                keys += not is_creds
    return keys


@asynccontextmanager
async def _beside(path: Path) -> AsyncIterator[Path]:
    """A name beside ``path``, which takes its place at the end; what failed is removed."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    _refuse_taken(path)
    try:
        yield new
        _refuse_taken(path)
        new.rename(path)
        sync(path.parent)
    except BaseException:
        if new.is_dir():
            shutil.rmtree(new, ignore_errors=True)
        else:
            new.unlink(missing_ok=True)
        raise


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise BadInput("there is something of that name already", pointer="--output")
    if not path.parent.is_dir():
        raise BadInput("there is no folder to make it in", pointer="--output")


def _inside(root: Path, name: str) -> Path:
    folder = root / name
    if name in {".", ".."}:
        raise BadInput("a session's name is none a folder can have: export it alone", pointer="--as")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise BadInput("two sessions would be one folder on this disk: export them apart", pointer="--as") from None
    return folder


def _put(path: Path, text: bytes) -> None:
    try:
        with ndjson.private(path, "xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise BadInput(
            "two keys of a session would be one file: such a session is exported as lines", pointer="--as"
        ) from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BadInput(f"a key's file could not be written ({why}): export it as lines", pointer="--as") from None


def _line(ktype: str, key_id: str, text: bytes) -> bytes:
    return ndjson.creds_line(text) if ktype == CREDS else ndjson.key_line(ktype, key_id, text)
