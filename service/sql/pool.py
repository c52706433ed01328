"""Connections and their settings; the one place where driver errors are understood."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from service.errors import DatabaseFault, NotLetIn, ServiceError, Unavailable

if TYPE_CHECKING:
    OwnConnection = asyncpg.Connection[asyncpg.Record]
    Connection = OwnConnection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
    PooledConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:  # generic for the type checker alone
    OwnConnection = Connection = asyncpg.Connection
    Pool = asyncpg.Pool
    PooledConnection = asyncpg.pool.PoolConnectionProxy

T = TypeVar("T")

# Our statements look rows up by primary key, however many there are; a plan made while a table was empty must not stay a
# scan. Left out behind a pooler, which passes no such settings on.
_PLANNER: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_CONNECT_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 0.1

DURABLE_SQL: Final = "SELECT current_setting('synchronous_commit')"

# The server's patience with a transaction that waits for somebody else is off until it ends, whatever role, database or file
# say. Asked of those it has: releases before 17 know fewer, and SET of an unknown one is an error.
UNHURRIED_SQL: Final = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout', 'lock_timeout')
"""

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    OSError,
    TimeoutError,
    ssl.SSLError,
)
# The connection is gone, whatever becomes of the server; a statement that took too long is not among them.
_CUT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# Undone, and worth another try later: a statement or lock timeout of the server.
_BUSY: Final = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)
# Told when connecting; the rest of what a server says then may quote names and addresses.
_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        ssl.SSLCertVerificationError,
        "the database's certificate does not verify: is sslrootcert its authority, the host right?",
    ),
    (asyncpg.InvalidPasswordError, "the database refuses the user or the password"),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "the database does not let this user in: it may not log in, or pg_hba.conf does not admit it from here",
    ),
    (
        asyncpg.InvalidCatalogNameError,
        "the database that the URL names does not exist: run CREATE DATABASE <database>",
    ),
)
# Of a statement it means a table or a schema.
_MAY_NOT_CONNECT: Final = (
    "the role may not connect to the database that the URL names: run GRANT CONNECT ON DATABASE <database> TO <role>"
)
_NO_TLS: Final = "rejected SSL upgrade"
_POOLER: Final = "unsupported startup parameter"  # as PgBouncer says of our planner settings
_AGAIN: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


def is_away(error: BaseException) -> bool:
    """The server is not there, or not for us now: what was sent may or may not have happened."""
    return isinstance(error, _AWAY)


def is_worth_repeating(error: BaseException) -> bool:
    """Nothing happened, and the same statement may well succeed at once."""
    return isinstance(error, _AGAIN)


def fault(error: asyncpg.PostgresError) -> ServiceError:
    """What may be said of a driver error: its text and detail can hold a row's values, its SQLSTATE cannot."""
    if isinstance(error, _BUSY):
        return Unavailable("the database took too long")
    return _refusal(error) or DatabaseFault(error.sqlstate or "unknown")


def _refusal(error: BaseException) -> NotLetIn | None:
    """Why a server that is there does not take our connection."""
    if type(error) is ConnectionError and _NO_TLS in str(error):
        return NotLetIn("the database offers no TLS: its URL asks for it, as every URL that crosses a network does")
    if isinstance(error, asyncpg.ProtocolViolationError) and _POOLER in str(error):
        return NotLetIn("a transaction pooler stands before the database: set pooler to transaction")
    return next((NotLetIn(text) for kind, text in _REFUSALS if isinstance(error, kind)), None)


class Database:
    """Where the database is, and a bounded pool for everything that is not a commit or a get.

    ``url`` is a libpq URL. ``pooled`` says that a transaction pooler stands in between: no prepared statements then.
    ``statement_s``: after this a silent server counts as away; ``patience_s``: how long one that is away is waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_max: int = 4,
        pooled: bool = False,
        statement_s: float = 60.0,
        patience_s: float = 0.0,
    ) -> None:
        self._url = url
        self.pool_max = pool_max
        self._pooled = pooled
        self._statement_s = statement_s
        self._patience_s = patience_s
        self._pool: Pool | None = None
        self.waiting = 0

    def __repr__(self) -> str:
        return "<Database>"

    @property
    def is_open(self) -> bool:
        return self._pool is not None

    async def open(self) -> None:
        """Makes the pool; connects on first use."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self.pool_max,
            init=_check_durable,
            reset=_no_reset,
            **self._options(),
        )

    async def close(self) -> None:
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), _CONNECT_TIMEOUT_S)
            except TimeoutError:
                self._pool.terminate()

    async def connect(self) -> OwnConnection:
        """A connection of one's own. Raises Unavailable, NotLetIn."""
        with understood():
            try:
                connection: OwnConnection = await asyncpg.connect(self._url, **self._options())
            except asyncpg.InsufficientPrivilegeError:
                raise NotLetIn(_MAY_NOT_CONNECT) from None
            await _check_durable(connection)
            return connection

    def connection(self, *, patient: bool = True) -> AbstractAsyncContextManager[Connection]:
        """A pooled connection. Waits for a server that is away as long as the lanes do, unless not ``patient``."""
        return self._lent(_clock() + (self._patience_s if patient else 0))

    async def ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """The answer to a question, which must change nothing: when its connection is cut, it is asked again on another.

        All that may take as long as `connection` waits for a server that is away.
        """
        async with self.asking(question) as answer:
            return answer

    @asynccontextmanager
    async def asking(self, question: Callable[[Connection], Awaitable[T]]) -> AsyncIterator[T]:
        """`ask`, and the connection is kept meanwhile: more is to be read from it, which is not asked again."""
        deadline = _clock() + self._patience_s
        while True:
            async with self._lent(deadline) as connection:
                try:
                    answer = await question(connection)
                except Exception as error:
                    if not _is_cut(error, connection) or _clock() >= deadline:
                        raise
                    _drop(connection)
                else:
                    yield answer
                    return
            await asyncio.sleep(_PAUSE_S)

    @asynccontextmanager
    async def _lent(self, deadline: float) -> AsyncIterator[Connection]:
        connection = await self._acquire(deadline)
        try:
            with understood():
                yield connection
        except asyncio.CancelledError:
            _drop(connection)  # nobody waits for its answer; asking it to stop could take as long
            raise
        finally:
            with suppress(asyncpg.InterfaceError, OSError):
                await self._open_pool().release(connection)

    async def _acquire(self, deadline: float) -> PooledConnection:
        pool = self._open_pool()
        self.waiting += 1
        try:
            while True:
                try:
                    connection: PooledConnection = await pool.acquire(timeout=_CONNECT_TIMEOUT_S)
                except _AWAY as error:
                    if (refusal := _refusal(error)) or _clock() >= deadline:
                        raise refusal or Unavailable() from None
                except asyncpg.InsufficientPrivilegeError:
                    raise NotLetIn(_MAY_NOT_CONNECT) from None
                except asyncpg.PostgresError as error:
                    raise fault(error) from None
                else:
                    return connection
                await asyncio.sleep(_PAUSE_S)
        finally:
            self.waiting -= 1

    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise Unavailable
        return self._pool

    def usage(self) -> tuple[int, int, int]:
        """``(busy, idle, waiting)`` connections of the pool."""
        if self._pool is None:
            return 0, 0, self.waiting
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle, self.waiting

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": _CONNECT_TIMEOUT_S, "command_timeout": self._statement_s}
        if self._pooled:
            return options | {"statement_cache_size": 0}
        return options | {"server_settings": {"application_name": "authstore", **_PLANNER}}


async def unhurried(connection: Connection) -> None:
    """From here on the transaction that is open may idle, and its statements wait, for as long as they must."""
    await connection.execute(UNHURRIED_SQL)


@contextmanager
def understood() -> Iterator[None]:
    """Errors of the driver come out as ours."""
    try:
        yield
    except _AWAY as error:
        raise _refusal(error) or Unavailable() from None
    except asyncpg.PostgresError as error:
        raise fault(error) from None


def _is_cut(error: Exception, connection: Connection) -> bool:
    if isinstance(error, _CUT) or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
        return True
    try:
        return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken the dead one back already


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _drop(connection: Connection) -> None:
    """The pool makes another in its place. One that was lost already is no longer ours to end."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _check_durable(connection: Connection) -> None:
    """Every new connection is asked: a role or database setting changed meanwhile must not undo what answered means."""
    if await connection.fetchval(DURABLE_SQL) == "off":
        raise NotLetIn("the database runs with synchronous_commit = off: it may lose what it acknowledged")


async def _no_reset(_: Any) -> None:
    """The pool's reset costs a round trip, and our statements leave nothing behind."""
