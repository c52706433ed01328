"""One ``MULTI`` of Redis that arrives in its turn or is not executed.

Who hangs up, or dies, cannot take back what was sent: the network may deliver a whole ``MULTI … EXEC`` when a later one is
done. So a write first watches a key that every write touches, and sends its transaction when the server has said that it
watches: one that arrives after another finds the key touched. Nothing of that stays at the source, neither a key nor a field.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as driver
from redis import exceptions

from service.migrate.source import SourceError

Command = tuple[str | bytes, ...]

_MARK: Final = "authstore-turn"
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Touched:
    """What every write of a session touches: its hash, or a key beside its values."""

    key: str
    is_hash: bool

    def commands(self) -> list[Command]:
        """Touch it, whatever is there, and leave it as it was. The watcher's transaction fails though all is as before."""
        if self.is_hash:
            return [("HSET", self.key, _MARK, ""), ("HDEL", self.key, _MARK)]
        return [("SET", self.key, ""), ("DEL", self.key)]


def touched(key: Callable[[str], str], *, is_hash: bool) -> Touched:
    """``key``: of a session's value by its name, the same for every name where it is a hash."""
    return Touched(key(_MARK), is_hash)


class Turn:
    """The connection that watches."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ask(self, *command: str | bytes) -> Any:
        await self._connection.send_command(*command)
        return await self._connection.read_response()

    async def execute(self, commands: Iterable[Command]) -> bool:
        """All of them, or (False) none: somebody else wrote there. Raises what the server has against one of them."""
        sent = [("MULTI",), *commands, ("EXEC",)]
        await self._connection.send_packed_command(self._connection.pack_commands(sent))
        refused: BaseException | None = None
        for _ in sent[1:]:  # MULTI is answered, and each command that it takes
            try:
                await self._connection.read_response()
            except exceptions.ResponseError as error:
                refused = refused or error
        try:
            answers = await self._connection.read_response()
        except exceptions.ExecAbortError as error:
            raise (refused or error) from None
        for answer in answers or ():
            if isinstance(answer, BaseException):
                raise answer
        return answers is not None


@asynccontextmanager
async def _watching(client: "driver.Redis", key: str) -> AsyncIterator[Turn]:
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        turn = Turn(connection)
        await turn.ask("WATCH", key)
        yield turn  # EXEC ends the watch
    except BaseException:
        await connection.disconnect(nowait=True)  # it is not waited for, nor used again
        raise
    finally:
        await pool.release(connection)


async def in_turn(client: "driver.Redis", what: Touched, commands: Callable[[], Awaitable[Iterable[Command]]]) -> None:
    """Executes what ``commands`` (awaited while the key is watched) says, in one transaction. Raises the driver's errors."""
    for _ in range(_TRIES):
        async with _watching(client, what.key) as turn:
            if await turn.execute([*what.commands(), *await commands()]):
                return
    raise SourceError("others write the session there all the time: nothing was written")
