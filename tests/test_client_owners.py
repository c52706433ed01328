"""One owner of a session at a time, whatever happens to its process: refused, told, handed over, or paused and late."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from service_process import ServiceProcess

SCRIPTS = Path(__file__).parent.parent / "client" / "test"
MANY = [f"paused-{number}" for number in range(100)]


class Owner:
    """A Node process that owns sessions and answers with JSON lines."""

    def __init__(self, script: str, service: ServiceProcess, sessions: list[str], **options: Any) -> None:
        asked = {"url": service.url, "token": service.token, "sessions": sessions, **options}
        self.process = subprocess.Popen(
            ["node", SCRIPTS / script, json.dumps(asked)],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        return json.loads(line)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("owners") / "data") as started:
        yield started


def _epochs(service: ServiceProcess, sessions: list[str]) -> dict[str, int]:
    return {name: service.call("GET", f"/v1/sessions/{name}")["epoch"] for name in sessions}


def test_of_two_processes_one_writes_and_the_other_is_told(service: ServiceProcess) -> None:
    with (
        Owner("one-owner.mjs", service, ["pair"], holder="first") as first,
        Owner("one-owner.mjs", service, ["pair"], holder="second") as second,
    ):
        assert first.ask("open") == {"opened": 1}
        assert second.ask("open") == {"code": "held", "holder": "first"}
        assert first.ask("write mine") == {"written": 1}
        assert first.ask("close") == {"closed": 1}
        assert second.ask("open") == {"opened": 1}
        assert second.ask("read") == {"read": ["mine"]}


def test_two_newcomers_at_once_make_one_identity(service: ServiceProcess) -> None:
    for turn in range(5):
        name = f"newcomers-{turn}"
        with (
            Owner("one-owner.mjs", service, [name], holder="first") as first,
            Owner("one-owner.mjs", service, [name], holder="second") as second,
        ):
            for owner in (first, second):
                assert owner.process.stdin is not None
                owner.process.stdin.write("open\n")
            answers = [first.answer(), second.answer()]
            assert {"opened": 1} in answers
            assert any(answer.get("code") == "held" for answer in answers)
        assert service.call("GET", f"/v1/sessions/{name}")["version"] == 1


def test_a_takeover_ends_the_first_owner(service: ServiceProcess) -> None:
    with (
        Owner("one-owner.mjs", service, ["taken"]) as first,
        Owner("one-owner.mjs", service, ["taken"], takeover=True) as second,
    ):
        assert first.ask("open") == {"opened": 1}
        assert first.ask("write first") == {"written": 1}
        assert second.ask("open") == {"opened": 1}
        assert first.ask("write late") == {"code": "lost", "reason": "fenced"}
        assert second.ask("read") == {"read": ["first"]}


def test_sigterm_hands_over_without_waiting_for_the_ttl(service: ServiceProcess) -> None:
    with (
        Owner("one-owner.mjs", service, ["handed"], ttl=600) as first,
        Owner("one-owner.mjs", service, ["handed"], ttl=600) as second,
    ):
        assert first.ask("open") == {"opened": 1}
        assert first.ask("write last-words") == {"written": 1}
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(10) == 0
        assert second.ask("open") == {"opened": 1}
        assert time.monotonic() - began < 10
        assert second.ask("read") == {"read": ["last-words"]}


@pytest.mark.parametrize(
    ("ttl", "pause_s", "takeover", "told"),
    [(5, 6, False, {"fenced", "unavailable"}), (60, 2, True, {"fenced"})],
    ids=["past its ttl", "while another takes over"],
)
def test_an_owner_that_was_paused_writes_nothing_when_it_wakes(
    service: ServiceProcess, ttl: int, pause_s: float, takeover: bool, told: set[str]
) -> None:
    """Past its ttl its own clock stops it; before that the store does."""
    names = [f"{name}-{ttl}" for name in MANY]
    with (
        Owner("late-writers.mjs", service, names, ttl=ttl) as old,
        Owner("one-owner.mjs", service, names, ttl=60, takeover=takeover) as new,
    ):
        assert old.answer() == {"ready": len(names)}
        time.sleep(0.5)
        epochs = _epochs(service, names)
        old.process.send_signal(signal.SIGSTOP)
        time.sleep(pause_s)
        assert new.ask("open") == {"opened": len(names)}
        assert new.ask("write new") == {"written": len(names)}
        versions = {name: service.call("GET", f"/v1/sessions/{name}")["version"] for name in names}

        old.process.send_signal(signal.SIGCONT)
        # It ends by itself: nothing is left that would keep it.
        assert old.process.wait(30) == 0
        last = old.answer()
        print(last)
        assert last["refused"] == len(names), last
        assert last["acceptedLate"] == 0, last
        assert set(last["reasons"]) <= told, last

        # Nor does the store take what a client of another make would send in its place.
        late = [
            service.ask(
                "POST", f"/v1/sessions/{name}/commit", {"keys": {"session": {"who": 1}}}, {"Lease-Epoch": str(epoch)}
            )
            for name, epoch in epochs.items()
        ]
        assert [(status, answer["type"].split(":")[-1]) for status, answer in late] == [(409, "fenced")] * len(names)

        assert new.ask("read") == {"read": ["new"] * len(names)}
        for name in names:
            stored = service.call("GET", f"/v1/sessions/{name}/state")
            assert stored["keys"] == {"session": {"who": {"text": "new"}}}
            assert stored["version"] == versions[name]
