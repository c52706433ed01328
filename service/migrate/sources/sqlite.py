"""SQLite databases of upstream's ``useSqliteAuthState``: ``creds(key, value)``, ``signal_keys(type, id, value)``.

A database is one session, named by its file; a place is one database or a folder of them. Creds are the row
``__creds__``. Source: Baileys' branch ``develop``, ``src/Utils/use-sqlite-auth-state.ts``; no release has it yet.

Reading leaves no trace: a database in use (its ``-wal`` and ``-shm`` are there) is read in one transaction, if it can be with
the ``-shm`` mapped read-only, else with a reader's mark in it; writers never wait. One at rest is read from a copy in
memory, because to open it would create those files.
One database is one snapshot. Of a folder, each reading is one transaction, and the snapshot is not consistent.
"""

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, TypeVar
from urllib.parse import quote

from protocol.repairs import spelled
from protocol.spelling import CREDS, Spelling
from service.errors import BadInput
from service.migrate.source import (
    Fault,
    FaultKind,
    Found,
    Snapshot,
    Source,
    SourceAway,
    SourceError,
    SourceRow,
    Write,
    WrongSource,
)
from service.migrate.sources import Layout
from service.migrate.sources.files import understood as files_understood
from service.migrate.sources.names import put_creds, put_row
from service.migrate.sources.threads import to_the_end

T = TypeVar("T")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS creds (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signal_keys (
    type TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (type, id)
);
CREATE INDEX IF NOT EXISTS signal_keys_type_idx ON signal_keys (type);
"""
COLUMNS_SQL: Final = """
SELECT m.name, p.name FROM sqlite_schema m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'
"""
PIN_SQL: Final = "SELECT count(*) FROM sqlite_schema"
HAS_SQL: Final = "SELECT EXISTS (SELECT 1 FROM creds) OR EXISTS (SELECT 1 FROM signal_keys)"
CREDS_SQL: Final = "SELECT key, value FROM creds ORDER BY key"
KEYS_SQL: Final = "SELECT type, id, value FROM signal_keys ORDER BY type, id"
CREDS_PUT_SQL: Final = """
INSERT INTO creds (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
PUT_SQL: Final = """
INSERT INTO signal_keys (type, id, value) VALUES (?, ?, ?) ON CONFLICT (type, id) DO UPDATE SET value = excluded.value
"""
DELETE_SQL: Final = "DELETE FROM signal_keys WHERE type = ? AND id = ?"
WIPE_SQLS: Final = ("DELETE FROM signal_keys", "DELETE FROM creds")

SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
_NEEDED: Final = {("creds", "key"), ("creds", "value"), *(("signal_keys", name) for name in ("type", "id", "value"))}
_CREDS: Final = b"__creds__"
_BUSY_S: Final = 10.0
_TRIES: Final = 5
_MAX_BYTES: Final = 1 << 30  # of a database at rest; it is one session
_HEADER: Final = 100
_VERSIONS: Final = slice(18, 20)  # of the file format, for writing and for reading


class SqliteSource(Source):
    """``root`` is a database (``alone``) or a folder of them."""

    kind: ClassVar[str] = "sqlite"

    def __init__(self, root: Path, *, alone: bool) -> None:
        self._root = root
        self._alone = alone

    @property
    def place(self) -> str:
        return str(self._root)

    @property
    def only_session(self) -> str | None:
        return self._root.stem if self._alone else None

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["SqliteSnapshot"]:
        if not self._alone:
            yield FolderSnapshot(self)
            return
        with understood():
            connection = await asyncio.to_thread(_open_to_read, self._root)
        try:
            yield SqliteSnapshot(self, connection)
        finally:
            connection.close()

    async def fingerprint(self, session: str) -> str:
        with understood():
            return await asyncio.to_thread(_marks, self.find(session))

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        found = self.find(session)
        path = found or self._new(session)
        may_begin = found is None and whole
        with understood():
            await to_the_end(_write, path, creds, rows, whole=whole, may_begin=may_begin)

    async def close(self) -> None:
        """Nothing is held open."""

    def databases(self) -> dict[str, Path]:
        """Session -> its file (``alone``: also when it is gone by now). WrongSource when two files have one name."""
        if self._alone:
            return {self._root.stem: self._root}
        found: dict[str, Path] = {}
        for name in sorted(os.listdir(self._root)):
            path = self._root / name
            if path.suffix not in SUFFIXES or not path.is_file() or path.resolve().parent != self._root:
                continue
            if path.stem in found:
                raise WrongSource("two databases of this folder would be one session")
            found[path.stem] = path
        return found

    def find(self, session: str) -> Path | None:
        """The session's file, if it has one."""
        with files_understood():
            return self.databases().get(session)

    def _new(self, session: str) -> Path:
        if self._alone or session in {"", ".", ".."} or "/" in session or "\0" in session:
            raise SourceError("this place can have no session of that name")
        return self._root / f"{session}{SUFFIXES[0]}"


class SqliteSnapshot(Snapshot):
    """One transaction in one database."""

    def __init__(self, source: SqliteSource, connection: sqlite3.Connection) -> None:
        self._source = source
        self._connection = connection

    async def sessions(self) -> AsyncIterator[str]:
        for name in self._source.databases():
            with understood():
                if await asyncio.to_thread(_has_rows, self._connection):
                    yield name

    async def read(self, session: str) -> Found:
        with understood():
            if self._source.find(session) is None:
                return Found()
            return await asyncio.to_thread(_read, self._connection)


class FolderSnapshot(SqliteSnapshot):
    """Each database when it is read."""

    consistent: ClassVar[bool] = False

    def __init__(self, source: SqliteSource) -> None:
        self._source = source

    async def sessions(self) -> AsyncIterator[str]:
        with files_understood():
            databases = await asyncio.to_thread(self._source.databases)
        for name, path in databases.items():
            try:
                with understood():
                    has = await asyncio.to_thread(_within, path, _has_rows)
            except SourceError as error:
                if not _is_its_own(error):
                    raise
                has = True
            if has:
                yield name

    async def read(self, session: str) -> Found:
        path = self._source.find(session)
        if path is None:
            return Found()
        with understood():
            return await asyncio.to_thread(_within, path, _read)


async def open_it(path: str, layout: Layout | None) -> Source:
    """The database, or the folder, at ``path``."""
    if layout is not None:
        raise BadInput("[source] describes tables and keys of a server; these are all alike", pointer="--map")
    try:
        with files_understood():
            root = await asyncio.to_thread(lambda: Path(path).resolve(strict=True))
    except SourceAway:
        raise SourceAway("there is no such file or folder") from None
    source = SqliteSource(root, alone=root.is_file())
    with understood():
        databases = source.databases()
    for each in databases.values():
        try:
            with understood():
                await asyncio.to_thread(_within, each, _check)
        except SourceError as error:
            if root == each or not _is_its_own(error):
                raise
    return source


@contextmanager
def understood() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        with files_understood():
            yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN}:
            raise SourceAway from None
        raise SourceError(f"SQLite answered {error.sqlite_errorname}") from None
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            raise WrongSource("a file here is no SQLite database") from None
        raise SourceError("a database is damaged or cut off; its owner's tools may mend it") from None


def _is_its_own(error: SourceError) -> bool:
    """Whether one database of a folder is damaged, say: its session is blocked when it is read, the others go on."""
    return type(error) is SourceError


def _within(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    with closing(_open_to_read(path)) as connection:
        return work(connection)


def _open_to_read(path: Path) -> sqlite3.Connection:
    """A connection inside a transaction. Nothing on disk is created or changed, ours or others'."""
    for _ in range(_TRIES):
        wal, shm, journal = (_beside(path, suffix).exists() for suffix in ("-wal", "-shm", "-journal"))
        if wal and shm:
            return _in_use(path)
        if wal or journal:
            raise SourceError("a database was left in the middle of a write: let its own program open it once")
        connection = _at_rest(path)
        if connection is not None:
            return connection
    raise SourceAway  # somebody opens and closes it all the time


def _in_use(path: Path) -> sqlite3.Connection:
    for readonly_shm in (
        "&readonly_shm=1",
        "",
    ):  # without it when no mark fits and one must be set, as every reader does
        connection = _connect(f"file:{quote(str(path))}?mode=ro{readonly_shm}")
        try:
            connection.execute("BEGIN")
            connection.execute(PIN_SQL)
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY and readonly_shm:
                continue
            raise
        return connection
    raise SourceAway


def _at_rest(path: Path) -> sqlite3.Connection | None:
    """The database in memory; None when somebody opened or changed it meanwhile."""
    before = path.stat()
    if before.st_size > _MAX_BYTES:
        raise SourceError("a database is larger than one session can be")
    data = bytearray(path.read_bytes())
    after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        return None
    if any(_beside(path, suffix).exists() for suffix in ("-wal", "-journal")):
        return None
    if len(data) < _HEADER or not data.startswith(b"SQLite format 3\0"):
        raise WrongSource("a file here is no SQLite database")
    data[_VERSIONS] = b"\x01\x01"  # there is no write-ahead log in memory
    connection = _connect("file::memory:")
    connection.deserialize(bytes(data))
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # values are taken as they are, also what is no UTF-8
    return connection


def _check(connection: sqlite3.Connection) -> None:
    columns = {(table.decode(), column.decode()) for table, column in connection.execute(COLUMNS_SQL)}
    if missing := sorted({table for table, _ in _NEEDED - columns}):
        raise WrongSource(f"a database here has no table {' and '.join(missing)} as useSqliteAuthState makes it")


def _has_rows(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute(HAS_SQL).fetchone()[0])


def _read(connection: sqlite3.Connection) -> Found:
    found = Found()
    for key, value in connection.execute(CREDS_SQL):
        if key == _CREDS:
            put_creds(found, _bytes(value), "creds (__creds__)")
        else:
            found.faults.append(Fault(FaultKind.foreign, f"creds ({_shown(key)})", "not the creds' row", _bytes(value)))
    for ktype, key_id, value in connection.execute(KEYS_SQL):
        where = f"signal_keys ({_shown(ktype)}, {_shown(key_id)})"
        try:
            row = SourceRow(_bytes(ktype).decode(), _bytes(key_id).decode(), _bytes(value), where=where)
        except UnicodeDecodeError:
            found.faults.append(Fault(FaultKind.foreign, where, "a name that is no text", _bytes(value)))
        else:
            put_row(found, row)
    return found


def _bytes(value: object) -> bytes:
    """A column's value; SQLite lets any type stand anywhere."""
    return value if isinstance(value, bytes) else str("" if value is None else value).encode()


def _shown(value: object) -> str:
    return _bytes(value).decode(errors="backslashreplace")


def _write(path: Path, creds: bytes | None, rows: Sequence[Write], *, whole: bool, may_begin: bool) -> None:
    """One transaction. A database that is not there is begun only if it ``may_begin``: else SourceAway."""
    new = not path.exists()
    if new and not may_begin:  # what changed is no session: beside no creds a client begins a new identity
        raise SourceAway("the session's database is gone")
    with closing(_connect(f"file:{quote(str(path))}?mode={'rwc' if new else 'rw'}")) as connection:
        if new:
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in WIPE_SQLS if whole else ():
                connection.execute(statement)
            for row in rows:
                if row.text is None:
                    connection.execute(DELETE_SQL, (row.ktype, row.key_id))
                else:
                    connection.execute(PUT_SQL, (row.ktype, row.key_id, _base64(row.ktype, row.text)))
            if creds is not None:
                connection.execute(CREDS_PUT_SQL, (_CREDS.decode(), _base64(CREDS, creds)))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _base64(ktype: str, text: bytes) -> str:
    return spelled(ktype, text, Spelling.base64).decode()


def _marks(path: Path | None) -> str:
    """A commit goes to the end of the log, or begins it anew under another salt; without one it changes the file."""
    whole = hashlib.blake2b(digest_size=12)
    for each in () if path is None else (path, _beside(path, "-wal")):
        with suppress(FileNotFoundError), each.open("rb") as file:
            about = os.fstat(file.fileno())
            whole.update(repr((about.st_mtime_ns, about.st_ctime_ns, about.st_size, file.read(_HEADER))).encode())
    return whole.hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
