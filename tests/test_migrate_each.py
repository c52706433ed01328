"""What is wrong with one session, or with a run's files, is said in a sentence; the other sessions go on. By exit codes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from migrating import CALLER, Scene, Told, authstore, empty_scene, open_store, quiet, run_copy, run_verify, shop

from service.migrate.copy import copy
from service.migrate.plan import Options
from service.migrate.reading import reading
from service.migrate.report import Folder
from service.migrate.runs import Run, called, list_runs
from service.migrate.sources.files import FilesSource
from service.migrate.target import read_target

NAMES = ["one", "two", "three"]


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Three sessions of creds and a row."""
    async with empty_scene(database_url) as scene:
        for name in NAMES:
            await scene.source.execute(
                "INSERT INTO whatsapp_auth (company_id, creds) VALUES ($1, $2::text::jsonb)",
                name, shop.creds(shop.state()),
            )  # fmt: skip
            await _put(scene.source, name, "lid-mapping", "15550200000")
        yield scene


async def _put(source: Any, session: str, ktype: str, key_id: str) -> None:
    await source.execute(
        "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value) VALUES ($1, $2, $3, $4::text::jsonb)",
        session, ktype, key_id, json.dumps("100000000000001"),
    )  # fmt: skip


async def migrate(scene: Scene, tmp_path: Path, *args: str) -> Any:
    done = await asyncio.to_thread(authstore, scene.target_url, "migrate", *args, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def outcomes(done: Any) -> dict[str, str]:
    return {each["session"]: each["outcome"] for each in json.loads(done.stdout)["sessions"]}


@pytest.mark.parametrize("verb", ["plan", "copy", "verify"])
async def test_a_source_without_sessions_is_no_success(scene: Scene, tmp_path: Path, verb: str) -> None:
    await run_copy(scene.store, scene.source_url)
    await scene.source.execute("DELETE FROM whatsapp_keys")
    await scene.source.execute("DELETE FROM whatsapp_auth")
    done = await migrate(scene, tmp_path, verb, "--from", scene.source_url)
    assert done.returncode == 1
    assert "the source holds no session" in done.stdout
    named = await migrate(scene, tmp_path, verb, "--from", scene.source_url, "--session", "one")
    assert named.returncode == 2
    assert "the source has no session" in named.stderr


async def test_a_corrupt_session_here_fails_alone(scene: Scene, tmp_path: Path) -> None:
    await run_copy(scene.store, scene.source_url, only=["one"])
    connection = await asyncpg.connect(scene.target_url)
    await connection.execute("UPDATE session_keys SET sealed = set_byte(sealed, 40, (get_byte(sealed, 40) + 1) % 256)")
    await connection.close()
    await scene.source.execute("UPDATE whatsapp_keys SET value = '\"1\"'")
    for args in ([], ["--overwrite"]):
        done = await migrate(scene, tmp_path, "copy", "--from", scene.source_url, "--format", "json", *args)
        assert done.returncode == 1
        found = outcomes(done)
        assert found.pop("one") == "refused"
        assert set(found.values()) <= {"copied", "same"}
        assert "cannot be read" in done.stdout
    assert await read_target(scene.store, CALLER, "three") is not None
    planned = await migrate(scene, tmp_path, "plan", "--from", scene.source_url, "--format", "json")
    assert (planned.returncode, outcomes(planned)["one"]) == (3, "refused")


@pytest.mark.parametrize("verb", [run_copy, run_verify])
async def test_a_session_here_whose_data_key_is_damaged_fails_alone(scene: Scene, verb: Any) -> None:
    await run_copy(scene.store, scene.source_url, only=["one"])
    connection = await asyncpg.connect(scene.target_url)
    await connection.execute(
        "UPDATE sessions SET wrapped_key = set_byte(wrapped_key, 20, (get_byte(wrapped_key, 20) + 1) % 256)"
    )
    await connection.close()
    async with open_store(scene.target_url) as store:
        report = await verb(store, scene.source_url)
    found = {each.session: each.outcome for each in report.sessions}
    assert found.pop("one") == ("refused" if verb is run_copy else "unreadable")
    assert set(found.values()) == {"copied" if verb is run_copy else "absent"}
    assert (report.verdict, set(found)) == ("failed", {"two", "three"})
    (kept, *_) = [run for run in await list_runs(scene.store, CALLER) if str(run["id"]) == report.run]
    assert (kept["outcome"], kept["sessions"]) == ("failed", 3)


async def test_a_session_that_its_source_cannot_read_fails_alone(scene: Scene) -> None:
    await scene.source.execute("""
        ALTER TABLE whatsapp_keys RENAME TO kept;
        CREATE FUNCTION damaged(text) RETURNS jsonb STABLE LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'missing chunk number 0 for toast value' USING ERRCODE = 'data_corrupted'; END $$;
        CREATE VIEW whatsapp_keys AS SELECT company_id, key_type, key_id, expires_at,
            CASE WHEN company_id = 'one' THEN damaged(key_id) ELSE value END AS value FROM kept
    """)
    report = await run_copy(scene.store, scene.source_url)
    assert {each.session: each.outcome for each in report.sessions} == {
        "one": "blocked",
        "two": "copied",
        "three": "copied",
    }
    assert "XX001" in next(each.says for each in report.sessions if each.session == "one")
    assert "toast" not in str(report)


class Busy(FilesSource):
    """Folders, one of which is written by somebody every time we look."""

    looks = 0

    async def fingerprint(self, session: str) -> str:
        if session == "one":
            self.looks += 1
            (self.folder(session) / "session-1.0.json").write_text(json.dumps({"n": "x" * self.looks}))
        return await super().fingerprint(session)


async def test_a_session_that_is_being_written_fails_alone(database_url: str, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "creds.json").write_text(json.dumps(shop.state()["creds"]))
    async with (
        open_store(database_url) as store,
        Busy(tmp_path, alone=False) as source,
        reading(source, Options()) as read,
    ):
        run = await Run.begin(store, CALLER, "copy", called(source), {})
        report = await copy(run, read, Told(), Folder(None), quiet)
        assert {each.session: each.outcome for each in report.sessions} == {
            "one": "blocked",
            "two": "copied",
            "three": "copied",
        }
        assert report.verdict == "failed"
        assert "stop its writer" in next(each.says for each in report.sessions if each.session == "one")
        assert await read_target(store, CALLER, "one") is None


@pytest.mark.parametrize(
    ("names", "outcome"), [('"one" = "two"\n"two" = "one"', "cut-over"), ('"one" = "two"', "blocked")]
)
async def test_a_cutover_by_a_name_that_is_here_and_there(
    scene: Scene, tmp_path: Path, names: str, outcome: str
) -> None:
    (tmp_path / "map.toml").write_text(f"[sessions]\n{names}\n")
    await _put(scene.source, "one", "lid-mapping", "15550200001")
    args = "--map", "map.toml", "--session", "two", "--old-writer-stopped", "--watch", "0", "--format", "json"
    done = await migrate(scene, tmp_path, "cutover", "--from", scene.source_url, *args)
    (each,) = json.loads(done.stdout)["sessions"]
    assert (each["outcome"], each["session"], each["source_name"]) == (outcome, "two", "one")
    assert "one at the source becomes two here" in done.stderr
    target = await read_target(scene.store, CALLER, "two")
    assert (target is not None) is (outcome == "cut-over")
    assert target is None or ("lid-mapping", "15550200001") in target.texts


async def test_a_report_that_cannot_be_written_is_said_and_the_run_is_shown(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    await _put(scene.source, "one", "test-type", "1")  # for the quarantine, which is a file of the report
    args = "--from", scene.source_url, "--report", "taken", "--format", "json"
    done = await migrate(scene, tmp_path, "copy", *args)
    assert done.returncode == 1
    assert outcomes(done) == {"one": "refused", "two": "copied", "three": "copied"}
    assert "report.json cannot be written" in done.stderr
    assert "quarantine.ndjson cannot be written" in done.stdout
    await scene.source.execute("DELETE FROM whatsapp_keys WHERE key_type = 'test-type'")
    verified = await migrate(scene, tmp_path, "verify", *args)
    assert verified.returncode == 1
    assert outcomes(verified)["two"] == "equal"
    assert os.listdir(tmp_path) == ["taken"]


async def test_the_table_says_where_the_rules_were_not_asked(scene: Scene, tmp_path: Path) -> None:
    def column(done: Any) -> list[str]:
        head, *rows = done.stdout.splitlines()[:4]
        return [row[head.index("integrity") :].split()[0] for row in rows]

    assert column(await migrate(scene, tmp_path, "copy", "--from", scene.source_url)) == ["-"] * 3
    assert all(each.isdigit() for each in column(await migrate(scene, tmp_path, "verify", "--from", scene.source_url)))


@pytest.mark.parametrize("verb", ["plan", "copy", "verify", "cutover", "rollback", "mirror", "import"])
def test_the_help_says_what_each_exit_code_means(verb: str, tmp_path: Path) -> None:
    command = [verb] if verb == "import" else ["migrate", verb]
    said = " ".join(authstore("", *command, "--help", cwd=tmp_path).stdout.split())
    for code in ("Exit 0:", "1:", "2:", "3"):
        assert code in said


@pytest.mark.parametrize("verb", ["rollback", "mirror", "list", "show"])
def test_the_help_says_of_sessions_that_are_here_whose_they_are(verb: str, tmp_path: Path) -> None:
    said = authstore("", "migrate", verb, "--help", cwd=tmp_path).stdout
    assert "Whose sessions they are" in said
    assert "become" not in said


def test_the_help_tells_the_way_of_one_folder_in_a_line_a_word(tmp_path: Path) -> None:
    said = authstore("", "migrate", "copy", "--help", cwd=tmp_path).stdout
    assert "copy --from auth --session NAME" in " ".join(said.split())
    assert "[bytes" not in said
    assert "REPAIR" in said
