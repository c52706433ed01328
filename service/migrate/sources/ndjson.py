"""Our own export: a file of JSON lines that holds sessions whole.

    {"authstore":"export","format":1}
    {"session":"shop","version":7}
    {"creds":{…}}                                   # none where the session has none
    {"type":"pre-key","id":"12","value":{…}}        # each key
    {"end":"shop","rows":1128}                      # creds and keys of the session
    {"sessions":1}                                  # the end of the file

A value stands in its line byte for byte as it is stored, but for line breaks between its members. The ends tell a whole
file from one that is cut off; of such a one nothing is taken, because what is missing cannot be known.

Written back, the file is replaced by a new one that is on disk before it has the name; a reader keeps the one it opened, and
of several writers one waits for the other.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, ClassVar, Final, Literal

from service.errors import BadInput
from service.migrate.source import Found, Snapshot, Source, SourceAway, SourceRow, Write, WrongSource
from service.migrate.sources import Layout
from service.migrate.sources.files import Like, sync, understood
from service.migrate.sources.names import put_creds, put_row
from service.migrate.sources.threads import to_the_end

_FORMAT: Final = 1
_MAX_LINE: Final = 128 * 1024 * 1024
_BLOCK: Final = 1 << 20


_CREDS: Final = re.compile(rb'\{"creds":(.+)\}\n', re.DOTALL)
_KEY: Final = re.compile(rb'\{"type":("(?:[^"\\]|\\.)*"),"id":("(?:[^"\\]|\\.)*"),"value":(.+)\}\n', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session's lines stand in the file: from its first to behind its last."""

    begins: int
    ends: int


class NdjsonSource(Source):
    """One file."""

    kind: ClassVar[str] = "ndjson"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["NdjsonSnapshot"]:
        with understood():
            file = await asyncio.to_thread(self._path.open, "rb")
        try:
            with understood():
                places = await asyncio.to_thread(find_sessions, file)
            yield NdjsonSnapshot(file, places)
        finally:
            file.close()

    async def fingerprint(self, session: str) -> str:
        """Of the session's own lines: others may be written beside it."""
        with understood():
            return await asyncio.to_thread(self._digest, session)

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        with understood():
            await to_the_end(self._write, session, creds, rows, whole)

    async def close(self) -> None:
        """Nothing is held open."""

    def _digest(self, session: str) -> str:
        digest = hashlib.blake2b(digest_size=12)
        with self._path.open("rb") as file:
            if (place := find_sessions(file).get(session)) is not None:
                for block in _blocks(file, place):
                    digest.update(block)
        return digest.hexdigest()

    def _write(self, session: str, creds: bytes | None, rows: Sequence[Write], whole: bool) -> None:
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.new")
        with _locked(self._path) as old:
            try:
                with private(new, "xb") as file:
                    places = find_sessions(old)
                    held = Found() if whole or session not in places else _read(old, places[session])
                    file.write(head())
                    for name, place in places.items():
                        if name != session:
                            file.writelines(_blocks(old, place))
                    _put_session(file, session, held, creds, rows)
                    file.write(tail(len(places.keys() | {session})))
                    file.flush()
                    about = os.fstat(old.fileno())
                    Like(about.st_uid, about.st_gid, 0o600).give(file.fileno())
                    os.fsync(file.fileno())
                new.replace(self._path)
            finally:
                new.unlink(missing_ok=True)
        sync(self._path.parent)


class NdjsonSnapshot(Snapshot):
    """The file that was opened, whatever takes its name."""

    def __init__(self, file: IO[bytes], places: dict[str, Place]) -> None:
        self._file = file
        self._places = places

    async def sessions(self) -> AsyncIterator[str]:
        for name in self._places:
            yield name

    async def read(self, session: str) -> Found:
        place = self._places.get(session)
        if place is None:
            return Found()
        with understood():
            return await asyncio.to_thread(_read, self._file, place)


async def open_it(path: str, layout: Layout | None) -> Source:
    """The file at ``path``. SourceAway when there is none, WrongSource when it is no whole export."""
    if layout is not None:
        raise BadInput("[source] describes tables and keys of a server; exports are all alike", pointer="--map")
    try:
        with understood():
            source = NdjsonSource(await asyncio.to_thread(lambda: Path(path).resolve(strict=True)))
    except SourceAway:
        raise SourceAway("there is no such file") from None
    async with source.snapshot():
        return source


def head() -> bytes:
    """The first line."""
    return _line({"authstore": "export", "format": _FORMAT})


def session_head(name: str, version: int | None) -> bytes:
    """The line before a session's values."""
    return _line({"session": name} if version is None else {"session": name, "version": version})


def creds_line(text: bytes) -> bytes:
    """The line of creds."""
    return b'{"creds":%b}\n' % _one_line(text)


def key_line(ktype: str, key_id: str, text: bytes) -> bytes:
    """The line of a key."""
    return b'{"type":%b,"id":%b,"value":%b}\n' % (_json(ktype), _json(key_id), _one_line(text))


def session_tail(name: str, rows: int) -> bytes:
    """The line after a session's values."""
    return _line({"end": name, "rows": rows})


def tail(sessions: int) -> bytes:
    """The last line."""
    return _line({"sessions": sessions})


def find_sessions(file: IO[bytes]) -> dict[str, Place]:
    """Where each session stands. WrongSource unless the file is an export from its first line to its last."""
    file.seek(0)
    if file.readline(_MAX_LINE) != head():
        raise WrongSource("the file is no export of this release")
    places: dict[str, Place] = {}
    begins = at = len(head())
    name, rows = None, 0
    while text := file.readline(_MAX_LINE):
        at += len(text)
        if name is not None and (_KEY.fullmatch(text) or _CREDS.fullmatch(text)):
            rows += 1
        elif name is not None and text == session_tail(name, rows):
            places[name] = Place(begins, at)
            name, begins = None, at
        elif name is None and text == tail(len(places)) and not file.read(1):
            return places
        elif name is not None or (name := _begun(text)) is None or name in places:
            break
        else:
            rows = 0
    raise WrongSource("the file is cut off, or lines of it are missing: nothing is taken from it")


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The file that has the name, opened, no other writer at it: each writes anew what it read."""
    while True:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else another took its name while we waited
                yield file
                return


def _begun(text: bytes) -> str | None:
    """The session that begins with this line."""
    try:
        begun = json.loads(text)
    except ValueError:
        return None
    name = begun.get("session") if isinstance(begun, dict) else None
    return name if isinstance(name, str) else None


def _put_session(file: IO[bytes], session: str, held: Found, creds: bytes | None, rows: Sequence[Write]) -> None:
    keys = {(row.ktype, row.key_id): row.text for row in held.rows}
    for row in rows:
        keys.pop((row.ktype, row.key_id), None)
        if row.text is not None:
            keys[row.ktype, row.key_id] = row.text
    creds = held.creds if creds is None else creds
    file.write(session_head(session, None))
    if creds is not None:
        file.write(creds_line(creds))
    file.writelines(key_line(*name, text) for name, text in keys.items())
    file.write(session_tail(session, len(keys) + (creds is not None)))


def _read(file: IO[bytes], place: Place) -> Found:
    found = Found()
    file.seek(place.begins)
    number = 0
    while file.tell() < place.ends:
        text = file.readline(_MAX_LINE)
        number += 1
        if key := _KEY.fullmatch(text):
            where = f"line {number} of the session"
            put_row(found, SourceRow(_plain(key[1]), _plain(key[2]), key[3], where=where))
        elif creds := _CREDS.fullmatch(text):
            put_creds(found, creds[1], "creds")
    return found


def _plain(text: bytes) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        raise WrongSource("a line of the file is none of an export") from None


def _blocks(file: IO[bytes], place: Place) -> Iterator[bytes]:
    file.seek(place.begins)
    left = place.ends - place.begins
    while left and (block := file.read(min(left, _BLOCK))):
        left -= len(block)
        yield block


def _one_line(text: bytes) -> bytes:
    """In JSON a line break stands between members only."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ")


def _json(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def _line(members: dict[str, object]) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def private(path: Path, mode: Literal["wb", "xb"]) -> BinaryIO:
    """A file that only its owner reads, opened for writing."""
    how = os.O_EXCL if mode == "xb" else os.O_TRUNC
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, 0o600), "wb")
