"""Real Baileys keeps its state here, and its contacts can read every message whatever dies in between.

Baileys 7.0.0-rc14, 6.17.16 and 6.7.24 from npm on both ends of the store's client; the WhatsApp server is a loopback one with
real Noise, pairing and Signal crypto (`fixtures/wire`). A step of the driver succeeds only when every device a message
was for has read the same text.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from baileys_driver import Device, World
from service_process import ServiceProcess

SESSION = "device@loopback:1"
FIRST_PRE_KEYS = {"6": 30, "6.17.16": 30, "7": 812}

# 6.17.16 has been given its app-state keys already.
EXTRAS = {"6": ["extras"], "6.17.16": [], "7": ["extras"]}

releases = pytest.mark.parametrize("release", ["6", "6.17.16", "7"], ids=["6.7.24", "6.17.16", "7.0.0-rc14"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service") / "data") as started:
        yield started


@pytest.fixture
def world(release: str) -> Iterator[World]:
    with World(release) as running:
        yield running


@pytest.fixture
def session(service: ServiceProcess, release: str, request: pytest.FixtureRequest) -> str:
    return f"{SESSION}.{release}.{request.node.originalname}"


def _summary(service: ServiceProcess, session: str) -> Any:
    return service.call("GET", f"/v1/sessions/{session}")


def _state(service: ServiceProcess, session: str) -> Any:
    return service.call("GET", f"/v1/sessions/{session}/state")


def _settle(service: ServiceProcess, session: str) -> None:
    """Waits until the device writes nothing any more."""
    seen = None
    while seen != (seen := _summary(service, session)["version"]):
        time.sleep(0.5)


def _logged_in(release: str, world: World, service: ServiceProcess, session: str) -> tuple[Device, dict[str, Any]]:
    device = Device(release, world, service, session)
    account: dict[str, Any] = device.step("pair")["account"]
    device.step("login")
    return device, account


def _paired(release: str, world: World, service: ServiceProcess, session: str) -> tuple[Device, dict[str, Any]]:
    device, account = _logged_in(release, world, service, session)
    if release == "6.17.16":  # shows no message before its second login with app-state keys: it waits for the history
        device.step("extras")
        device.step("login")
    return device, account


@releases
def test_first_login_leaves_a_paired_session_with_all_its_pre_keys(
    release: str, world: World, service: ServiceProcess, session: str
) -> None:
    device, _ = _logged_in(release, world, service, session)
    with device:
        _settle(service, session)
        summary = _summary(service, session)
        assert summary["paired"]
        assert summary["keys"]["pre-key"]["count"] == FIRST_PRE_KEYS[release]
        assert _state(service, session)["creds"]["nextPreKeyId"] == FIRST_PRE_KEYS[release] + 1
        device.step("close")
        assert _summary(service, session)["lease"] is None
        assert device.finish() == 0


@releases
def test_the_conversation_goes_on_after_the_service_is_killed(
    release: str, world: World, service: ServiceProcess, session: str
) -> None:
    device, _ = _paired(release, world, service, session)
    with device:
        for line in ("receive 3", "send 3", "group-send 2", "group-receive 2", *EXTRAS[release]):
            device.step(line)
        _settle(service, session)
        before = _state(service, session)

        service.kill9()
        service.restart()
        assert _state(service, session) == before
        device.step("converse 3")

        # Killed while messages fly, too: commits wait for the service to return.
        device.say("converse 25")
        time.sleep(0.5)
        assert device.busy
        service.kill9()
        service.restart()
        assert device.next_line()["ok"]

        after = _state(service, session)
        assert after["creds"]["signedIdentityKey"] == before["creds"]["signedIdentityKey"]
        assert after["creds"]["account"] == before["creds"]["account"]
        assert device.finish() == 0


@releases
def test_the_next_process_takes_up_the_conversation(
    release: str, world: World, service: ServiceProcess, session: str
) -> None:
    first, account = _paired(release, world, service, session)
    with first:
        first.step("receive 2")
        first.step("converse 3")
        assert first.finish() == 0
    with Device(release, world, service, session, account=account) as second:
        second.step("login")
        second.step("converse 3")
        _settle(service, session)
        second.kill9()
    # The dead process still holds the lease.
    with Device(release, world, service, session, account=account, takeover=True) as third:
        third.step("login")
        third.step("converse 3")
        assert third.finish() == 0


@pytest.mark.parametrize(
    ("state", "env"),
    [("cached", {}), ("remote", {"AUTHSTORE_MEMORY_BYTES": "0"}), ("cached", {"AUTHSTORE_MEMORY_BYTES": "2000"})],
    ids=["in Baileys' cache", "without memory", "in the cache, with little memory"],
)
@releases
def test_nobody_can_tell_what_is_in_memory(
    release: str, world: World, service: ServiceProcess, session: str, state: str, env: dict[str, str]
) -> None:
    session += f".{state}{len(env)}"
    with Device(release, world, service, session, state=state, env=env) as device:
        device.step("pair")
        device.step("login")
        device.step("extras")
        device.step("login")
        device.step("converse 3")
        device.step("crowd 10")
        assert device.step("crowd-send 2")["devices"] == 2 * 21
        device.step("reload")
        device.step("converse 2")
        device.step("close")
        assert device.finish() == 0


@pytest.mark.parametrize(("step", "complaint"), [("receive 1", "not decrypted"), ("send 1", "could not read")])
@releases
def test_a_rolled_back_state_is_noticed(
    release: str, world: World, service: ServiceProcess, session: str, step: str, complaint: str
) -> None:
    """The control: with sessions as they were some messages ago, neither side can read the other's next message."""
    session += f".{step.split(maxsplit=1)[0]}"
    device, account = _paired(release, world, service, session)
    with device:
        device.step("receive 2")
        device.step("send 2")
        _settle(service, session)
        old = _state(service, session)["keys"]["session"]
        device.step("converse 3")
        device.step("receive 1")
        assert device.finish() == 0
    assert _state(service, session)["keys"]["session"] != old
    service.call("POST", f"/v1/sessions/{session}/commit", {"keys": {"session": old}})

    with Device(release, world, service, session, account=account) as rolled_back:
        rolled_back.step("login")
        answer = rolled_back.try_step(step)
        assert not answer["ok"]
        assert complaint in answer["error"], answer
        assert rolled_back.finish() == 1


def test_the_fixtures_are_real_states_that_come_back_as_they_went_in(service: ServiceProcess) -> None:
    for file in sorted((Path(__file__).parent.parent / "fixtures" / "state").glob("baileys-*.json")):
        state = json.loads(file.read_text())
        path = f"/v1/sessions/{file.stem}"
        service.call("PUT", f"{path}/state", state)
        stored = service.call("GET", f"{path}/state")
        assert stored["creds"] == state["creds"]
        assert stored["keys"] == state["keys"]
        assert service.call("GET", path)["paired"]
