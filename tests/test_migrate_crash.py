"""Migrations killed with SIGKILL at random points: no session is ever half there, and going on brings every key."""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from migrating import CALLER, Scene, empty_scene, run_copy, run_verify, shop, shop_scene

from service.migrate.mirror import drain
from service.migrate.plan import Options, plan_session
from service.migrate.sources import open_source
from service.migrate.target import read_target
from service.store.request import CommitRequest, Row

KILLS = 50
NAMES = [f"company_{n:03d}" for n in range(6)]
CUTOVER_KILLS = 12

# All that is stored of each session, told by a hash: what has been opened and judged needs no second look.
STORED = """
SELECT s.name, md5(concat(
    s::text,
    (SELECT string_agg(md5(k::text), '' ORDER BY k.kh) FROM session_keys k WHERE k.sid = s.sid),
    (SELECT string_agg(md5(j::text), '' ORDER BY j.version) FROM session_journal j WHERE j.sid = s.sid)
)) AS told
FROM sessions s
"""


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Six sessions of 1,127 rows each."""
    async with empty_scene(database_url) as scene:
        for name in NAMES:
            await shop.fill(scene.source, name)
        yield scene


@asynccontextmanager
async def killer(scene: Scene) -> AsyncIterator[Any]:
    """``await kill(what, delay)``: its answer."""
    script = await asyncio.create_subprocess_exec(
        sys.executable, Path(__file__).with_name("crash_migrate.py"), scene.target_url, scene.source_url,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert script.stdin is not None
    assert script.stdout is not None

    async def kill(what: str, delay: float) -> str:
        script.stdin.write(f"{what} {delay}\n".encode())
        answer = (await asyncio.wait_for(script.stdout.readline(), 120)).decode().strip()
        assert answer in {"killed", "ended 0"}, answer
        return answer

    yield kill
    script.stdin.close()
    await script.wait()


@dataclass
class Rounds:
    """What each session may hold while copies are killed: this round's values, or whole those of the round before."""

    scene: Scene
    now: dict[str, bytes] = field(default_factory=dict)
    before: dict[str, bytes] = field(default_factory=dict)
    number: int = 0
    opened: dict[str, bytes] = field(default_factory=dict)
    """What is stored of a session -> the digest of what it opens as."""

    async def look_at_source(self) -> None:
        async with await open_source(self.scene.source_url) as source, source.snapshot() as snapshot:
            for name in NAMES:
                self.now[name] = plan_session(name, await snapshot.read(name), Options(), datetime.now(UTC)).digest

    async def copied(self) -> int:
        """How many sessions hold this round's values; none may be anything in between."""
        stored = await self._stored()
        assert self.before.keys() <= stored.keys()
        found = {name: await self._digest(name, told) for name, told in stored.items()}
        assert all(digest in {self.now[name], self.before.get(name)} for name, digest in found.items()), (
            "one is half there"
        )
        return sum(digest == self.now[name] for name, digest in found.items())

    async def _stored(self) -> dict[str, str]:
        async with self.scene.store.database.connection() as connection:
            return {row["name"]: row["told"] for row in await connection.fetch(STORED)}

    async def _digest(self, name: str, told: str) -> bytes:
        if told not in self.opened:
            target = await read_target(self.scene.store, CALLER, name)
            assert target is not None
            self.opened[told] = target.digest
        return self.opened[told]

    async def next(self) -> None:
        """All are copied: the source goes on, so that what is here is replaced, or we start from nothing again."""
        self.number += 1
        if self.number % 2 == 0:
            self.before.clear()
            connection = await asyncpg.connect(self.scene.target_url)
            await connection.execute("TRUNCATE sessions, session_keys")
            await connection.close()
            return
        self.before = dict(self.now)
        await self.scene.source.execute(
            "UPDATE whatsapp_keys SET value = jsonb_set(value, '{n}', to_jsonb($1::int)) WHERE key_type = 'session'"
            " AND key_id IN (SELECT min(key_id) FROM whatsapp_keys WHERE key_type = 'session')",
            self.number,
        )
        await self.look_at_source()


async def test_fifty_kills_and_a_rerun(scene: Scene) -> None:
    chance = random.Random(20261123)
    rounds, seen = Rounds(scene), Counter[int]()
    await rounds.look_at_source()
    killed = 0
    async with killer(scene) as kill:
        began = time.monotonic()
        assert await kill("copy", 60.0) == "ended 0"
        part = (time.monotonic() - began) / 6  # on this machine, beside whatever else runs on it
        await rounds.next()
        before = 0
        while killed < KILLS:
            killed += await kill("copy", chance.uniform(0.0, part)) == "killed"
            copied = await rounds.copied()
            seen[copied] += 1
            # Where starting takes longer than copying, most of that time is over before the first session's turn.
            part *= 1.2 if copied == before else 0.9
            before = copied
            if copied == len(NAMES):
                await rounds.next()
                before = 0
    assert sum(count for copied, count in seen.items() if 0 < copied < len(NAMES)) > KILLS / 4, seen

    report = await run_copy(scene.store, scene.source_url)
    assert {each.outcome for each in report.sessions} <= {"copied", "same"}, report.sessions
    assert await rounds.copied() == len(NAMES)
    verified = await run_verify(scene.store, scene.source_url)
    assert [each.outcome for each in verified.sessions] == ["equal"] * len(NAMES)


async def test_a_cutover_that_is_killed_is_begun_again(database_url: str) -> None:
    chance = random.Random(4)
    async with shop_scene(database_url) as scene, killer(scene) as kill:
        answers = [await kill("cutover", chance.uniform(0.0, 1.2)) for _ in range(CUTOVER_KILLS)]
        assert "killed" in answers
        assert await kill("cutover", 60.0) == "ended 0"
        target = await read_target(scene.store, CALLER, shop.SESSION)
        assert target is not None
        assert target.lease is None
        assert target.mirrored
        await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=[Row("lid-mapping", b"15550200000", None)]))
        assert await drain(scene.store, CALLER) == 1
        assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]


async def test_a_rollback_that_is_killed_is_begun_again(database_url: str) -> None:
    """Without a mirror, and written here in between, as happens when nobody looks after a rollback that died."""
    chance = random.Random(5)
    async with shop_scene(database_url) as scene, killer(scene) as kill:
        await run_copy(scene.store, scene.source_url)
        for n in range(CUTOVER_KILLS):
            row = Row("lid-mapping", f"155502001{n:02d}".encode(), None)
            await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=[row]))
            if await kill("rollback", chance.uniform(0.0, 0.8)) == "ended 0":
                break
            target = await read_target(scene.store, CALLER, shop.SESSION)
            assert target is not None
            if target.lease is not None:  # it runs out in a minute; here it ends now
                await scene.store.release(CALLER, shop.SESSION, target.epoch)
        assert await kill("rollback", 60.0) == "ended 0"
        target = await read_target(scene.store, CALLER, shop.SESSION)
        assert target is not None
        assert target.lease is not None
        assert target.lease.holder.startswith("rollback to")
        assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]
