"""`authstore` as a process, and sessions with values to look for afterwards."""

import json
import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import creds
from service_process import COMMAND, ServiceProcess

SESSION_TYPE = "session"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs `authstore` on a data folder. What it says never holds a traceback."""

    def __init__(self, data_dir: Path, **env: str) -> None:
        self.data_dir = data_dir
        self._env = {"PATH": os.environ["PATH"], "AUTHSTORE_DATA_DIR": str(data_dir), **env}

    def __call__(self, *arguments: str, **env: str) -> Done:
        command = [COMMAND, *arguments]
        ran = subprocess.run(command, env=self._env | env, capture_output=True, timeout=120, check=False, text=True)
        assert "Traceback" not in ran.stderr + ran.stdout, ran.stderr
        return Done(ran.returncode, ran.stdout, ran.stderr)

    def good(self, *arguments: str, **env: str) -> Done:
        """A command that must succeed."""
        done = self(*arguments, **env)
        assert (done.code, done.err) == (0, ""), done
        return done

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        """A command that somebody will kill."""
        return subprocess.Popen(
            [COMMAND, *arguments], env=self._env | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def fresh(word: str) -> str:
    return f"{word}-{secrets.token_hex(4)}"


def commit(service: ServiceProcess, name: str, value: object, key_id: str = "one") -> int:
    return service.ask("POST", f"/v1/sessions/{name}/commit", {"keys": {SESSION_TYPE: {key_id: value}}})[0]


def read(service: ServiceProcess, name: str, key_id: str = "one") -> object:
    got = service.call("POST", f"/v1/sessions/{name}/keys/get", {SESSION_TYPE: [key_id]})
    return got[SESSION_TYPE][key_id]


def fill(service: ServiceProcess, count: int) -> dict[str, str]:
    """Makes sessions with a value each."""
    made = {fresh("filled"): secrets.token_hex(8) for _ in range(count)}
    body = {"commits": [{"session": n, "creds": creds(), "keys": {SESSION_TYPE: {"one": v}}} for n, v in made.items()]}
    results = service.call("POST", "/v1/commits", body)["results"]
    assert all(result.get("version") == 1 for result in results)
    return made


def assert_all_there(service: ServiceProcess, made: dict[str, str]) -> None:
    """Every session opens, whole and as it was."""
    for name, value in made.items():
        state = service.call("GET", f"/v1/sessions/{name}/state")
        assert state["keys"][SESSION_TYPE]["one"] == value
