"""A real browser, driven over its own protocol: pages opened, looked at and clicked. Debian's chromium, or CHROMIUM."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_STARTS_S = 60.0


class Page:
    """A tab. ``log``: what its console and its loader complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.log: list[str] = []

    async def listen(self) -> None:
        """Until the browser ends."""
        async for message in self._socket:
            heard = json.loads(message.data)
            if "id" in heard:
                self._answers.pop(heard["id"]).set_result(heard)
            elif heard["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif heard["method"] == "Log.entryAdded":
                self.log.append(heard["params"]["entry"]["text"])
            elif heard["method"] == "Runtime.exceptionThrown":
                self.log.append(str(heard["params"]["exceptionDetails"]))

    async def send(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        heard = await answer
        assert "result" in heard, heard
        return heard["result"]

    async def open(self, url: str) -> None:
        """Loaded, and its scripts have run."""
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await self._loaded.wait()

    async def see(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise's when it is kept."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The expression's value once it is true."""
        look = f"const found = ({expression}); found ? done(found) : setTimeout(look, 20)"
        return await self.see(f"new Promise((done) => {{ const look = () => {{ {look} }}; look() }})")

    async def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """From now on the window is this wide."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])


@asynccontextmanager
async def browse(*, scripts: bool = True, zone: str = "Europe/Berlin") -> AsyncIterator[Page]:
    """A browser of this test's own, on its first page."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "--lang=en-US", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_STARTS_S):
                assert process.stderr is not None
                port = await _port(process.stderr)
            draining = asyncio.create_task(_drain(process.stderr))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                    tab = next(each for each in await listed.json() if each["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    for domain in ("Page", "Log", "Runtime"):
                        await page.send(f"{domain}.enable")
                    await page.send("Emulation.setTimezoneOverride", timezoneId=zone)
                    await page.send("Emulation.setScriptExecutionDisabled", value=not scripts)
                    yield page
                    listening.cancel()
            draining.cancel()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own
            await process.wait()


async def _port(said: asyncio.StreamReader) -> str:
    """Of the protocol, as the browser says when it listens."""
    while line := await said.readline():
        if found := re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return found[1].decode()
    raise AssertionError("the browser ended")


async def _drain(said: asyncio.StreamReader) -> None:
    while await said.read(1 << 16):
        pass
