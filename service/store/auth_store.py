"""`AuthStore`: the caller's check, then the right room. The only object the edge calls."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from service.errors import ServiceError, Unavailable, WrongSchema
from service.observe import Metrics
from service.records import Applied, Change, Granted, LeaseAsk, NotApplied
from service.sql import health, schema
from service.sql.commit import commit_all
from service.sql.health import Backend
from service.sql.keys import Got, Wanted, get_all
from service.sql.lanes import Lanes
from service.sql.pool import Database
from service.sql.sids import sid_of
from service.store import keyring
from service.store.batches import Outcome, commit_together
from service.store.caller import Caller
from service.store.changes import Committed, doubtful
from service.store.commits import Commits
from service.store.heads import Heads
from service.store.holders import Holders
from service.store.mirrors import Mirrors
from service.store.reads import Asked, Page, Reads, State
from service.store.request import CommitRequest
from service.store.sessions import Gone, Removed, Sessions, Summary
from service.store.settling import Settler
from service.store.tokens import Tokens
from service.vault import MasterKeys

_WRITE_LANES: Final = 3
_READ_LANES: Final = 2
_LEAST_POOL: Final = 2


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """``pool_max``: connections in all, but never fewer than four: see `connections`; ``pooled``: see `Database`.

    ``patience_s``: how long a request waits for a server that is away; ``statement_s``: a statement for its answer.
    """

    pool_max: int = 10
    pooled: bool = False
    patience_s: float = 10.0
    statement_s: float = 30.0
    delete_window: timedelta = timedelta(days=7)

    @property
    def write_lanes(self) -> int:
        """Connections that only commit."""
        return max(1, min(_WRITE_LANES, self.pool_max // 3))

    @property
    def read_lanes(self) -> int:
        """Connections that only get."""
        return max(1, min(_READ_LANES, self.pool_max // 4))

    @property
    def pool(self) -> int:
        """Connections for everything else."""
        return max(_LEAST_POOL, self.pool_max - self.write_lanes - self.read_lanes)

    @property
    def connections(self) -> int:
        """How many a store opens at most: more than ``pool_max`` where that is too few for each kind."""
        return self.write_lanes + self.read_lanes + self.pool


class AuthStore:
    """The auth state of every tenant's sessions. Made once a process, closed at its end."""

    def __init__(self, url: str, masters: MasterKeys, first_token: str | None, options: StoreOptions) -> None:
        self.database = Database(
            url,
            pool_max=options.pool,
            pooled=options.pooled,
            statement_s=options.statement_s,
            patience_s=options.patience_s,
        )
        self.masters = masters
        self.write_lanes: Lanes[Change, Applied | NotApplied] = Lanes(
            self.database, commit_all, lanes=options.write_lanes, patience_s=options.patience_s, doubt=doubtful
        )
        self.read_lanes: Lanes[Wanted, Got] = Lanes(
            self.database, get_all, lanes=options.read_lanes, patience_s=options.patience_s, most=(256, 8192)
        )
        heads = Heads(self.database, masters)
        self.settler = Settler(self.database, heads)
        self._commits = Commits(self.database, heads, self.write_lanes, self.read_lanes, self.settler)
        self.holders = Holders(options.pool)
        self._reads = Reads(self.database, heads, self.read_lanes, self.holders)
        self._sessions = Sessions(self.database, heads, self.settler, options.delete_window)
        self.mirrors = Mirrors(self.database, heads, self.settler)
        self.tokens = Tokens(self.database, first_token)
        self.is_open = False
        self.failure: ServiceError | None = None
        self._metrics: Metrics | None = None

    def watch(self, metrics: Metrics) -> None:
        """Counts commits and what the lanes send from now on."""
        self.write_lanes.observe = partial(metrics.lane_batch, "write")
        self.read_lanes.observe = partial(metrics.lane_batch, "read")
        self._metrics = metrics

    async def open(self) -> None:
        """Connects, brings the schema up to date, checks the master key. Raises StartError, Unavailable."""
        if not self.database.is_open:
            await self.database.open()
        async with self.database.connection(patient=False) as connection:
            await schema.check_server(connection)
            await schema.apply(connection)
            await keyring.check(connection, self.masters)
        self.write_lanes.start()
        self.read_lanes.start()
        self.is_open = True

    async def open_as_it_is(self) -> bool:
        """Opens without writing anything, for looking; False when the schema is not all there yet. Raises like `open`."""
        if not self.database.is_open:
            await self.database.open()
        async with self.database.connection(patient=False) as connection:
            await schema.check_server(connection)
            if await schema.pending(connection):
                return False
            await keyring.check_opens(connection, self.masters)
        self.write_lanes.start()
        self.read_lanes.start()
        self.is_open = True
        return True

    async def close(self) -> None:
        """Ends every connection. Requests have been answered by then."""
        self.is_open = False
        await self.write_lanes.stop()
        await self.read_lanes.stop()
        await self.database.close()

    async def commit(self, caller: Caller, name: str, request: CommitRequest) -> Committed:
        """All of it or nothing; answered means durable. See `commits.Commits.commit` for what it raises."""
        tenant = caller.need("write")
        try:
            done = await self._commits.commit(tenant, name, request)
        except ServiceError as error:
            self._count([(name, request)], [error])
            raise
        self._count([(name, request)], [done])
        return done

    async def commit_all(self, caller: Caller, asked: Sequence[tuple[str, CommitRequest]]) -> list[Outcome]:
        """Commits of any sessions, each on its own: what `commit` gives or raises for each, in order."""
        outcomes = await commit_together(self._commits, caller.need("write"), asked)
        self._count(asked, outcomes)
        return outcomes

    async def get(self, caller: Caller, name: str, asked: Asked) -> dict[int, bytes]:
        """Values by their place in ``asked``, missing ones left out. Raises NoSession, Deleted, Corrupt."""
        return await self._reads.get(caller.need("read"), name, asked)

    async def creds(self, caller: Caller, name: str) -> tuple[int, bytes]:
        """``(version, creds text)``. Raises NoSession, NoCreds, Deleted, Corrupt."""
        return await self._reads.creds(caller.need("read"), name)

    async def page(self, caller: Caller, name: str, ktype: str, cursor: str | None, limit: int) -> Page:
        """A page of one type's keys."""
        return await self._reads.page(caller.need("read"), name, ktype, cursor, limit)

    @asynccontextmanager
    async def state(self, caller: Caller, name: str) -> AsyncIterator[State]:
        """The whole session in one snapshot, for as long as the context is open."""
        async with aclosing(self._reads.state(caller.need("read"), name)) as states:
            async for state in states:
                yield state

    async def settle(self, caller: Caller, name: str) -> None:
        """Makes rows of all that waits in the session's journal: for who looks at rows. Changes nothing that is read."""
        tenant = caller.need("write")
        await self.settler.settle_now(tenant, sid_of(tenant, name), fresh=True)

    async def show(self, caller: Caller, name: str) -> Summary:
        """One session's summary."""
        return await self._sessions.show(caller.need("read"), name)

    async def list(self, caller: Caller, prefix: str, after: str, limit: int) -> tuple[list[Summary], str | None]:
        """A page of summaries and the cursor of the next."""
        return await self._sessions.list(caller.need("read"), prefix, after, limit)

    async def lease(
        self,
        caller: Caller,
        name: str,
        holder: str,
        ttl_s: float,
        *,
        takeover: bool,
        epoch: int | None,
        takeover_epoch: int | None = None,
    ) -> Granted:
        """Takes or renews the session's lease. Raises LeaseHeld, Fenced, Deleted."""
        tenant = caller.need("write")
        ask = LeaseAsk(holder, ttl_s, takeover, takeover_epoch, epoch)
        return await self._sessions.lease(tenant, name, ask)

    async def release(self, caller: Caller, name: str, epoch: int) -> None:
        """Ends a lease. Raises Fenced, NoSession, Deleted."""
        await self._sessions.release(caller.need("write"), name, epoch)

    async def delete(self, caller: Caller, name: str, *, epoch: int | None, purge: bool) -> Removed:
        """Logout. Raises NoSession, Deleted, Fenced."""
        return await self._sessions.delete(caller.need("write"), name, epoch=epoch, purge=purge)

    async def restore(self, caller: Caller, name: str) -> Summary:
        """Undoes a delete inside the window. Raises NoSession."""
        return await self._sessions.restore(caller.need("write"), name)

    async def deleted(self, caller: Caller) -> Sequence[Gone]:
        """Sessions of the tenant that can be restored."""
        return await self._sessions.deleted(caller.need("read"))

    async def census(self, caller: Caller) -> dict[str, Any]:
        """Counts of the caller's tenant."""
        return await self._sessions.census(caller.need("read"))

    async def backend(self) -> Backend:
        """The database as the connection itself reports it. Raises Unavailable."""
        async with self.database.connection(patient=False) as connection:
            return await health.ask(connection)

    async def check_ready(self) -> None:
        """Raises when a commit would not succeed now: Unavailable, WrongSchema, WrongMasterKey."""
        async with self.database.connection(patient=False) as connection:
            if not (await health.ask(connection)).writable:
                raise Unavailable("the database does not take writes")
            if await schema.pending(connection):
                raise WrongSchema("migrations are pending")
            await keyring.check_opens(connection, self.masters)

    async def purge_expired(self) -> int:
        """Housekeeping: destroys sessions deleted longer ago than the window."""
        return await self._sessions.purge_expired()

    def _count(self, asked: Sequence[tuple[str, CommitRequest]], outcomes: Sequence[Outcome]) -> None:
        if self._metrics is None:
            return
        pairs = zip(asked, outcomes, strict=True)
        applied = [len(request.rows) for (_, request), outcome in pairs if type(outcome) is Committed]
        if applied:
            self._metrics.applied(applied)
        for outcome in outcomes if len(applied) < len(outcomes) else ():
            if isinstance(outcome, ServiceError):
                self._metrics.refused(type(outcome).__name__.lower())
