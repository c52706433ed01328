"""What waits together leaves together, and fails alone.

A lane is a connection of its own with a worker. Everything that waits when a lane comes free goes into its next statement,
across requests and sessions; nothing ever waits for company. When a statement with several members fails, each is run
alone, so that only the one at fault fails. When the server goes away, members wait for it until their deadline: running a
commit again is safe, because a commit applies only to the version it was made for.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import asyncpg
from msgspec import Struct

from service.errors import ServiceError, Unavailable
from service.sql.pool import Database, OwnConnection, fault, is_away, is_worth_repeating

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

Run = Callable[[OwnConnection, Sequence[JobT]], Awaitable[Sequence[ResultT]]]

_RECONNECT_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_REPEATS: Final = 5


class _Waiting(Struct, Generic[JobT, ResultT]):
    job: JobT
    weight: int
    deadline: float
    answer: "asyncio.Future[ResultT]"
    lost: bool = False
    """It was sent before, and the answer is lost."""


class Lanes(Generic[JobT, ResultT]):
    """``lanes`` workers run jobs by ``run(connection, jobs) -> one result a job``.

    ``patience_s``: how long a job waits for a server that is away before it fails with Unavailable. ``most``: members and
    weight (rows) of one statement; ``full``: jobs waiting beyond which new ones are turned away. ``doubt``: what becomes of
    the result of a job whose first answer was lost.
    """

    def __init__(
        self,
        database: Database,
        run: Run[JobT, ResultT],
        *,
        lanes: int,
        patience_s: float,
        most: tuple[int, int] = (128, 2048),
        full: int = 20_000,
        doubt: Callable[[ResultT], ResultT] = lambda result: result,
    ) -> None:
        self._database = database
        self._run = run
        self._count = lanes
        self._patience = patience_s
        self._most = most
        self._full = full
        self._doubt = doubt
        self._queue: deque[_Waiting[JobT, ResultT]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self.observe: Callable[[int], None] = lambda _members: None
        self.busy = 0

    def start(self) -> None:
        self._workers = [asyncio.create_task(self._work(), name="lane") for _ in range(self._count)]

    async def stop(self) -> None:
        """Ends the workers. Callers have been answered by then: the edge stops first."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        while self._queue:
            _fail(self._queue.popleft(), Unavailable())

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def submit(self, job: JobT, weight: int = 1) -> ResultT:
        """The job's own result, or its own error. Not undone by cancelling the caller."""
        return await self.enqueue(job, weight)

    def enqueue(self, job: JobT, weight: int = 1) -> "asyncio.Future[ResultT]":
        """The same, for whoever submits several before it waits. Raises Unavailable when too much waits already."""
        if len(self._queue) >= self._full:
            raise Unavailable("too much is waiting for the database")
        loop = asyncio.get_running_loop()
        waiting: _Waiting[JobT, ResultT] = _Waiting(job, weight, loop.time() + self._patience, loop.create_future())
        self._queue.append(waiting)
        if self._idle:
            self._wake()
        return waiting.answer

    def _wake(self) -> None:
        while self._idle:
            sleeper = self._idle.pop()  # the one used last: its backend is still warm
            if not sleeper.done():
                sleeper.set_result(None)
                return

    async def _work(self) -> None:
        connection: OwnConnection | None = None
        try:
            while True:
                batch = await self._next()
                connection = await self._serve(connection, batch)
        finally:
            if connection is not None:
                connection.terminate()

    async def _next(self) -> "list[_Waiting[JobT, ResultT]]":
        while not self._queue:
            sleeper = asyncio.get_running_loop().create_future()
            self._idle.append(sleeper)
            await sleeper
        members, room = self._most
        batch = [self._queue.popleft()]
        room -= batch[0].weight
        while self._queue and len(batch) < members and self._queue[0].weight <= room:
            batch.append(self._queue.popleft())
            room -= batch[-1].weight
        return batch

    async def _serve(
        self, connection: OwnConnection | None, batch: "list[_Waiting[JobT, ResultT]]"
    ) -> OwnConnection | None:
        """Runs a batch to its end; gives the connection for the next one."""
        self.busy += 1
        self.observe(len(batch))
        try:
            return await self._until_answered(connection, batch)
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting, Unavailable())
            raise
        finally:
            self.busy -= 1

    async def _until_answered(
        self, connection: OwnConnection | None, batch: "list[_Waiting[JobT, ResultT]]"
    ) -> OwnConnection | None:
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            sent = False
            try:
                if connection is None or connection.is_closed():
                    connection = await self._database.connect()
                sent = True
                await self._answer(connection, batch)
            except Exception as error:
                if not (is_away(error) or isinstance(error, Unavailable)):
                    for waiting in batch:
                        _fail(waiting, fault(error) if isinstance(error, asyncpg.PostgresError) else error)
                    return connection
                if connection is not None:
                    connection.terminate()
                connection = None
            else:
                return connection
            for waiting in batch:
                waiting.lost = waiting.lost or sent
            batch = self._patient(batch, clock())
            if not batch:
                return None
            await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
            attempt += 1

    async def _answer(self, connection: OwnConnection, batch: "list[_Waiting[JobT, ResultT]]") -> None:
        try:
            results = await self._repeat(connection, [waiting.job for waiting in batch])
        except (asyncpg.PostgresError, ServiceError) as error:
            if is_away(error) or len(batch) == 1:
                raise
            for waiting in batch:
                await self._answer_alone(connection, waiting)
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(self._doubt(result) if waiting.lost else result)

    async def _answer_alone(self, connection: OwnConnection, waiting: "_Waiting[JobT, ResultT]") -> None:
        try:
            await self._answer(connection, [waiting])
        except (asyncpg.PostgresError, ServiceError) as error:
            if is_away(error):
                raise
            _fail(waiting, fault(error) if isinstance(error, asyncpg.PostgresError) else error)

    async def _repeat(self, connection: OwnConnection, jobs: Sequence[JobT]) -> Sequence[ResultT]:
        for _ in range(_REPEATS):
            try:
                return await self._run(connection, jobs)
            except asyncpg.PostgresError as error:
                if not is_worth_repeating(error):
                    raise
        raise Unavailable("the database could not serialize this; try again")

    def _patient(self, batch: "list[_Waiting[JobT, ResultT]]", now: float) -> "list[_Waiting[JobT, ResultT]]":
        kept = []
        for waiting in batch:
            if waiting.answer.done():
                continue
            if now < waiting.deadline:
                kept.append(waiting)
            else:
                _fail(waiting, Unavailable())
        return kept


def _fail(waiting: _Waiting[Any, Any], error: BaseException) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
