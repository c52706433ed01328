"""A conversation while the service comes and goes, and a send to a crowd: every message is read, every commit whole.

The stored state is looked at all the time and compared with a model that Baileys writes to as well
(`fixtures/model.mjs`). ``AUTHSTORE_LONG=1`` makes it the long run: 500 messages, a restart every two seconds.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from baileys_driver import Device, World
from service_process import ServiceProcess

LONG = os.environ.get("AUTHSTORE_LONG") == "1"
# Each turn is four messages, two either way.
TURNS = 125 if LONG else 30
LONGEST_S = 1500
CROWD = 1000

releases = pytest.mark.parametrize("release", ["6", "6.17.16", "7"], ids=["6.7.24", "6.17.16", "7.0.0-rc14"])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "data") as started:
        yield started


@pytest.fixture
def world(release: str) -> Iterator[World]:
    with World(release) as running:
        yield running


@contextmanager
def _restarting(service: ServiceProcess, every_s: float) -> Iterator[list[float]]:
    """Ends the service every so often, in turns without and with warning; yields when each was back."""
    back: list[float] = []
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            if len(back) % 2:
                service.stop()
            else:
                service.kill9()
            service.restart()
            back.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield back
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S + 300)
@releases
def test_every_message_is_read_and_every_commit_is_whole_while_the_service_restarts(
    release: str, world: World, service: ServiceProcess
) -> None:
    with Device(release, world, service, "restarts", state="modelled") as device:
        device.step("pair")
        device.step("login")
        if release == "6.17.16":  # shows no message before its second login with app-state keys
            device.step("extras")
            device.step("login")
        device.step("receive 1")
        with _restarting(service, every_s=2) as back:
            talked = device.step(f"converse {TURNS}", LONGEST_S)
            restarts = len(back)
        assert talked["messages"] == 4 * TURNS
        assert restarts >= (5 if LONG else 1), restarts
        seen = device.step("audit")
        assert seen["samples"] > restarts
        assert seen["distinct"] > 1
        print({"release": release, "messages": talked["messages"], "restarts": restarts, **seen})
        device.step("close")
        assert device.finish() == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("release", ["7"], ids=["7.0.0-rc14"])
def test_a_first_message_to_a_thousand_people_is_one_commit_that_all_can_read(
    release: str, world: World, service: ServiceProcess
) -> None:
    env = {"DRIVE_STEP_MS": "500000"}
    with Device(release, world, service, "crowd", state="modelled", env=env) as device:
        device.step("pair")
        device.step("login")
        device.step(f"crowd {CROWD}", 300)
        device.step("calls")
        before = service.call("GET", "/v1/sessions/crowd")
        sent = device.step("crowd-send 1", 600)
        # Two devices of each, and the phone of the account itself.
        assert sent["devices"] == 2 * CROWD + 1
        calls = device.step("calls")
        assert calls["largestSet"] > 3 * CROWD
        after = service.call("GET", "/v1/sessions/crowd")
        assert after["version"] - before["version"] <= calls["sets"] + calls["credsSaves"]
        assert after["keys"]["session"]["count"] >= 2 * CROWD
        device.step("audit")
        device.step("close")
        assert device.finish() == 0
