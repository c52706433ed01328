"""A session that was given back stays closed here, whatever is tried afterwards, until a cutover opens it."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from migrating import AUTHSTORE, CALLER, Scene, Told, authstore, command_env, run_copy, run_verify, shop, shop_scene
from test_migrate_live import at_source, counted, cut_over, roll_back, write_here

from service.errors import Fenced, LeaseHeld, Unavailable
from service.http.wire import LeaseBody
from service.migrate.cutover import Cutover, cutover
from service.migrate.fence import standing
from service.migrate.holding import holding
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder, SessionReport
from service.migrate.rollback import Rollback, rollback
from service.migrate.runs import Run, called, list_runs
from service.migrate.source import SourceError
from service.migrate.sources import open_source
from service.store import AuthStore
from service.store.mirrors import Mirrors

NAME = "15550400000.0"
OLD_LIVES = f"UPDATE whatsapp_keys SET value = '{{\"n\": 99}}' WHERE key_type = 'session' AND key_id = '{NAME}'"
BUSY = """
UPDATE whatsapp_keys SET value = $1 WHERE key_type = 'session'
AND key_id = (SELECT min(key_id) FROM whatsapp_keys WHERE key_type = 'session')
"""
LOSE = "DELETE FROM whatsapp_keys; DELETE FROM whatsapp_auth"
TAKES_OVER = Told(takeover=True)


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


@pytest.fixture
async def given(scene: Scene) -> Scene:
    """The session was here, was given back, and its old writer goes on."""
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    await write_here(scene, 1)
    assert (await roll_back(scene)).sessions[0].outcome == "rolled-back"
    await scene.source.execute(OLD_LIVES)
    return scene


async def client_opens(scene: Scene, *, takeover: bool = False) -> int:
    granted = await scene.store.lease(CALLER, shop.SESSION, "a client", 600, takeover=takeover, epoch=None)
    return granted.epoch


async def closed(scene: Scene) -> bool:
    """Whether a client is kept out for longer than by any other's lease."""
    try:
        await client_opens(scene)
    except LeaseHeld as error:
        fence = await standing(scene.store, CALLER, shop.SESSION)
        return fence is not None and error.holder == fence[0] == "rollback to legacy-postgres"
    return False


async def there(scene: Scene) -> Any:
    return (await at_source(scene)).get(("session", NAME))


async def roll_back_to(scene: Scene, *, overwrite: bool = False) -> SessionReport:
    """As with --from."""
    origin = Origin(scene.source_url, shop.SESSION, Options())
    async with await open_source(scene.source_url) as source:
        run = await Run.begin(scene.store, CALLER, "rollback", called(source), {})
        return (await rollback(run, source, origin, shop.SESSION, Rollback(overwrite))).sessions[0]


@asynccontextmanager
async def busy(scene: Scene) -> AsyncIterator[None]:
    """The old writer was not stopped."""

    async def write() -> None:
        connection = await asyncpg.connect(scene.source_url)
        for n in range(10**6):
            await connection.execute(BUSY, json.dumps({"n": n}))
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()


WAITS = Cutover(still_s=1, patience_s=2, told=TAKES_OVER)
TOLD_SO = Cutover(stopped=True, watch_s=0, told=TAKES_OVER)


async def test_a_cutover_whose_old_writer_was_not_stopped_leaves_it_closed(given: Scene) -> None:
    async with busy(given):
        with pytest.raises(SourceError):
            await cut_over(given, WAITS)
    assert await closed(given)


async def test_a_cutover_that_says_the_source_changes_leaves_it_closed_and_its_copy_to_the_source(
    given: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_source(given.source_url) as source:
        real, n = type(source).fingerprint, 0

        async def another(self: Any, session: str) -> str:
            nonlocal n
            n += 1
            return f"{await real(self, session)}{n}"

        with monkeypatch.context() as patched:
            patched.setattr(type(source), "fingerprint", another)
            report = await cut_over(given, TOLD_SO)
    assert report.sessions[0].outcome == "changing"
    assert await closed(given)
    await given.source.execute(OLD_LIVES.replace("99", "100"))
    again = await roll_back_to(given, overwrite=True)  # what is here is a copy of what was there
    assert (again.outcome, await there(given)) == ("refused", {"n": 100})
    moved = (await cut_over(given, TOLD_SO)).sessions[0]
    assert moved.outcome == "cut-over", moved.says
    await write_here(given, 5)


async def test_only_a_cutover_that_opens_ends_it(given: Scene) -> None:
    refused = (await cut_over(given, Cutover(stopped=True, watch_s=0))).sessions[0]
    assert refused.outcome == "refused"
    assert "rollback to legacy-postgres" in refused.says
    assert await closed(given)
    assert (await cut_over(given, TOLD_SO)).sessions[0].outcome == "cut-over"
    await client_opens(given)


async def test_nor_does_one_that_was_killed(given: Scene, tmp_path: Path) -> None:
    asked = ["migrate", "cutover", "--from", given.source_url, "--session", shop.SESSION, "--takeover"]
    async with busy(given):
        process = await asyncio.create_subprocess_exec(
            AUTHSTORE, *asked, env=command_env(given.target_url), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        told = await process.stderr.readline()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert b"stop the old writer now" in told
    assert await closed(given)
    async with busy(given):  # and once more
        with pytest.raises(SourceError):
            await cut_over(given, WAITS)
    assert await closed(given)


async def test_a_copy_leaves_it_closed(given: Scene) -> None:
    assert (await run_copy(given.store, given.source_url)).sessions[0].outcome == "refused"
    assert (await run_copy(given.store, given.source_url, TAKES_OVER)).sessions[0].outcome == "copied"
    assert await closed(given)
    await given.source.execute(OLD_LIVES.replace("99", "100"))
    assert (await roll_back_to(given, overwrite=True)).outcome == "refused"
    assert await there(given) == {"n": 100}


async def test_deleting_and_restoring_leaves_it_closed(given: Scene) -> None:
    await given.store.delete(CALLER, shop.SESSION, epoch=None, purge=False)
    await given.store.restore(CALLER, shop.SESSION)
    assert await closed(given)
    assert (await cut_over(given, TOLD_SO)).sessions[0].outcome == "cut-over"
    await client_opens(given)
    await given.store.delete(CALLER, shop.SESSION, epoch=None, purge=False)
    await given.store.restore(CALLER, shop.SESSION)
    assert (await given.store.show(CALLER, shop.SESSION)).lease is None, "a client's lease ends with its session"


@pytest.mark.parametrize("purge", [False, True])
async def test_what_was_deleted_meanwhile_needs_no_release(given: Scene, purge: bool) -> None:
    async with holding(given.store, CALLER, shop.SESSION, "one", takeover=True) as hold:
        hold.kept = False  # as a cutover leaves it
        await given.store.delete(CALLER, shop.SESSION, epoch=None, purge=purge)


async def test_the_fence_of_an_earlier_release_is_one_too(scene: Scene) -> None:
    """It wrote no version of its own when it handed over; a lease of years is all there is."""
    await run_copy(scene.store, scene.source_url)
    await scene.store.lease(CALLER, shop.SESSION, "rollback to legacy-postgres", 3e8, takeover=False, epoch=None)
    async with busy(scene):
        with pytest.raises(SourceError):
            await cut_over(scene, WAITS)
    assert await closed(scene)


async def test_a_lease_that_only_calls_itself_so_is_none(scene: Scene) -> None:
    await run_copy(scene.store, scene.source_url)
    await scene.store.lease(CALLER, shop.SESSION, "rollback to legacy-postgres", 3600, takeover=False, epoch=None)
    async with busy(scene):
        with pytest.raises(SourceError):
            await cut_over(scene, WAITS)
    await client_opens(scene)


async def test_of_two_who_take_a_fence_over_the_later_has_it(given: Scene) -> None:
    async with holding(given.store, CALLER, shop.SESSION, "one", takeover=True) as one:
        async with holding(given.store, CALLER, shop.SESSION, "other", takeover=True) as other:
            with pytest.raises(Fenced):
                await one.renew()
            await other.renew()
        assert await closed(given)
    assert await closed(given)


async def test_a_cutover_that_lost_its_lease_does_not_say_that_it_opened(
    given: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(line: str) -> None:
        await client_opens(given, takeover=True)

    losing: list[asyncio.Task[None]] = []

    def say(line: str) -> None:
        losing.append(asyncio.create_task(lost(line)))

    async with await open_source(given.source_url) as source:
        run = await Run.begin(given.store, CALLER, "cutover", called(source), {})
        origin = Origin(given.source_url, shop.SESSION, Options())
        chosen = Cutover(still_s=1, watch_s=0, told=TAKES_OVER)
        report = await cutover(run, source, origin, chosen, Folder(None), say)
    await asyncio.gather(*losing)
    assert (report.sessions[0].outcome, report.verdict) == ("refused", "failed")
    assert "taken over" in report.sessions[0].says


async def test_a_session_handed_over_while_its_lease_is_being_taken_stays_closed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    real = AuthStore.lease
    between = True

    async def lease(store: AuthStore, *args: Any, **more: Any) -> Any:
        nonlocal between
        if between:
            between = False
            assert (await roll_back(scene)).sessions[0].outcome == "rolled-back"
        return await real(store, *args, **more)

    monkeypatch.setattr(AuthStore, "lease", lease)
    async with holding(scene.store, CALLER, shop.SESSION, "a cutover", takeover=True):
        assert not between
    assert await closed(scene)


# -- a rollback once more ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_rollback_once_more_sets_nothing_back_and_leaves_it_closed(given: Scene, overwrite: bool) -> None:
    epoch = (await given.store.show(CALLER, shop.SESSION)).epoch
    again = await roll_back_to(given, overwrite=overwrite)
    assert (again.outcome, again.verdict) == (("refused", "failed") if overwrite else ("given-back", "good"))
    assert "nothing here is newer" in again.says
    assert await there(given) == {"n": 99}
    assert await closed(given)
    assert (await given.store.show(CALLER, shop.SESSION)).epoch == epoch


async def test_the_command_line_says_so_without_the_source(given: Scene, tmp_path: Path) -> None:
    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        return authstore(given.target_url, "migrate", "rollback", "--session", shop.SESSION, *more, cwd=tmp_path)

    again = await asyncio.to_thread(run, "--format", "json")
    assert again.returncode == 0, again.stderr
    (each,) = json.loads(again.stdout)["sessions"]
    assert each["outcome"] == "given-back"
    assert "given back at 20" in each["says"]
    assert (await asyncio.to_thread(run, "--overwrite")).returncode == 1
    newest, *_ = await list_runs(given.store, CALLER)
    assert newest["outcome"] == "failed"
    assert newest["ended_at"] is not None
    assert await closed(given)
    await given.store.release(CALLER, shop.SESSION, (await given.store.show(CALLER, shop.SESSION)).epoch)
    opened = await asyncio.to_thread(run, "--format", "json")
    assert (opened.returncode, "--from closes it again" in opened.stdout) == (1, True)


async def test_a_rollback_once_more_closes_what_was_opened(given: Scene) -> None:
    await client_opens(given, takeover=True)
    assert (await roll_back_to(given)).outcome == "given-back"
    assert await closed(given)
    assert await there(given) == {"n": 99}


@pytest.mark.parametrize("under", ["its own lease", "the fence's epoch"])
async def test_what_was_committed_here_since_is_newer(given: Scene, under: str) -> None:
    if under == "its own lease":
        await write_here(given, 4, await client_opens(given, takeover=True))
    else:
        await write_here(given, 4, (await given.store.show(CALLER, shop.SESSION)).epoch)
    refused = await roll_back_to(given)
    assert "written by others" in refused.says
    assert (await roll_back_to(given, overwrite=True)).outcome == "rolled-back"
    assert await there(given) == counted(4)
    assert await closed(given)


async def test_what_the_old_store_lost_is_written_once_more_if_told(given: Scene) -> None:
    await given.source.execute(LOSE)
    refused = await roll_back_to(given)
    assert (refused.outcome, refused.verdict) == ("refused", "failed")
    assert "does not have the session" in refused.says
    assert await closed(given)
    assert (await roll_back_to(given, overwrite=True)).outcome == "rolled-back"
    assert await there(given) == counted(1)
    assert await closed(given)


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_rollback_that_dies_behind_the_hand_over_has_handed_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    class Dead(BaseException):
        pass

    async def dies(*_: Any) -> None:
        raise Dead

    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    await write_here(scene, 1)
    with monkeypatch.context() as patched:
        patched.setattr(Run, "note", dies)
        with pytest.raises(Dead):
            await roll_back(scene)
    assert await closed(scene)
    assert await scene.store.mirrors.origin(CALLER, shop.SESSION) is None
    await scene.source.execute(OLD_LIVES)
    assert (await roll_back_to(scene)).outcome == "given-back"
    assert (await roll_back_to(scene, overwrite=True)).outcome == "refused"
    assert await there(scene) == {"n": 99}


@pytest.mark.parametrize("done", [True, False])
async def test_a_hand_over_of_which_nobody_heard_can_be_repeated(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    real = Mirrors.hand_over

    async def unheard_of(*args: Any, **more: Any) -> int | None:
        if done:
            await real(*args, **more)
        raise Unavailable

    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    await write_here(scene, 1)
    with monkeypatch.context() as patched:
        patched.setattr(Mirrors, "hand_over", unheard_of)
        with pytest.raises(Unavailable):
            await roll_back(scene)
    assert await closed(scene) is done
    assert (await scene.store.show(CALLER, shop.SESSION)).lease is not None
    again = await roll_back_to(scene) if done else (await roll_back(scene)).sessions[0]
    assert again.outcome == ("given-back" if done else "rolled-back")
    assert await closed(scene)


# -- nobody's lease is ended for nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_rollback_to_a_source_that_lost_the_session_writes_it_whole_if_told(scene: Scene, mirror: bool) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    await write_here(scene, 3)
    epoch = await client_opens(scene)
    await scene.source.execute(LOSE)
    refused = (await roll_back(scene)).sessions[0]
    assert (refused.outcome, refused.verdict) == ("refused", "failed")
    assert "--overwrite" in refused.says
    newest, *_ = await list_runs(scene.store, CALLER)
    assert (newest["verb"], newest["outcome"], newest["sessions"]) == ("rollback", "failed", 1)
    await write_here(scene, 4, epoch)  # the client's lease lives
    report = (await roll_back(scene, Rollback(overwrite=True))).sessions[0]
    assert report.outcome == "rolled-back", report.says
    assert await there(scene) == counted(4)
    assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]
    assert await closed(scene)


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_refused_rollback_ends_nobodys_lease(scene: Scene, mirror: bool) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    epoch = await client_opens(scene)
    await write_here(scene, 3, epoch)
    await scene.source.execute(
        "UPDATE whatsapp_keys SET value = '\"1\"' WHERE key_type = 'lid-mapping' AND key_id = '15550200100'"
    )
    assert (await roll_back(scene)).sessions[0].outcome == "refused"
    await write_here(scene, 4, epoch)
    await scene.source.execute("ALTER TABLE whatsapp_keys RENAME TO away")
    with pytest.raises(SourceError):
        await roll_back(scene)
    await write_here(scene, 5, epoch)


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_wrong_from_ends_nobodys_lease(scene: Scene, tmp_path: Path, mirror: bool) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    epoch = await client_opens(scene)
    (tmp_path / "empty").mkdir()
    for wrong in ("files:empty", "files:nowhere", "postgres://127.0.0.1:1/none"):
        done = await asyncio.to_thread(
            authstore, scene.target_url, "migrate", "rollback", "--session", shop.SESSION, "--from", wrong, cwd=tmp_path
        )
        assert done.returncode in (1, 2), done.stdout
        await write_here(scene, 3, epoch)


def test_a_client_cannot_ask_for_a_fence() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"holder": "a client", "ttl_s": 86400}, LeaseBody)
