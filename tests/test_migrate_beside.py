"""Runs beside each other: of one operator or of two, one session has one that moves it. One that was killed holds nobody up."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from migrating import CALLER, Scene, authstore, run_copy, shop, shop_scene
from test_migrate_live import cut_over, old_writer

from service.errors import Fenced, LeaseHeld
from service.migrate import alive
from service.migrate.copy import Told
from service.migrate.cutover import Cutover
from service.migrate.leases import holder
from service.migrate.runs import Run, operator
from service.migrate.target import read_target
from service.sql import runs as sql
from service.store import AuthStore

WAITS = Cutover(still_s=1.5, patience_s=60.0, watch_s=0)


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


@asynccontextmanager
async def a_cutover(scene: Scene) -> AsyncIterator[None]:
    """A cutover that has copied and waits for the old writer; at the end that stops, and the cutover has to open."""
    said = asyncio.Event()
    async with old_writer(scene) as writer:
        moving = asyncio.create_task(cut_over(scene, WAITS, lambda _line: said.set()))
        await said.wait()
        held = await lease_of(scene)
        yield
        assert not moving.done()
        assert await lease_of(scene) == held
        writer.stopped.set()
        (each,) = (await moving).sessions
        assert each.outcome == "cut-over", each.says


async def lease_of(scene: Scene) -> Any:
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert target.lease is not None
    return target.lease.holder, target.epoch


@pytest.mark.parametrize("beside", ["copy", "cutover"])
async def test_a_run_beside_a_cutover_of_the_same_operator_leaves_it_its_session(scene: Scene, beside: str) -> None:
    async with a_cutover(scene):
        held = await lease_of(scene)
        report = await (run_copy(scene.store, scene.source_url) if beside == "copy" else cut_over(scene, WAITS))
        (each,) = report.sessions
        assert each.outcome == "refused"
        assert held[0] in each.says
        assert await lease_of(scene) == held
        with pytest.raises(LeaseHeld):
            await scene.store.lease(CALLER, shop.SESSION, "new client", 60, takeover=False, epoch=None)


async def test_an_import_beside_a_cutover_leaves_it_its_session(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / shop.SESSION
    folder.mkdir()
    (folder / "creds.json").write_text('{"me":{"id":"1@s.whatsapp.net"}}')
    async with a_cutover(scene):
        held = await lease_of(scene)
        done = await asyncio.to_thread(
            authstore, scene.target_url, "import", str(folder), "--overwrite", "--format", "json", cwd=tmp_path
        )
        assert done.returncode == 1
        assert held[0] in done.stdout
        assert await lease_of(scene) == held


async def test_a_copy_that_ended_a_lease_gives_back_its_own_and_reports_what_it_applied(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_copy(scene.store, scene.source_url)
    await shop_went_on(scene)
    await scene.store.lease(CALLER, shop.SESSION, "another", 600, takeover=False, epoch=None)
    real = AuthStore.release

    async def overtaken(store: AuthStore, caller: Any, name: str, epoch: int) -> None:
        await real(store, caller, name, epoch)
        raise Fenced

    monkeypatch.setattr(AuthStore, "release", overtaken)
    (each,) = (await run_copy(scene.store, scene.source_url, Told(takeover=True))).sessions
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert (each.outcome, each.version, target.lease) == ("copied", target.version, None)


async def shop_went_on(scene: Scene) -> None:
    await scene.source.execute(
        "UPDATE whatsapp_keys SET value = '\"999\"' WHERE key_type = 'lid-mapping' AND key_id = (SELECT min(key_id)"
        " FROM whatsapp_keys WHERE key_type = 'lid-mapping')"
    )


@pytest.mark.parametrize("process", ["killed", "alive", "elsewhere", "unknown"])
async def test_only_the_lease_of_a_run_that_is_known_to_be_dead_is_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, process: str
) -> None:
    await run_copy(scene.store, scene.source_url)
    await shop_went_on(scene)
    with another_process() as (child, marked):
        wrong = {"elsewhere": f"0123456789abcdef {marked.split(' ', 1)[1]}", "unknown": None}
        with monkeypatch.context() as patch:
            patch.setattr(alive, "mark", lambda: wrong.get(process, marked))
            run = await Run.begin(scene.store, CALLER, "cutover", "another", {})
        await scene.store.lease(CALLER, shop.SESSION, run.holder, 60, takeover=False, epoch=None)
        if process != "alive":
            child.kill()
            child.wait()
        (each,) = (await run_copy(scene.store, scene.source_url)).sessions
    assert each.outcome == ("copied" if process == "killed" else "refused"), each.says
    assert process == "killed" or run.holder in each.says


@pytest.mark.parametrize("tenant", ["default", "other"])
async def test_a_run_of_another_tenant_is_not_known(scene: Scene, tenant: str) -> None:
    run = await Run.begin(scene.store, CALLER, "copy", "another", {})
    async with scene.store.database.connection() as connection:
        found = await sql.find_process(connection, run.id, tenant)
    assert found == (alive.mark() if tenant == "default" else None)


def another_process() -> Any:
    return Child()


class Child:
    """A process of its own and its mark."""

    def __enter__(self) -> tuple["subprocess.Popen[bytes]", str]:
        code = "from service.migrate import alive; print(alive.mark(), flush=True); input()"
        self.child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.child.stdout is not None
        return self.child, self.child.stdout.readline().decode().strip()

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()


def test_a_process_is_gone_when_it_ended_and_when_its_number_is_another_ones() -> None:
    marked = alive.mark()
    assert marked is not None
    assert not alive.gone(marked)
    where, pid, started = marked.split()
    assert alive.gone(f"{where} {pid} {int(started) + 1}")
    with another_process() as (child, its):
        assert not alive.gone(its)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert alive.gone(its)  # though its parent has not looked
        child.wait()
        assert alive.gone(its)


@pytest.mark.parametrize("nonsense", [None, "", "one", "a b c", "a b c d"])
def test_what_says_nothing_is_not_gone(nonsense: str | None) -> None:
    assert not alive.gone(nonsense)


def test_a_holder_is_a_name_that_a_lease_can_have() -> None:
    named = holder(UUID(int=7), "a" * 300)
    assert len(named) == 200
    assert str(UUID(int=7)) in named
    assert holder(UUID(int=8), operator()) != holder(UUID(int=7), operator())
