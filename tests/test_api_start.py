"""What keeps the service from starting, and what never has to: master keys, wrong, lost and rotated."""

import asyncio
from typing import Any

import pytest
from api import MASTER_KEY, Api, at, creds, fresh, serve, sid_of

from service.errors import WrongMasterKey
from service.store import keyring
from service.vault import MasterKeys

OTHER = bytes(range(32, 64))
THIRD = bytes(range(64, 96))


class Configured:
    """Master keys as a file would hold them, changed while a service runs."""

    def __init__(self, *keys: bytes) -> None:
        self.keys: tuple[bytes, ...] = keys

    def masters(self) -> MasterKeys:
        return MasterKeys(self.keys, lambda: self.keys)


async def is_refused(url: str, *keys: bytes) -> str:
    """What the service says instead of starting."""
    with pytest.raises(WrongMasterKey) as refused:
        async with serve(url, masters=MasterKeys(keys)):
            pytest.fail("it served")
    text = str(refused.value)
    for key in (MASTER_KEY, *keys):
        assert key.hex() not in text
        assert repr(key) not in text
    return text


@pytest.mark.parametrize("has_sessions", [False, True])
async def test_a_wrong_master_key_is_refused_at_start_and_changes_nothing(database_url: str, has_sessions: bool):
    async with serve(database_url) as api:
        if has_sessions:
            await api.commit("s", {"creds": creds()})
        known = await api.sql("SELECT * FROM master_keys")
        before = await api.dump()
        for keys in ([OTHER], [OTHER, THIRD]):
            said = await is_refused(database_url, *keys)
            assert MasterKeys([MASTER_KEY]).current in said
        assert await api.dump() == before
        assert await api.sql("SELECT * FROM master_keys") == known
    async with serve(database_url) as api:
        assert (await api.ask("GET", at("s", "creds"))).status == (200 if has_sessions else 404)


async def rotate(api: Api, configured: Configured) -> keyring.Rotated:
    """As `authstore key rotate` does beside serving processes."""
    return await keyring.rewrap(api.store.database, configured.masters())


async def test_rotation_runs_beside_serving_processes(database_url: str):
    configured = Configured(MASTER_KEY)
    sessions = [fresh() for _ in range(12)]
    async with (
        serve(database_url, masters=configured.masters()) as api,
        serve(database_url, masters=configured.masters()) as two,
    ):
        for session in sessions:
            await api.commit(session, {"creds": creds(), "keys": {"t": {"a": 0}}})
        rows = await api.sql("SELECT * FROM session_keys ORDER BY sid, kh")
        ended, made = False, []

        async def write(served: Api, name: str) -> int:
            n = 0
            while not ended:
                n += 1
                await served.commit(sessions[n % len(sessions)], {"keys": {name: {str(n): n}}})
                made.append(fresh(name))
                await served.commit(made[-1], {"keys": {"t": {"a": n}}})
                assert (await served.ask("GET", at(sessions[n % len(sessions)], "state"))).status == 200
            return n

        writers = [asyncio.create_task(write(api, "one")), asyncio.create_task(write(two, "two"))]
        await asyncio.sleep(0.2)
        for keys in ((OTHER, MASTER_KEY), (THIRD, OTHER)):
            configured.keys = keys
            rotated = await rotate(api, configured)
            assert rotated.broken == 0
            assert rotated.wrapped >= len(sessions)
            await asyncio.sleep(0.2)
        ended = True
        assert min(await asyncio.gather(*writers)) > 2

        used = await api.sql("SELECT DISTINCT master_key_id FROM sessions")
        assert [row[0] for row in used] == [MasterKeys([THIRD]).current]
        kept = await api.sql("SELECT * FROM session_keys ORDER BY sid, kh")
        assert [row for row in kept if row in rows] == rows, "rotation touches no row"
        names = {status.id: status for status in await keyring.status(api.store.database, configured.masters())}
        assert names[MasterKeys([THIRD]).current].current
        assert names[MasterKeys([MASTER_KEY]).current].retired_at is not None
        assert not names[MasterKeys([OTHER]).current].in_use

    async with serve(database_url, masters=MasterKeys([THIRD])) as api:
        for session in [*sessions, *made]:
            assert (await api.ask("GET", at(session, "state"))).status == 200
    assert MasterKeys([THIRD]).current in await is_refused(database_url, MASTER_KEY)
    await is_refused(database_url, OTHER, MASTER_KEY)


async def test_rotation_twice_is_a_no_op(own_api: Api):
    await own_api.commit("s", {"creds": creds()})
    configured = Configured(OTHER, MASTER_KEY)
    assert (await rotate(own_api, configured)).wrapped == 1
    before = await own_api.dump()
    assert (await rotate(own_api, configured)).wrapped == 0
    assert await own_api.dump() == before


async def test_rotation_needs_the_old_key(own_api: Api):
    await own_api.commit("s", {"creds": creds()})
    rotated = await rotate(own_api, Configured(OTHER))
    assert rotated.wrapped == 0
    async with serve(own_api.url, masters=MasterKeys([OTHER, MASTER_KEY])) as api:
        assert (await api.state("s"))["creds"] == creds()


async def test_rotation_leaves_what_does_not_open_as_it_is(own_api: Api):
    for session in ("good", "broken"):
        await own_api.commit(session, {"creds": creds()})
    await own_api.sql(
        "UPDATE sessions SET wrapped_key = overlay(wrapped_key placing '\\x0102'::bytea from 30 for 2) WHERE sid = $1",
        sid_of("broken"),
    )
    before = await own_api.sql("SELECT wrapped_key FROM sessions WHERE sid = $1", sid_of("broken"))
    rotated = await rotate(own_api, Configured(OTHER, MASTER_KEY))
    assert (rotated.wrapped, rotated.broken) == (1, 1)
    assert await own_api.sql("SELECT wrapped_key FROM sessions WHERE sid = $1", sid_of("broken")) == before


async def test_a_service_is_not_ready_while_a_key_it_needs_is_not_configured(database_url: str):
    configured = Configured(MASTER_KEY)
    async with serve(database_url, masters=configured.masters()) as api:
        await api.commit("s", {"creds": creds()})
        await rotate(api, Configured(OTHER, MASTER_KEY))
        answer: Any = await api.ask("GET", "/health/ready")
        assert (answer.status, answer.json["status"]) == (503, "unavailable")
        made = await api.ask("POST", at("new", "commit"), {})
        assert (made.status, made.slug) == (503, "unavailable")
        configured.keys = (OTHER, MASTER_KEY)
        assert (await api.ask("GET", "/health/ready")).status == 200
        await api.commit("new", {})
        assert (await api.state("s"))["creds"] == creds()


async def test_a_session_under_a_key_that_is_not_configured_is_unavailable(database_url: str):
    """Not a fault of ours: it opens as soon as the key is there."""
    configured = Configured(MASTER_KEY)
    async with serve(database_url, masters=configured.masters()) as api:
        async with serve(database_url, masters=MasterKeys([OTHER, MASTER_KEY])) as ahead:
            await ahead.commit("s", {"creds": creds()})
        answer = await api.ask("GET", at("s", "creds"))
        assert (answer.status, answer.slug) == (503, "unavailable")
        configured.keys = (OTHER, MASTER_KEY)
        assert (await api.state("s"))["creds"] == creds()
