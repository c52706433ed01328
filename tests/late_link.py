"""A network that holds what a client sends and delivers it later, also when that client has hung up: a packet that was lost
is sent again after its time, by a kernel that knows nothing of who closed the socket."""

import asyncio
from contextlib import suppress
from typing import Self


class LateLink:
    """An async context manager before a server at ``host:port`` or a socket's path; ``port`` is where it listens.

    From the first chunk that ``holds`` finds something in, what its connection sends is kept until `deliver`.
    """

    def __init__(self, server: int | str) -> None:
        self._server = server
        self._links: set[asyncio.Task[None]] = set()
        self._kept: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._mark: bytes | None = None
        self._delivered = asyncio.Event()
        self.held = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def hold(self, mark: bytes) -> None:
        """Keeps the next chunk that has these bytes, and what follows it."""
        self._mark = mark
        self._delivered.clear()
        self.held.clear()

    async def deliver(self) -> None:
        """What was kept arrives."""
        self._mark = None
        kept, self._kept = self._kept, []
        for server, chunk in kept:
            server.write(chunk)
            await server.drain()
        self._delivered.set()
        await asyncio.sleep(0.3)  # until the server has done with it: nobody is there to be answered

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        answers, server = await (
            asyncio.open_connection("127.0.0.1", self._server)
            if isinstance(self._server, int)
            else asyncio.open_unix_connection(self._server)
        )
        back = asyncio.create_task(self._back(answers, writer))
        try:
            await self._forward(reader, server)
        finally:
            back.cancel()
            server.close()
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        late = False
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                late = late or (self._mark is not None and self._mark in chunk)
                if late and self._mark is not None:
                    self._kept.append((server, chunk))
                    self.held.set()
                else:
                    server.write(chunk)
        if late:
            await self._delivered.wait()  # its end comes behind what it sent

    @staticmethod
    async def _back(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await answers.read(1 << 16):
                writer.write(chunk)
