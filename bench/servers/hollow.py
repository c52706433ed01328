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
from typing import Final

import asyncpg
import uvloop
from typing_extensions import override

from bench.servers import free_port
from bench.servers.bare_http import BareHttp
from bench.servers.process import Process

KEEP: Final = "SELECT pg_logical_emit_message(true, 'hollow', $1::bytea)"
# The client has three requests under way; a fourth is of a lease or of a session that travels alone.
_CONNECTIONS: Final = 4
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


class _Keeper(BareHttp):
    """One connection's requests, one after the other, as the client sends them."""

    def __init__(self, connections: asyncio.LifoQueue[asyncpg.Connection]) -> None:
        super().__init__()
        self._connections = connections
        self._under_way: asyncio.Task[None] | None = None

    @override
    def take(self, head: bytes, body: list[bytes]) -> None:
        path, kept = head.split(b" ", 2)[1], b"".join(body)
        if path.endswith(b"/commits"):
            versions = b",".join(b'{"version":%d}' % (int(each) + 1) for each in _VERSIONS.findall(kept))
            self._keep(kept, b'{"results":[%b]}' % versions)
        elif path.endswith(b"/commit"):
            version = _VERSION.search(head)
            assert version is not None
            self._keep(kept, b'{"version":%d}' % (int(version[1]) + 1))
        else:
            self.answer(_LEASE if path.endswith(b"/lease") else _EMPTY)

    def _keep(self, body: bytes, answer: bytes) -> None:
        self._under_way = asyncio.create_task(self._keep_and_answer(body, answer))

    async def _keep_and_answer(self, body: bytes, answer: bytes) -> None:
        connection = await self._connections.get()
        try:
            await connection.fetchval(KEEP, body)
        finally:
            self._connections.put_nowait(connection)
        self.answer(answer)


async def _serve(port: int, url: str) -> None:
    connections: asyncio.LifoQueue[asyncpg.Connection] = asyncio.LifoQueue()
    for _ in range(_CONNECTIONS):
        connections.put_nowait(await asyncpg.connect(url))
    await asyncio.get_running_loop().create_server(lambda: _Keeper(connections), "127.0.0.1", port)
    await asyncio.sleep(_FOREVER_S)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), os.environ["DATABASE_URL"]))
