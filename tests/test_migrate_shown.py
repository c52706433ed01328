"""What a terminal shows of a run: what was repaired, what is set aside and why, what the rules find; no id of a key."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from migrating import CALLER, EXPECTED, Scene, authstore, shop, shop_scene
from test_migrate_live import cut_over, write_here

from protocol.repairs import Repair
from service.migrate.cutover import Cutover
from service.migrate.origin import Origin
from service.migrate.plan import Options, Why
from service.migrate.report import SessionReport
from service.migrate.summary import _REPAIRS, _WHY, summaries, summary


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


async def migrate(scene: Scene, cwd: Path, *args: str) -> Any:
    return await asyncio.to_thread(authstore, scene.target_url, "migrate", *args, cwd=cwd)


async def broken(scene: Scene) -> None:
    """A pre-key whose pair is none, as the rules see it."""
    await scene.source.execute("""
        UPDATE whatsapp_keys SET value = jsonb_set(value, '{public}', value -> 'private')
        WHERE key_type = 'pre-key' AND key_id = (
            SELECT min(key_id) FROM whatsapp_keys WHERE key_type = 'pre-key' AND value ? 'private' AND value ? 'public')
    """)


async def test_a_plan_names_repairs_and_what_it_sets_aside_and_why(scene: Scene, tmp_path: Path) -> None:
    await broken(scene)
    done = await migrate(scene, tmp_path, "plan", "--from", scene.source_url)
    assert done.returncode == 3, done.stderr
    said = done.stdout
    for kind, count in EXPECTED["repairs"].items():
        assert f"repair {kind}: {count} (" in said
    for why, count in EXPECTED["quarantined"].items():
        assert f"set aside, {why}: {count} (" in said
        assert _WHY[Why(why)] in said
    assert "integrity error pre-key" in said
    assert "would be copied" in said
    assert "--report" in said
    assert "--format json" in said
    assert "15550" not in said
    plan = await migrate(scene, tmp_path, "plan", "--from", scene.source_url, "--format", "json")
    (session,) = json.loads(plan.stdout)["sessions"]
    assert {kind: sum(types.values()) for kind, types in session["repaired"].items()} == EXPECTED["repairs"]
    assert session["repaired"]["types"].keys() <= EXPECTED["keys"].keys()


async def test_a_run_of_the_past_is_shown_as_lines_and_with_its_integrity(scene: Scene, tmp_path: Path) -> None:
    await broken(scene)
    await migrate(scene, tmp_path, "copy", "--from", scene.source_url)
    await migrate(scene, tmp_path, "verify", "--from", scene.source_url)
    listed = await migrate(scene, tmp_path, "list", "--format", "json")
    verified = await migrate(scene, tmp_path, "show", json.loads(listed.stdout)[0]["id"])
    assert "{" not in verified.stdout
    head, row, *lines = verified.stdout.splitlines()
    assert row[head.index("integrity") :].split()[0].isdigit()
    assert row[head.index("keys") :].split()[0] == str(sum(EXPECTED["keys"].values()))
    assert any("integrity error pre-key" in line for line in lines)
    assert any("set aside, unknown-type" in line for line in lines)
    assert "15550" not in verified.stdout
    assert shop.SESSION in row
    copied = await migrate(scene, tmp_path, "show", json.loads(listed.stdout)[1]["id"])
    head, row, *_ = copied.stdout.splitlines()
    assert row[head.index("integrity") :].split()[0] == "-"


def test_every_reason_and_repair_has_a_sentence() -> None:
    assert set(_WHY) == set(Why)
    assert set(_REPAIRS) == set(Repair)


def test_a_type_that_may_be_an_id_is_not_shown_nor_does_a_name_write_lines() -> None:
    plain = {
        "session": "one\nverified: good",
        "repairs": {},
        "quarantined": {"unknown-type": 2},
        "quarantine": [{"why": "unknown-type", "type": each} for each in ("15550100002", "lid")],
        "facts": {"fingerprint": "abc", "here": "absent"},
    }
    lines = summaries([plain], more="more")
    assert lines[0] == "one\\nverified: good:"
    assert "2 (other 1, lid 1)" in lines[1]
    assert lines[2:] == ["  here absent", "more"]


def test_many_sessions_and_many_types_are_bounded() -> None:
    each = {
        "session": "one",
        "repairs": {},
        "quarantined": {"foreign": 40},
        "quarantine": [{"why": "foreign", "type": "a" * n} for n in range(1, 40)],
        "facts": {},
    }
    (line,) = summary(each)
    assert "27 types more" in line
    lines = summaries([each] * 50, more="more")
    assert len(lines) == 42
    assert lines[-2:] == ["and 30 more sessions", "more"]
    assert summaries([], more="more") == []


def test_what_has_nothing_to_tell_is_left_out() -> None:
    assert SessionReport("one", "one").row()["says"] == ""
    assert summary({"session": "one", "repairs": {}, "quarantined": {}, "facts": {}}) == []


async def test_each_mirror_is_listed_and_how_far_it_is_behind(scene: Scene, tmp_path: Path) -> None:
    none = await migrate(scene, tmp_path, "mirror")
    assert (none.returncode, none.stdout.strip()) == (0, "no mirror is on")
    moved = await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    assert moved.sessions[0].outcome == "cut-over"
    quiet = await migrate(scene, tmp_path, "mirror")
    assert quiet.returncode == 0
    assert "up to date" in quiet.stdout
    assert shop.SESSION in quiet.stdout
    assert "postgresql://" in quiet.stdout
    await write_here(scene, 1)
    behind = await migrate(scene, tmp_path, "mirror")
    assert behind.returncode == 3
    assert "1 commit waits since 20" in behind.stdout
    away = Origin("postgresql://shop:secret@127.0.0.1:1/nothing?password=secret", shop.SESSION, Options())
    await scene.store.mirrors.keep_origin(CALLER, shop.SESSION, away.encode())
    kept = await migrate(scene, tmp_path, "mirror", "--format", "json")
    (state,) = json.loads(kept.stdout)
    assert state["source"] == "postgresql://127.0.0.1:1/nothing"
    assert "cannot be reached" in state["state"]
    assert "secret" not in kept.stdout + kept.stderr


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("postgres://u:p@h:5/db?password=p", "postgres://h:5/db"),
        ("redis://:p@h", "redis://h"),
        ("mysql://u:p/p@h/db", "mysql"),
        ("mysql://u:p@h:x/db", "mysql"),
        ("files:/srv/auth", "files:/srv/auth"),
    ],
)
def test_a_source_is_shown_without_its_password(spec: str, shown: str) -> None:
    assert Origin(spec, "one", Options()).shown == shown
