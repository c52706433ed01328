"""Real Baileys devices and the loopback WhatsApp they talk to, as Node processes driven line by line."""

import json
import os
import queue
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service_process import ServiceProcess

FIXTURES = Path(__file__).parent.parent / "fixtures"
STEP_WITHIN_S = 120


class _Node:
    """A Node script that answers with JSON lines."""

    def __init__(self, script: str, *args: str, env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            ["node", script, *args],
            cwd=FIXTURES,
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill9()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def next_line(self, within_s: float = STEP_WITHIN_S) -> dict[str, Any]:
        line = self._lines.get(timeout=within_s)
        assert line is not None, "the Node process ended without an answer"
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def busy(self) -> bool:
        """Whether it has not answered what it was told last."""
        return self._lines.empty()

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait(self, within_s: float = STEP_WITHIN_S) -> int:
        """The exit code of one that ends by itself."""
        return self._process.wait(within_s)

    def finish(self) -> int:
        """Ends its input; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(STEP_WITHIN_S)

    def kill9(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line)
        except ValueError:  # closed by kill9
            pass
        self._lines.put(None)


class World(_Node):
    """The loopback WhatsApp: server and contacts. It outlives devices and services.

    ``release``: of its devices, when that is 6.17.16, which speaks another dictionary than the others.
    """

    def __init__(self, release: str = "") -> None:
        super().__init__("world.mjs", "0", release)
        self.url: str = self.next_line()["world"]


class Device(_Node):
    """A device of one Baileys release whose state is in the service.

    ``account`` is what ``pair`` answered in an earlier process: with it the device is a paired one's next life.
    ``state`` and ``env`` as ``fixtures/states.mjs`` has them.
    """

    def __init__(
        self,
        release: str,
        world: World,
        service: ServiceProcess,
        session: str,
        *,
        account: dict[str, Any] | None = None,
        takeover: bool = False,
        state: str = "remote",
        env: dict[str, str] | None = None,
    ) -> None:
        args = ["--baileys", release, "--state", state, "--world", world.url]
        if account is not None:
            args += ["--account", json.dumps(account)]
        where = {"AUTHSTORE_URL": service.url, "AUTHSTORE_TOKEN": service.token, "AUTHSTORE_SESSION": session}
        if takeover:
            where["AUTHSTORE_TAKEOVER"] = "1"
        super().__init__("drive.mjs", *args, env=where | (env or {}))
        assert self.next_line()["ok"], "the device did not open its state"

    def step(self, line: str, within_s: float = STEP_WITHIN_S) -> dict[str, Any]:
        """Runs a step, which must succeed."""
        answer = self.try_step(line, within_s)
        assert answer["ok"], json.dumps(answer)
        return answer

    def try_step(self, line: str, within_s: float = STEP_WITHIN_S) -> dict[str, Any]:
        """Runs a step; its answer, good or bad."""
        self.say(line)
        return self.next_line(within_s)


class FolderDevice(Device):
    """A device on Baileys' own multi-file store."""

    def __init__(self, release: str, world: World, folder: Path, *, account: dict[str, Any] | None = None) -> None:
        args = ["--baileys", release, "--state", f"multi-file:{folder}", "--world", world.url]
        if account is not None:
            args += ["--account", json.dumps(account)]
        _Node.__init__(self, "drive.mjs", *args)
        assert self.next_line()["ok"]
