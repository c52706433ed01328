"""The bots of `client/examples`, as they are, with real Baileys against the loopback WhatsApp and the real service."""

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from baileys_driver import FIXTURES, FolderDevice, World
from service_process import COMMAND, ServiceProcess

EXAMPLES = FIXTURES.parent / "client" / "examples"
WITHIN_S = 60

bots = pytest.mark.parametrize(
    ("script", "release"),
    [("bot.mjs", "baileys-7"), ("bot.cjs", "baileys-7"), ("bot.mjs", "baileys-6")],
    ids=["ESM 7.0.0-rc14", "CommonJS 7.0.0-rc14", "ESM 6.7.24"],
)


class Bot:
    """An example as a process of its own; what it says, line by line."""

    def __init__(self, script: str, release: str, world: World, service: ServiceProcess, session: str) -> None:
        where = {"AUTHSTORE_URL": service.url, "AUTHSTORE_TOKEN": service.token, "AUTHSTORE_SESSION": session}
        self.process = subprocess.Popen(
            ["node", "--import", FIXTURES / "bot-world.mjs", EXAMPLES / script],
            env={"PATH": os.environ["PATH"], "BOT_BAILEYS": release, "BOT_WORLD": world.url, **where},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    def says(self, pattern: str) -> str:
        """The next line that matches."""
        seen = []
        try:
            while not re.search(pattern, line := self._lines.get(timeout=WITHIN_S)):
                seen.append(line)
        except queue.Empty:
            pytest.fail(f"never said {pattern}, but: {''.join(seen)[-2000:]}")
        return line

    def qr(self) -> str:
        return self.says("QR code").split()[-1]

    def ends(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.process.wait(WITHIN_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


def _act(world: World, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(world.url + path, json.dumps(body).encode() if body else None)
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        return json.load(answer)


def _pair(bot: Bot, world: World) -> str:
    """Scans the bot's QR code; the phone's number once it is connected."""
    account = _act(world, "/scan", {"qr": bot.qr(), "addressing": "pn"})
    bot.says("^connected")
    phone: str = account["phone"]
    return phone


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service") / "data") as started:
        yield started


@pytest.fixture
def world() -> Iterator[World]:
    with World() as running:
        yield running


def _ping(world: World, phone: str) -> None:
    _act(world, "/say", {"phone": phone, "from": "alice", "texts": ["ping"]})


def _await_pong(world: World) -> None:
    deadline = time.monotonic() + WITHIN_S
    while "pong" not in _act(world, "/read")["texts"]:
        assert time.monotonic() < deadline, "never answered"
        time.sleep(0.1)


@bots
def test_a_bot_pairs_stops_goes_on_and_pairs_anew_after_a_logout(
    script: str, release: str, world: World, service: ServiceProcess
) -> None:
    session = f"{script}.{release}"
    with Bot(script, release, world, service, session) as bot:
        phone = _pair(bot, world)
        assert bot.ends(signal.SIGINT) == 0
    # Free at once, and the same device.
    summary = service.call("GET", f"/v1/sessions/{session}")
    assert summary["paired"]
    assert summary["lease"] is None
    with Bot(script, release, world, service, session) as bot:
        bot.says("^connected")
        _ping(world, phone)
        _await_pong(world)
        _act(world, "/unlink", {"phone": phone})
        bot.says("^logged out")
        assert _pair(bot, world) != phone
        assert bot.ends(signal.SIGTERM) == 0
    assert service.call("GET", f"/v1/sessions/{session}")["lease"] is None


def test_a_bot_whose_session_was_taken_stops(world: World, service: ServiceProcess) -> None:
    with Bot("bot.mjs", "baileys-7", world, service, "taken") as bot:
        phone = _pair(bot, world)
        service.call("POST", "/v1/sessions/taken/lease", {"holder": "another", "ttl_s": 60, "takeover": True})
        _ping(world, phone)
        bot.says("another owner took the session over")
        assert bot.process.wait(WITHIN_S) == 1
    assert service.call("GET", "/v1/sessions/taken")["lease"]["holder"] == "another"


@pytest.mark.parametrize("release", ["6", "7"], ids=["6.7.24", "7.0.0-rc14"])
def test_a_folder_of_one_bot_is_copied_and_the_bot_goes_on(
    release: str, world: World, service: ServiceProcess, tmp_path: Path
) -> None:
    folder = f"auth-{release}"
    with FolderDevice(release, world, tmp_path / folder) as device:
        account = device.step("pair")["account"]
        device.step("login")
        device.step("receive 2")
        device.step("close")
    command = [COMMAND, "--data-dir", service.data_dir, "migrate", "copy", "--from", f"files:{folder}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode in {0, 3}, done.stdout + done.stderr
    with Bot("bot.mjs", f"baileys-{release}", world, service, folder) as bot:
        bot.says("^connected")
        _ping(world, account["phone"])
        _await_pong(world)
        assert bot.ends(signal.SIGTERM) == 0
