"""Servers that do nothing, to tell what any hop costs on this machine, and what one through the framework.

`python -m bench.servers.nothing bare PORT` answers each request with as many bytes as its path names, over HTTP/1.1 as bare
as it goes. `… framework PORT` does so through aiohttp, after a question to Postgres that asks for nothing: what any service
needs that is made of these, with both processes woken as they are in earnest. Its database is in DATABASE_URL and not among
its arguments, which every process may read.
"""

import asyncio
import os
import re
import sys
from typing import Final

import asyncpg
import uvloop
from aiohttp import web
from typing_extensions import override

from bench.servers import free_port
from bench.servers.bare_http import BareHttp
from bench.servers.process import Process

NOTHING: Final = "SELECT 1"
_SIZE: Final = re.compile(rb"POST /(\d+) ")
_FOREVER_S: Final = 86_400.0


class Nothing(Process):
    """Bare, or with a database's URL through the framework."""

    def __init__(self, database_url: str | None = None) -> None:
        kind, environ = ("bare", {}) if database_url is None else ("framework", {"DATABASE_URL": database_url})
        port = free_port()
        super().__init__([__spec__.name, kind, str(port)], port, environ)


class _Answers(BareHttp):
    @override
    def take(self, head: bytes, body: list[bytes]) -> None:
        size = _SIZE.match(head)
        self.answer(b"x" * int(size[1]) if size else b"")


async def _bare(port: int) -> None:
    await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", port)
    await asyncio.sleep(_FOREVER_S)


async def _framework(port: int, url: str) -> None:
    connection = await asyncpg.connect(url)

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await connection.fetchval(NOTHING)
        return web.Response(body=b"x" * int(request.match_info["size"]), content_type="application/json")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{size}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.sleep(_FOREVER_S)


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    uvloop.run(_bare(int(port)) if kind == "bare" else _framework(int(port), os.environ["DATABASE_URL"]))
