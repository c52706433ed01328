"""Commits whose answer is lost, while others write on: found again, or told to be unknown; never applied a second time."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import postgres_proxy
import pytest
from external_postgres import ExternalPostgres
from postgres_proxy import PostgresProxy

from service.errors import OutcomeUnknown, Unavailable, VersionMismatch
from service.records import RECENT_KEPT
from service.store import AuthStore, Caller
from service.store.auth_store import StoreOptions
from service.store.changes import Committed
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

ME = Caller("default", "write")
MASTER = os.urandom(32)


class Scene:
    """``far`` asks the database through ``between``, ``near`` directly."""

    def __init__(self, far: AuthStore, near: AuthStore, between: PostgresProxy) -> None:
        self.far, self.near, self.between = far, near, between

    async def lose_an_answer(self, request: CommitRequest) -> "asyncio.Task[Committed]":
        """A commit under way that is stored already; its connection is lost with its answer, and nothing gets through."""
        before, losses = await value(self.near), self.between.losses["after"]
        self.between.loss = 1.0
        lost = asyncio.create_task(self.far.commit(ME, "s", request))
        while self.between.losses["after"] == losses:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        self.between.hold()
        self.between.loss = 0.0
        while await value(self.near) == before:
            pass
        return lost


async def opened(url: str, **options: Any) -> AuthStore:
    store = AuthStore(url, MasterKeys([MASTER]), None, StoreOptions(**options))
    await store.open()
    return store


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(postgres_proxy, "_LOSSES", ("after",))
    with ExternalPostgres(tmp_path / "external") as server:
        async with PostgresProxy(server.port, random.Random(1)) as between:
            far = await opened(server.url_at(between.port), patience_s=3.0, statement_s=1.0)
            near = await opened(server.url_at(server.port))
            await near.commit(ME, "s", put(1))
            for n in (2, 3):
                await far.commit(ME, "s", put(n))
            yield Scene(far, near, between)
            between.release()
            await far.close()
            await near.close()


def put(number: int, **more: Any) -> CommitRequest:
    return CommitRequest(rows=[Row("t", b"x", b"%d" % number)], **more)


async def value(store: AuthStore) -> bytes:
    return (await store.get(ME, "s", [("t", b"x")]))[0]


async def written_on(scene: Scene, count: int) -> int:
    """Others' commits above it; the session's version then."""
    outcomes = await scene.near.commit_all(ME, [("s", put(200 + n)) for n in range(count)])
    versions = [outcome.version for outcome in outcomes if isinstance(outcome, Committed)]
    assert len(versions) == count
    return versions[-1]


async def test_a_lost_answer_is_found_as_long_as_its_key_is_remembered(scene: Scene):
    lost = await scene.lose_an_answer(put(100, key=uuid4()))
    top = await written_on(scene, RECENT_KEPT - 1)
    scene.between.release()
    assert (await lost).version == top - (RECENT_KEPT - 1)
    assert await value(scene.near) == b"%d" % (200 + RECENT_KEPT - 2)


async def test_what_is_no_longer_remembered_is_not_applied_again(scene: Scene):
    lost = await scene.lose_an_answer(put(100))
    await written_on(scene, RECENT_KEPT)
    scene.between.release()
    with pytest.raises(OutcomeUnknown):
        await lost
    assert await value(scene.near) == b"%d" % (200 + RECENT_KEPT - 1)
    await scene.far.commit(ME, "s", put(7))
    assert await value(scene.near) == b"7"


async def test_who_names_its_version_hears_that_it_is_another(scene: Scene):
    lost = await scene.lose_an_answer(put(100, if_match=3))
    await written_on(scene, RECENT_KEPT)
    scene.between.release()
    with pytest.raises(VersionMismatch) as told:
        await lost
    assert not isinstance(told.value, OutcomeUnknown)


async def test_a_commit_that_was_never_sent_is_in_no_doubt(scene: Scene):
    """The connection was lost before it: however much others wrote, it is simply the next one."""
    scene.between.hold()
    scene.between.drop()
    await asyncio.sleep(0.2)  # until that is known here: whatever is put on a dead connection is in doubt
    late = asyncio.create_task(scene.far.commit(ME, "s", put(100)))
    for _ in range(3):
        await asyncio.sleep(0.05)
        scene.between.drop()  # before a connection is there at all
    await written_on(scene, RECENT_KEPT + 3)
    scene.between.release()
    await late
    assert await value(scene.near) == b"100"


async def test_a_batch_stops_behind_one_in_doubt(scene: Scene):
    """Sent again as a whole it ends as it was meant to, not with its first member on top."""
    asked = [("s", put(n, key=uuid4())) for n in range(10, 10 + RECENT_KEPT)]
    scene.between.hold()
    batch = asyncio.create_task(scene.far.commit_all(ME, asked))
    await asyncio.wait({batch}, timeout=30)  # the first is given up; each of the others would have its own patience
    scene.between.release()
    scene.between.drop()
    assert [type(outcome) for outcome in await batch] == [Unavailable] * len(asked)
    for _ in range(2):
        again = await scene.far.commit_all(ME, asked)
        assert all(isinstance(outcome, Committed) for outcome in again), again
        assert await value(scene.near) == b"%d" % (10 + RECENT_KEPT - 1)
