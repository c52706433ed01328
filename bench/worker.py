"""The Node process that does the work, driven line by line."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_NODE: Final = Path(__file__).parent / "node"
_SCRIPT: Final = _NODE / "worker.mjs"
PARTS: Final = _NODE / "parts.mjs"
"""The Node side of a workload in parts."""


class WorkFailed(Exception):
    """A command of the worker failed; the message is its error."""


class Worker:
    """``log`` takes what the libraries print. ``script`` obeys commands as `node/commands.mjs` has it."""

    def __init__(self, log: Path, script: Path = _SCRIPT) -> None:
        self._log = log
        self._script = script
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["node", "--expose-gc", "--max-old-space-size=8192", str(self._script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Runs a command of the script. Raises WorkFailed."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WorkFailed(f"{command}: the worker ended:\n{self._log.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkFailed(
                f"{command} {arguments.get('store', '')} {arguments.get('workload', '')}: {answer['error']}"
            )
        return answer
