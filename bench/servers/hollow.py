"""A service that keeps what it is sent, and does nothing else: the least that one of Python over Postgres can be.

`python -m bench.servers.hollow PORT` speaks as much of the HTTP API as the client needs for new sessions and their commits,
over HTTP/1.1 as bare as it goes. A request is one statement, which writes its body into Postgres' log and nowhere else, and
is answered once that is on disk. Nothing is judged, sealed or fenced, no value is looked at, no key is ever found again.
Its database is in DATABASE_URL and not among its arguments, which every process may read.
"""

import asyncio
import os
import re
import sys
from typing import Final, cast

import asyncpg
import uvloop
from typing_extensions import override

from bench.servers import free_port
from bench.servers.process import Process

KEEP: Final = "SELECT pg_logical_emit_message(true, 'hollow', $1::bytea)"
# The client has three requests under way; a fourth is of a lease or of a session that travels alone.
_CONNECTIONS: Final = 4
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
_VERSIONS: Final = re.compile(rb'"if_match":(\d+)')
_VERSION: Final = re.compile(rb'\r\nif-match: "(\d+)"\r\n')
_LEASE: Final = b'{"epoch":1,"expires_at":"2099-01-01T00:00:00Z"}'
_EMPTY: Final = b'{"version":0,"creds":null,"keys":{}}'
_FOREVER_S: Final = 86_400.0


class Hollow(Process):
    """A process of its own, as a service is."""

    def __init__(self, database_url: str) -> None:
        port = free_port()
        super().__init__([__spec__.name, str(port)], port, {"DATABASE_URL": database_url})


class _Keeper(asyncio.Protocol):
    """One connection's requests, one after the other, as the client sends them."""

    def __init__(self, connections: asyncio.LifoQueue[asyncpg.Connection]) -> None:
        self._connections = connections
        self._parts: list[bytes] = []
        self._head = b""
        self._left = 0
        self._under_way: asyncio.Task[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._head:
            head, found, data = b"".join([*self._parts, data]).partition(b"\r\n\r\n")
            if not found:
                self._parts = [head]
                return
            self._parts, self._head = [], head + b"\r\n"
            length = _LENGTH.search(self._head)
            self._left = int(length[1]) if length else 0
        self._parts.append(data)
        self._left -= len(data)
        if self._left == 0:
            head, body = self._head, b"".join(self._parts)
            self._head, self._parts = b"", []
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/commits"):
            versions = b",".join(b'{"version":%d}' % (int(each) + 1) for each in _VERSIONS.findall(body))
            self._keep(body, b'{"results":[%b]}' % versions)
        elif path.endswith(b"/commit"):
            version = _VERSION.search(head)
            assert version is not None
            self._keep(body, b'{"version":%d}' % (int(version[1]) + 1))
        else:
            self._answer(_LEASE if path.endswith(b"/lease") else _EMPTY)

    def _keep(self, body: bytes, answer: bytes) -> None:
        self._under_way = asyncio.create_task(self._keep_and_answer(body, answer))

    async def _keep_and_answer(self, body: bytes, answer: bytes) -> None:
        connection = await self._connections.get()
        try:
            await connection.fetchval(KEEP, body)
        finally:
            self._connections.put_nowait(connection)
        self._answer(answer)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


async def _serve(port: int, url: str) -> None:
    connections: asyncio.LifoQueue[asyncpg.Connection] = asyncio.LifoQueue()
    for _ in range(_CONNECTIONS):
        connections.put_nowait(await asyncpg.connect(url))
    await asyncio.get_running_loop().create_server(lambda: _Keeper(connections), "127.0.0.1", port)
    await asyncio.sleep(_FOREVER_S)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), os.environ["DATABASE_URL"]))
