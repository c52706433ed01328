"""Postgres as a source: one connection a snapshot, the layout found in the catalog.

A layout is a class below `PostgresSource` that says which tables make it (``matches``) and holds its statements. Read-only
snapshots are REPEATABLE READ: every session is seen at the same moment, however long the copy takes.
"""

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg

from service import config, dsn
from service.errors import BadInput
from service.migrate.source import (
    TRIAL,
    Found,
    Snapshot,
    Source,
    SourceError,
    SourceRefused,
    Within,
    Write,
    WrongSource,
    away,
)
from service.migrate.sources import Layout
from service.migrate.sources.layout import chosen
from service.sql.pool import unhurried

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

LAYOUTS: Final = {
    "legacy": "legacy_postgres.LegacyPostgres",
    "postgres-baileys": "postgres_baileys.PostgresBaileys",
    "prisma": "table_postgres.PrismaPostgres",
}
"""Name of each layout -> ``module.Class``. A table of one's own is `table_postgres.TablePostgres`."""

CATALOG_SQL: Final = """
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND pg_table_is_visible(c.oid)
  AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
GROUP BY c.relname
"""

# A URL may leave the database to its user's name or the environment, and the schemas to the user's settings.
WHERE_SQL: Final = """
SELECT current_database()::text AS database, current_setting('port') AS port, current_schemas(false)::text[] AS schemas
"""

# Row-level security of which nothing tells that it lets this role see every row, or update and delete it: for each of that
# ($1) a policy for all that is plainly true. An insert that a policy forbids is an error anyway. $2: tables beside those of
# the search path.
FILTERED_SQL: Final = """
SELECT EXISTS (
    SELECT FROM pg_class c CROSS JOIN unnest($1::text[]) AS asked(cmd) WHERE c.relkind IN ('r', 'p')
    AND (pg_table_is_visible(c.oid) OR c.oid IN (SELECT to_regclass(name) FROM unnest($2::text[]) AS named(name)))
    AND row_security_active(c.oid)
    AND (NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd::text IN (cmd, '*')
                     AND p.polroles = '{0}' AND pg_get_expr(p.polqual, p.polrelid) = 'true')
         OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive))
)
"""
# Whoever hangs up cannot take a COMMIT back that is on its way. A later write waits here until that arrived or its connection
# is gone: row locks are not enough, since a row that is yet to be committed is no row to whoever deletes it.
HURRY_SQL: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
TURN_SQL: Final = "SELECT pg_advisory_xact_lock($1)"
UNFILTERED_SQL: Final = "SET LOCAL row_security = off"
_READS: Final = ("r",)
_WRITES: Final = ("r", "w", "d")
_FILTERS: Final = "check_enable_rls"  # the server's function that refuses; its words depend on its language

Catalog = Mapping[str, frozenset[str]]
"""Tables of the search path and their columns."""

_TIMEOUT_S: Final = 10.0
_STATEMENT_S: Final = 120.0
_UNDO_S: Final = 5.0
_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidCatalogNameError,
)
_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)


class PostgresSource(Source):
    """What every layout shares. Subclasses: ``kind``, ``matches``, ``list_sessions``, ``read``, ``mark``, ``apply``."""

    keep_sql: str | None = None
    """Clears expiries: of the session $1; those in the past only when $2. None: there are none."""

    def __init__(self, url: str, layout: Layout | None) -> None:
        self._url = url
        self.layout = layout
        self.server: Mapping[str, Any] = {}
        """What the server says of where our statements look: `WHERE_SQL`."""
        self._own: Connection | None = None

    @classmethod
    @abstractmethod
    def matches(cls, catalog: Catalog) -> bool:
        """Whether these tables are this layout. WrongSource when they look like it and are not."""

    async def learn(self, connection: Connection) -> None:
        """Looks at what the layout leaves open, once. WrongSource when a table is not as it must be."""

    @abstractmethod
    def list_sessions(self, connection: Connection) -> AsyncIterator[str]:
        """Sessions in a stable order, streamed by a cursor of the snapshot's transaction."""

    @abstractmethod
    async def read(self, connection: Connection, session: str) -> Found:
        """All of one session."""

    @abstractmethod
    async def mark(self, connection: Connection, session: str) -> str:
        """What the fingerprint is made from: any text that changes with any write."""

    @abstractmethod
    async def apply(
        self, connection: Connection, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool
    ) -> None:
        """Writes inside a transaction that is open."""

    @property
    def tables(self) -> Sequence[str]:
        """Tables of the layout that the search path may not lead to, quoted."""
        return ()

    @property
    def place(self) -> str:
        return dsn.redacted(self._url).partition("?")[0]

    @property
    def within(self) -> Within:
        return {"url": dsn.elsewhere(self._url), "server": self.server}

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["PostgresSnapshot"]:
        with understood():
            connection = await connect(self._url)
        try:
            with understood():
                await connection.transaction(isolation="repeatable_read", readonly=True).start()
                await unhurried(connection)  # what is read is stored elsewhere before the next is
                await self._unfiltered(connection, _READS)
            yield PostgresSnapshot(self, connection)  # errors of whoever reads it are none of the source's
        finally:
            await _leave(connection)  # with its transaction, which wrote nothing

    async def standby(self) -> bool:
        with understood():
            return bool(await (await self._connection()).fetchval("SELECT pg_is_in_recovery()"))

    async def fingerprint(self, session: str) -> str:
        with understood():
            text = await self.mark(await self._connection(), session)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        with understood():
            async with self._transaction(turn=session) as connection:
                await self.apply(connection, session, creds, rows, whole=whole)

    async def rehearse(self, session: str, creds: bytes) -> None:
        with understood():
            async with self._transaction(keep=False) as connection:
                await self.apply(connection, f"nobody-{uuid4()}", None, [], whole=True)
                for texts in ((b'"1"', b'"2"'), (None,)):
                    for text in texts:
                        await self.apply(connection, session, None, [Write(*TRIAL, text)], whole=False)
                    found = await self.read(connection, session)
                    there = [row.text for row in found.rows if (row.ktype, row.key_id) == TRIAL]
                    if there != [text for text in texts[-1:] if text is not None]:
                        raise SourceError("what is written there is not what is found afterwards")
                await self.apply(connection, session, creds, [], whole=False)  # last: its own writer waits for that row

    async def keep(self, session: str, *, expired: bool = True) -> None:
        if self.keep_sql is not None:
            with understood():
                async with self._transaction() as connection:
                    await connection.execute(self.keep_sql, session, expired)

    async def close(self) -> None:
        if self._own is not None:
            own, self._own = self._own, None
            await _leave(own)

    @asynccontextmanager
    async def _transaction(self, *, keep: bool = True, turn: str | None = None) -> AsyncIterator[Connection]:
        """A transaction that writes; not ``keep``: it leaves nothing; ``turn``: of a session, behind its earlier writes."""
        connection = await self._connection()
        try:
            await connection.execute("BEGIN")
            await unhurried(connection)
            if turn is not None:
                await connection.execute(HURRY_SQL)
                await connection.execute(TURN_SQL, _turn(turn))
            await self._unfiltered(connection, _WRITES)
            yield connection
            await connection.execute("COMMIT" if keep else "ROLLBACK")
        except BaseException:
            await _undo(connection)
            raise

    async def _unfiltered(self, connection: Connection, commands: Sequence[str]) -> None:
        """From here to the transaction's end rows that a policy may hide, or keep as they are, are an error."""
        if await connection.fetchval(FILTERED_SQL, commands, self.tables):
            await connection.execute(UNFILTERED_SQL)

    async def _connection(self) -> Connection:
        if self._own is None or self._own.is_closed():
            self._own = await connect(self._url)
        return self._own


class PostgresSnapshot(Snapshot):
    """One REPEATABLE READ transaction."""

    def __init__(self, source: PostgresSource, connection: Connection) -> None:
        self._source = source
        self._connection = connection

    async def sessions(self) -> AsyncIterator[str]:
        with understood():
            async for name in self._source.list_sessions(self._connection):
                yield name

    async def read(self, session: str) -> Found:
        with understood():
            async with self._connection.transaction():  # a savepoint: an error in one session does not end the snapshot
                return await self._source.read(self._connection, session)


async def open_it(url: str, layout: Layout | None) -> Source:
    """Looks at the catalog and gives the layout's source. Raises WrongSource unless one layout fits, and only one."""
    try:
        url = config.protected_url(url)
    except ValueError as error:
        raise BadInput(f"the source's URL {error}", pointer="--from") from None
    with understood():
        connection = await connect(url)
        try:
            source = await _find(connection, url, layout)
            source.server = dict(await connection.fetchrow(WHERE_SQL) or {})
            await source.learn(connection)
        finally:
            await _leave(connection)
    return source


async def connect(url: str) -> Connection:
    """A connection of one's own, UTC, that never waits for ever. It keeps no statements, which a transaction pooler would
    not know again."""
    try:
        return await asyncpg.connect(
            url,
            timeout=_TIMEOUT_S,
            command_timeout=_STATEMENT_S,
            statement_cache_size=0,
            server_settings={"application_name": "authstore migrate", "TimeZone": "UTC"},
        )
    except ValueError:  # the driver's text may hold the URL
        form = "postgresql://user:password@host:port/database"
        raise BadInput(f"the source's URL has the form {form}", pointer="--from") from None


@contextmanager
def understood() -> Iterator[None]:
    """Driver errors as ours. Their texts can hold values, so only their SQLSTATE is told."""
    try:
        yield
    except _REFUSED as error:
        if getattr(error, "server_source_function", None) == _FILTERS:
            raise SourceRefused(
                "row-level security would hide rows from this user, or keep them as they are: use the tables' owner or a role "
                "with BYPASSRLS"
            ) from None
        raise SourceRefused(_refusal(error)) from None
    except asyncpg.UndefinedTableError:
        raise WrongSource("a table of the source is gone") from None
    except _AWAY as error:
        raise away(error) from None
    except asyncpg.PostgresError as error:
        raise SourceError(f"the source refused a statement (SQLSTATE {error.sqlstate})") from None


def _refusal(error: BaseException) -> str | None:
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "the source's server has no database of that name"
    if isinstance(error, asyncpg.InvalidPasswordError):
        return "the source does not know this user and password"
    return None


async def _undo(connection: Connection) -> None:
    """Ends a transaction that failed or was called off. Rolled back or (if the server had all of it) committed: nothing of
    it is under way any more. A server that does not answer cannot commit what it was not told to: its connection is dropped.
    """
    try:
        async with asyncio.timeout(_UNDO_S):
            await connection.execute("ROLLBACK")
    except (*_AWAY, asyncpg.PostgresError):
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


async def _leave(connection: Connection) -> None:
    """Closes it; one whose server does not answer, or is still asked to call a statement off, is dropped."""
    with suppress(*_AWAY):
        async with asyncio.timeout(_TIMEOUT_S):
            await connection.close()


def _turn(session: str) -> int:
    """The number of a session's lock. Two that share one wait for each other, no more."""
    return int.from_bytes(hashlib.blake2b(b"authstore " + session.encode(), digest_size=8).digest(), signed=True)


async def _find(connection: Connection, url: str, layout: Layout | None) -> PostgresSource:
    wanted = chosen(layout)
    if layout is not None and wanted is None:
        return _load("table_postgres.TablePostgres")(url, layout)
    if wanted is not None and wanted not in LAYOUTS:
        raise BadInput(f"known layouts here are {', '.join(LAYOUTS)}", pointer="--map")
    catalog = {record["name"]: frozenset(record["columns"]) for record in await connection.fetch(CATALOG_SQL)}
    tried = [wanted] if wanted is not None else list(LAYOUTS)
    fitting = {name: kind for name in tried if (kind := _load(LAYOUTS[name])).matches(catalog)}
    if not fitting:
        raise WrongSource("no table of this database is laid out as a store we know; describe yours with --map")
    if len(fitting) > 1:
        raise WrongSource(f"this database holds several stores: choose {' or '.join(fitting)} with --map")
    return next(iter(fitting.values()))(url, None)


def _load(path: str) -> type[PostgresSource]:
    module, _, name = path.partition(".")
    kind: type[PostgresSource] = getattr(import_module(f"service.migrate.sources.{module}"), name)
    return kind
