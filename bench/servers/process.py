"""Servers of our own making, each in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

_START_S: Final = 20.0


class Process:
    """A server of this folder in a process of its own, there while its context is: ``words`` are a module and its arguments."""

    def __init__(self, words: Sequence[str], port: int, environ: Mapping[str, str]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._words = words
        self._environ = os.environ | environ
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-m", *self._words], env=self._environ)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise RuntimeError(f"{self._words[0]} did not start")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
