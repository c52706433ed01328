"""A TCP proxy before Postgres that reads along: it loses the answers of commits, and holds or delays everything.

Only what a network can do: bytes are never changed. The frontend's messages are cut at their boundaries (a type byte, then
a length that counts itself) to see where a commit statement ends.
"""

import asyncio
import random
import re
import struct
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, Self

_CHUNK: Final = 1 << 16
_COMMIT: Final = re.compile(rb"INSERT INTO session_(keys|journal)")
_READY_FOR_QUERY: Final = b"Z\x00\x00\x00\x05"

Loss = Literal["unsent", "at once", "after"]
_LOSSES: Final[tuple[Loss, ...]] = ("unsent", "at once", "after")


@dataclass(slots=True)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    commits: set[bytes] = field(default_factory=set)
    at_commit: bool = False
    lost: bool = False


class PostgresProxy:
    """An async context manager; ``port`` is where it listens, ``server`` a port or a socket's path.

    ``loss``: how likely a commit's answer is lost, cut off before the statement left, right after, or when the answer
    came; ``losses`` counts each. `hold` lets nothing through until `release`; ``delay_s`` is put before each answer.
    """

    def __init__(self, server: int | str, rng: random.Random, loss: float = 0.0) -> None:
        self._server = server
        self._rng = rng
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.loss = loss
        self.delay_s = 0.0
        self.losses: dict[Loss, int] = dict.fromkeys(_LOSSES, 0)
        self.port = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.drop()
        await asyncio.gather(*self._links, return_exceptions=True)

    def hold(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._open.clear()

    def release(self) -> None:
        """What was held goes on."""
        self._open.set()

    def drop(self) -> None:
        """Forgets every connection."""
        for link in self._links:
            link.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await (
                asyncio.open_connection("127.0.0.1", self._server)
                if isinstance(self._server, int)
                else asyncio.open_unix_connection(self._server)
            )
            link = _Link(writer, server_writer)
            try:
                await self._both(self._forward(reader, link), self._back(server_reader, link))
            finally:
                for end in (writer, server_writer):
                    end.transport.abort()

    @staticmethod
    async def _both(*ways: Awaitable[None]) -> None:
        """Until either end hangs up."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, link: _Link) -> None:
        startup = await reader.readexactly(4)
        link.server.write(startup + await reader.readexactly(struct.unpack("!i", startup)[0] - 4))
        while True:
            head = await reader.readexactly(5)
            message = head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
            await self._open.wait()
            if self._ends_commit(link, message) and self._rng.random() < self.loss:
                how = self._rng.choice(_LOSSES)
                self.losses[how] += 1
                if how == "unsent":
                    return
                link.lost = True
                if how == "at once":
                    link.client.transport.abort()
            link.server.write(message)
            await link.server.drain()
            if link.lost:
                await asyncio.sleep(60)  # `_back` ends this when the server has answered

    @staticmethod
    def _ends_commit(link: _Link, message: bytes) -> bool:
        """Whether this is the Sync after a Bind of a statement that commits."""
        kind, body = message[:1], message[5:]
        if kind == b"P" and _COMMIT.search(body):
            link.commits.add(body.partition(b"\0")[0])
        elif kind == b"B":
            link.at_commit = body.split(b"\0", 2)[1] in link.commits
        elif kind == b"S" and link.at_commit:
            link.at_commit = False
            return True
        return False

    async def _back(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._open.wait()
            if link.lost:
                # The statement is over once the server is ready for the next: let it get there, then hang up.
                if _READY_FOR_QUERY in chunk:
                    return
                continue
            link.client.write(chunk)
            await link.client.drain()
