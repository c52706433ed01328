"""TLS before a Postgres that was built without it: answers SSLRequest as Postgres does and passes the rest on."""

import asyncio
import contextlib
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class TlsFront:
    """A context manager that listens on ``port`` of the loopback, in a thread of its own."""

    def __init__(self, upstream: int, certificate: Path, key: Path) -> None:
        self.port = 0
        self._upstream = upstream
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                from_postgres, to_postgres = await asyncio.open_connection("127.0.0.1", self._upstream)
                await asyncio.gather(_pump(reader, to_postgres), _pump(from_postgres, writer))
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
    target.close()
