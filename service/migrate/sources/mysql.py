"""MySQL and MariaDB as a source: ``auth(session, id, value)`` of the npm package ``mysql-baileys``, and its like.

| layout | columns | names |
|---|---|---|
| `mysql-baileys` | ``session``, ``id``, ``value`` (1.5.4; the table's name is its user's choice) | as they are |
| `prisma` | ``sessionId``, ``id``, ``data`` (`@ookamiiixd/baileys-store`, `whatsapp-store-db`) | as in multi-file stores |

Other tables are described by ``--map`` (`layout`; creds in the same table, no ``expires``); one needs a unique index over what
names a row. Strings stand in ``mysql-baileys`` tables without quotes, so that a ``lid-mapping`` is a number there; what we
write back is JSON, which it reads better.

Tables of InnoDB are read in one consistent snapshot. ``mysql-baileys`` makes MyISAM tables: they have no snapshots (a session
is read by one statement, until its fingerprint stands still) and no transactions (a way back that dies in the middle is
written again). Sessions are found as the table's collation compares; a row is written or deleted under its very name, and
where the collation takes another key's row for it, the write is refused.

Across a network the link is TLS with a verified server; ``?ssl-mode=disabled`` in the URL turns it off, ``ssl-ca=FILE`` names
the root.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

import aiomysql
from pymysql import err

from protocol.repairs import mistyped, spelled
from protocol.spelling import CREDS
from service import trust
from service.dsn import is_local
from service.errors import BadInput
from service.migrate.source import (
    TRIAL,
    Fault,
    FaultKind,
    Found,
    Snapshot,
    Source,
    SourceAway,
    SourceError,
    SourceRefused,
    SourceRow,
    Within,
    Write,
    WrongSource,
    away,
)
from service.migrate.sources import Layout
from service.migrate.sources.layout import TableLayout, chosen, table_layout
from service.migrate.sources.mysql_statements import ROWS, RowName, Statements, batches
from service.migrate.sources.names import name_of, put_creds, put_named, put_row

LAYOUTS: Final = {
    "mysql-baileys": TableLayout(table="auth", session="session", value="value", name="id"),
    "prisma": TableLayout(table="Session", session="sessionId", value="data", name="id", mangled=True),
}

CATALOG_SQL: Final = """
SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()
"""
ENGINE_SQL: Final = """
SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s
"""
INDEX_SQL: Final = """
SELECT index_name, column_name FROM information_schema.statistics
WHERE table_schema = DATABASE() AND table_name = %s AND non_unique = 0 AND sub_part IS NULL
"""
# A value that does not fit its column would be cut off without these, most of all where there are no transactions.
MODE_SQL: Final = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION')"
TURN_SQL: Final = "SELECT GET_LOCK(%s, %s)"
LEAVE_TURN_SQL: Final = "SELECT RELEASE_LOCK(%s)"
# The server's patience: a snapshot waits while what was read is stored elsewhere.
PATIENCE_SQL: Final = """
SHOW SESSION VARIABLES WHERE variable_name IN ('wait_timeout', 'idle_transaction_timeout',
    'idle_readonly_transaction_timeout', 'idle_write_transaction_timeout', 'max_statement_time', 'max_execution_time')
"""
# How a server says whom it follows: MariaDB of all its connections, MySQL since 8.0.22, MySQL before.
FOLLOWS_SQLS: Final = ("SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
READ_ONLY_SQL: Final = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', 'super_read_only', 'innodb_read_only',
    'group_replication_group_name')
"""
SNAPSHOT_SQLS: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)

_PORT: Final = 3306
_CONNECT_S: Final = 10.0
_IDLE_S: Final = 8 * 3600
_STATEMENT_S: Final = 120.0
_TURN_S: Final = 60
_REFUSED: Final = frozenset({1044, 1045, 1049, 1142, 1143, 1227, 1290, 1698, 1836, 3118})
_REFUSALS: Final = {
    1045: "the source does not know this user and password",
    1049: "the source's server has no database of that name",
    1698: "the source does not know this user and password",
}
_UNKNOWN: Final = 1064  # a statement that this server does not have
_NOT_ALLOWED: Final = frozenset({1142, 1227})
_AWAY: Final = frozenset({1040, 1053, 1203, 1205, 1213, 2002, 2003, 2006, 2013, 2055})


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is. ``tls`` None: none."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    socket: str | None
    tls: ssl.SSLContext | None


class MysqlSource(Source):
    """One table of one database."""

    kind: ClassVar[str] = "mysql"

    def __init__(self, address: Address, table: TableLayout, *, transactional: bool) -> None:
        self._address = address
        self._own: aiomysql.Connection | None = None
        self.table = table
        self.transactional = transactional
        self.sql = Statements(table)

    @property
    def place(self) -> str:
        address = self._address
        return f"mysql://{address.socket or f'{address.host}:{address.port}'}/{address.database}"

    @property
    def within(self) -> Within:
        return {"table": asdict(self.table)}

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["MysqlSnapshot"]:
        with understood():
            connection = await connect(self._address)
        try:
            with understood():
                for statement in SNAPSHOT_SQLS:
                    await run(connection, statement)
            yield (MysqlSnapshot if self.transactional else MovingSnapshot)(self, connection)
        finally:
            connection.close()

    async def standby(self) -> bool | None:
        with understood():
            connection = await self._connection()
            follows = await _follows(connection)
            found = {_text(name): _text(value).upper() for name, value in await run(connection, READ_ONLY_SQL)}
        on = {name for name, value in found.items() if value in {"ON", "1"}}
        grouped = bool(found.get("group_replication_group_name")) and "super_read_only" in on
        # A replica, a group's secondary, a reader of a cloud's cluster.
        if follows or grouped or "innodb_read_only" in on:
            return True
        return follows if follows is not None else ("read_only" in on or None)

    async def fingerprint(self, session: str) -> str:
        with understood():
            ((count, first, second),) = await run(await self._connection(), self.sql.mark, session)
        return f"{count}-{first}-{second}"

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        with understood():
            connection = await self._connection()
            async with self._turn(connection, session), AsyncExitStack() as undo:
                undo.push_async_callback(_undo, connection)
                await connection.begin()
                own = await self._creds_name(connection, session)
                if whole:
                    await run(connection, self.sql.wipe, session)
                await self._delete(connection, session, rows)  # it makes room
                await self._put(connection, session, own, creds, rows)
                await connection.commit()
                undo.pop_all()

    async def rehearse(self, session: str, creds: bytes) -> None:
        if not self.transactional:
            return
        with understood():
            connection = await self._connection()
            name = self._name(*TRIAL)
            try:
                await connection.begin()
                await run(connection, self.sql.wipe, f"nobody-{uuid4()}")
                for text in (b'"1"', b'"2"'):
                    await self._put(connection, session, name, None, [Write(*TRIAL, text)])
                await self._delete(connection, session, [Write(*TRIAL, None)])
                if await self._same(connection, session, [name]):
                    raise SourceError("what is deleted there is found afterwards")
                own = await self._creds_name(connection, session)
                await self._put(connection, session, own, creds, [])  # last: its own writer waits for that row
            finally:
                await _undo(connection)

    async def close(self) -> None:
        if self._own is not None:
            own, self._own = self._own, None
            own.close()

    @asynccontextmanager
    async def _turn(self, connection: aiomysql.Connection, session: str) -> AsyncIterator[None]:
        """Begins when what another connection had under way arrived, or the server knows that it is gone. Where there are
        transactions rows wait for that by themselves."""
        if self.transactional:
            yield
            return
        named = f"{self._address.database}\0{session}".encode(errors="surrogatepass")
        name = f"authstore-{hashlib.blake2b(named, digest_size=16).hexdigest()}"
        ((taken,),) = await run(connection, TURN_SQL, name, _TURN_S)
        if taken != 1:
            raise SourceAway("another write to the session is under way there")
        try:
            yield
        finally:
            if not connection.closed:
                await run(connection, LEAVE_TURN_SQL, name)

    async def _delete(self, connection: aiomysql.Connection, session: str, rows: Iterable[Write]) -> None:
        gone = [name for row in rows if row.text is None for name in self._names(row.ktype, row.key_id)]
        for at in range(0, len(gone), ROWS):
            names = gone[at : at + ROWS]
            await run(
                connection, self.sql.delete(len(names)), session, *(part for name in names for part in (*name, *name))
            )

    async def _put(
        self,
        connection: aiomysql.Connection,
        session: str,
        own: RowName,
        creds: bytes | None,
        rows: Iterable[Write],
    ) -> None:
        put = [
            (self._name(row.ktype, row.key_id), self._spelled(row.ktype, row.text))
            for row in rows
            if row.text is not None
        ]
        put += [] if creds is None else [(own, self._spelled(CREDS, creds))]
        if len({name for name, _ in put}) < len(put):
            raise SourceError("two keys would be one row there: nothing was written")
        for batch in batches(put):
            names = {name for name, _ in batch}
            there = await self._same(connection, session, names)
            if there <= names:
                values = [value for name, text in batch for value in (session, *name, text)]
                await run(connection, self.sql.put(len(batch)), *values)
                there = await self._same(connection, session, names)
            if there != names:
                raise SourceError(
                    "two keys would be one row there: the table's collation takes their names for the same"
                )

    async def _same(self, connection: aiomysql.Connection, session: str, names: Collection[RowName]) -> set[RowName]:
        """Names of the rows that the table takes for these."""
        parts = [part for name in names for part in name]
        found = await run(connection, self.sql.same(len(names)), session, *parts)
        return {tuple(map(_text, there)) for there in found}

    def _spelled(self, ktype: str, text: bytes) -> str:
        return spelled(ktype, text, self.table.spelling).decode()

    async def _creds_name(self, connection: aiomysql.Connection, session: str) -> RowName:
        """Of the row that was found: with type and id its id may be anything, and its reader looks for that."""
        found: Sequence[tuple[Any, ...]] = ()
        if self.table.name is None:
            found = await run(connection, self.sql.creds, session, self.table.creds)
        if len(found) > 1:
            raise SourceError("the session has several rows of creds there, and which is read cannot be told")
        return tuple(map(_text, found[0])) if found else (self.table.creds,) * len(self.table.named)

    def _name(self, ktype: str, key_id: str) -> RowName:
        if self.table.name is None:
            return ktype, key_id
        return (name_of(ktype, key_id, mangled=self.table.mangled),)

    def _names(self, ktype: str, key_id: str) -> Iterator[RowName]:
        """Everything that would be taken for the key."""
        yield self._name(ktype, key_id)
        if self.table.name is None:
            twin = mistyped(ktype, key_id)
            yield twin.ktype, twin.key_id

    async def _connection(self) -> aiomysql.Connection:
        if self._own is None or self._own.closed:
            self._own = await connect(self._address)
        return self._own


class MysqlSnapshot(Snapshot):
    """One consistent snapshot of InnoDB."""

    def __init__(self, source: MysqlSource, connection: aiomysql.Connection) -> None:
        self._source = source
        self._connection = connection

    async def sessions(self) -> AsyncIterator[str]:
        with understood():
            records = await run(self._connection, self._source.sql.sessions)
        for (name,) in records:
            yield _text(name)

    async def read(self, session: str) -> Found:
        with understood():
            records = await run(self._connection, self._source.sql.rows, session)
        found = Found()
        for *names, value in records:
            self._take(found, [_text(name) for name in names], value)
        return found

    def _take(self, found: Found, names: list[str], value: str | bytes | None) -> None:
        table = self._source.table
        where = f"{table.table} ({', '.join(names)})"
        text = b"" if value is None else value if isinstance(value, bytes) else value.encode()
        if names[0] == table.creds:
            put_creds(found, text, where)
        elif value is None:
            found.faults.append(Fault(FaultKind.foreign, where, "a row without a value"))
        elif table.name is not None:
            put_named(found, names[0], text, where, mangled=table.mangled)
        else:
            put_row(found, SourceRow(names[0], names[1], text, where=where))


class MovingSnapshot(MysqlSnapshot):
    """Tables without transactions, as they are when they are looked at."""

    consistent: ClassVar[bool] = False


async def open_it(url: str, layout: Layout | None) -> Source:
    """The table that the map names or describes, or the only one of a known layout."""
    address = parse_url(url)
    with understood():
        connection = await connect(address)
        try:
            table = await _find(connection, layout)
            await _check_index(connection, table)
            ((engine,),) = await run(connection, ENGINE_SQL, table.table)
        finally:
            connection.close()
    return MysqlSource(address, table, transactional=_text(engine).lower() == "innodb")


def parse_url(url: str) -> Address:
    """``mysql://user:password@host:port/database``; ``?socket=``, ``?ssl-mode=disabled``, ``?ssl-ca=``. Raises BadInput."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = parts.port or _PORT
    except ValueError:
        raise _not_a_url() from None
    database = unquote(parts.path.removeprefix("/"))
    mode = query.get("ssl-mode", "").lower()
    if not database or query.keys() - {"socket", "ssl-mode", "ssl-ca"} or mode not in {"", "disabled", "verify"}:
        raise _not_a_url()
    host = parts.hostname or "127.0.0.1"
    secure = mode == "verify" or (mode == "" and "socket" not in query and not is_local(host))
    try:
        tls = trust.for_clients(query.get("ssl-ca")) if secure else None
    except OSError:
        raise BadInput("the source's URL names a root certificate that cannot be read", pointer="--from") from None
    user, password = unquote(parts.username or "root"), unquote(parts.password or "")
    return Address(host, port, user, password, database, query.get("socket"), tls)


async def connect(address: Address) -> aiomysql.Connection:
    """A connection of one's own, that refuses to cut a value off and may idle."""
    connection = await aiomysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        db=address.database,
        unix_socket=address.socket,
        ssl=address.tls,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=_CONNECT_S,
        init_command=MODE_SQL,
        program_name="authstore migrate",
    )
    try:
        await _unhurried(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def run(connection: aiomysql.Connection, statement: str, *values: str | int) -> Sequence[tuple[Any, ...]]:
    """A statement's rows."""
    async with asyncio.timeout(_STATEMENT_S), connection.cursor() as cursor:
        await cursor.execute(statement, values or None)
        rows: Sequence[tuple[Any, ...]] = await cursor.fetchall()
        return rows


async def _unhurried(connection: aiomysql.Connection) -> None:
    """The server waits for us as long as it must, as far as a session may say so."""
    short = []
    for name, value in await run(connection, PATIENCE_SQL):
        wanted, has = (_IDLE_S, float(value)) if _text(name) == "wait_timeout" else (0, float(value))
        if has < wanted or (wanted == 0 and has):
            short.append(f"{_text(name)} = {wanted}")
    if short:
        await run(connection, f"SET SESSION {', '.join(short)}")


async def _follows(connection: aiomysql.Connection) -> bool | None:
    """Whether the server is set up to follow another, running or not. None: this user may not ask."""
    for statement in FOLLOWS_SQLS:
        try:
            return bool(await run(connection, statement))
        except err.MySQLError as error:
            if error.args[0] in _NOT_ALLOWED:
                return None
            if error.args[0] != _UNKNOWN:
                raise
    return None


@contextmanager
def understood() -> Iterator[None]:
    """The driver's errors as ours. Their texts can hold values, so only their number is told."""
    try:
        yield
    except (err.MySQLError, err.Warning) as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if code in _REFUSED:
            raise SourceRefused(_REFUSALS.get(code)) from None
        if code in _AWAY or isinstance(error, err.InterfaceError):
            raise away(error) from None
        raise SourceError(f"the source refused a statement (MySQL error {code})") from None
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise away(error) from None


async def _undo(connection: aiomysql.Connection) -> None:
    """Rolls back, unless the link is cut (as by whoever is cancelled): the server does it then."""
    if not connection.closed:
        async with asyncio.timeout(_CONNECT_S):
            await connection.rollback()


async def _find(connection: aiomysql.Connection, layout: Layout | None) -> TableLayout:
    wanted = chosen(layout)
    if wanted is not None and wanted not in LAYOUTS:
        raise BadInput(f"known layouts here are {', '.join(LAYOUTS)}", pointer="--map")
    catalog: dict[str, set[str]] = {}
    for table, column in await run(connection, CATALOG_SQL):
        catalog.setdefault(_text(table), set()).add(_text(column))
    if layout is not None and wanted is None:
        return _mapped(catalog, layout)
    known = LAYOUTS if wanted is None else {wanted: LAYOUTS[wanted]}
    fitting = [
        (name, replace(like, table=table))
        for name, like in known.items()
        for table, columns in sorted(catalog.items())
        if columns >= like.columns
    ]
    if not fitting:
        raise WrongSource("no table of this database is laid out as a store we know; describe yours with --map")
    if len(fitting) > 1:
        raise WrongSource("several tables of this database are stores we know: describe yours with --map")
    return fitting[0][1]


def _mapped(catalog: Mapping[str, Iterable[str]], layout: Layout) -> TableLayout:
    table = table_layout(layout)
    if table.creds_table is not None or table.expires is not None:
        raise BadInput("[source] for MySQL has no expires and no table of creds", pointer="--map")
    if table.table not in catalog:
        raise WrongSource("the table of --map is not in this database")
    if missing := sorted(table.columns - set(catalog[table.table])):
        raise WrongSource(f"the table of --map has no column {', '.join(missing)}")
    return table


async def _check_index(connection: aiomysql.Connection, table: TableLayout) -> None:
    """Without it a write would add a second row beside the first."""
    indexes: dict[str, set[str]] = {}
    for name, column in await run(connection, INDEX_SQL, table.table):
        indexes.setdefault(_text(name), set()).add(_text(column))
    if {table.session, *table.named} not in indexes.values():
        raise WrongSource("the table has no unique index over what names a row: it is no store of sessions")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _not_a_url() -> BadInput:
    form = "mysql://user:password@host:port/database, perhaps with ?socket=, ?ssl-ca= or ?ssl-mode=disabled"
    return BadInput(f"the source's URL has the form {form}", pointer="--from")
