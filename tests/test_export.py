"""`authstore export` and `authstore import`: lines and folders, out of a real service, into Baileys, and back in."""

import asyncio
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import states
from command_line import Cli
from migrating import CALLER, authstore, open_store
from multi_file import get_folder, put_folder
from service_process import ServiceProcess

from protocol.digest import digest
from protocol.file_names import file_name
from service.migrate.export import Exported, export_lines
from service.migrate.sources import open_source
from service.store.request import CommitRequest, Row

RELEASES = {"6": "6.7.24", "7": "7.0.0-rc14"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("export") / "data") as running:
        for release, version in RELEASES.items():
            state = states.load(version)
            running.call("PUT", f"/v1/sessions/real-{release}/state", {"creds": state["creds"], "keys": state["keys"]})
        yield running


@pytest.fixture(scope="module")
def cli(service: ServiceProcess) -> Cli:
    return Cli(service.data_dir, AUTHSTORE_PORT=str(service.port))


def same_state(read: Any, state: dict[str, Any]) -> None:
    assert digest("", states.text(read["creds"])) == digest("", states.creds_text(state))
    for ktype, ids in state["keys"].items():
        for key_id, value in ids.items():
            assert digest(ktype, states.text(read["keys"][ktype][key_id])) == digest(ktype, states.text(value)), ktype


@pytest.mark.parametrize(("release", "version"), RELEASES.items())
def test_a_folder_is_what_baileys_itself_would_have_written(
    cli: Cli, tmp_path: Path, release: str, version: str
) -> None:
    state = states.load(version)
    done = cli("export", f"real-{release}", "--as", "files", "--output", str(tmp_path / "ours"))
    assert done.code == 0, done.err
    asyncio.run(put_folder(release, tmp_path / "theirs", state))
    ours, theirs = ({p.name: p.read_text() for p in (tmp_path / name).iterdir()} for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(json.loads(ours[name]) == json.loads(theirs[name]) for name in theirs)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ours").iterdir()} == {0o600}
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o700
    same_state(asyncio.run(get_folder(release, tmp_path / "ours", state)), state)


def test_lines_bring_everything_back_byte_for_byte(service: ServiceProcess, cli: Cli, tmp_path: Path) -> None:
    odd = {"test-type": {"ü/1": {"b": 1e21}, "x": "\ud83d", "y": 0, "z": False}, "lid-mapping": {"1": "2"}}
    service.call("PUT", "/v1/sessions/odd/state", {"creds": states.load("6.7.24")["creds"], "keys": odd})
    out = tmp_path / "all.ndjson"
    assert cli("export", "--all", "--output", str(out)).code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    taken = cli("import", str(out), "--tenant", "other", "--format", "json")
    assert taken.code == 0, taken.err
    assert {each["session"] for each in taken.json["sessions"]} >= {"odd", "real-6", "real-7"}
    again = cli("export", "--all", "--tenant", "other")
    assert again.code == 0
    values = {line for line in out.read_text().splitlines() if not line.startswith('{"session":')}
    assert {line for line in again.out.splitlines() if not line.startswith('{"session":')} == values
    verified = cli(
        "migrate", "verify", "--from", f"ndjson:{out}", "--tenant", "other", "--keep-unknown", "--format", "json"
    )
    assert [each["outcome"] for each in verified.json["sessions"]] == ["equal"] * 3
    assert cli("import", str(out), "--tenant", "other").code == 0  # again: nothing to write
    left = cli("import", str(out), "--tenant", "third", "--quarantine-unknown", "--report", str(tmp_path / "report"))
    assert left.code == 3
    assert len((tmp_path / "report" / "quarantine.ndjson").read_text().splitlines()) == len(odd["test-type"])


def test_lines_bring_back_what_baileys_could_not_read(service: ServiceProcess, cli: Cli, tmp_path: Path) -> None:
    url_safe = {"type": "Buffer", "data": "AQID-_8"}
    kept = {
        "vb-creds": {"creds": states.load("6.7.24")["creds"] | {"additionalData": {"x": url_safe}}, "keys": {}},
        "vb-keys": {
            "creds": states.load("6.7.24")["creds"],
            "keys": {"tctoken": {"1@lid": {"token": url_safe}}, "sender-key": {"g::1::0": 7}, "session": {"x": False}},
        },
        "vb-no-creds": {"creds": None, "keys": {"test-type": {"1": 1}}},
    }
    for name, state in kept.items():
        service.call("PUT", f"/v1/sessions/{name}/state", state)
    service.call("POST", "/v1/sessions/vb-empty/lease", {"holder": "nobody", "ttl_s": 5})
    out = tmp_path / "lines.ndjson"
    assert cli("export", *kept, "vb-empty", "--output", str(out)).code == 0
    taken = cli("import", str(out), "--tenant", "verbatim", "--format", "json")
    assert (taken.code, taken.err) == (0, ""), taken.out
    again = cli("export", "--all", "--tenant", "verbatim")
    values = {line for line in out.read_text().splitlines() if not line.startswith('{"session":')}
    assert {line for line in again.out.splitlines() if not line.startswith('{"session":')} == values
    assert cli("import", str(out), "--tenant", "verbatim").code == 0  # again: nothing to write
    # From anywhere else such a value stays out, and a session without creds too.
    assert (
        cli("migrate", "copy", "--from", f"ndjson:{out}", "--tenant", "strict", "--report", str(tmp_path / "r")).code
        == 1
    )


def test_of_a_session_that_is_not_there_nothing_is_written(cli: Cli) -> None:
    done = cli("export", "real-6", "nobody")
    assert (done.code, done.out) == (1, "")
    assert "no such session" in done.err


def test_a_folder_of_baileys_is_taken_in(service: ServiceProcess, cli: Cli, tmp_path: Path) -> None:
    state = states.load("7.0.0-rc14")
    asyncio.run(put_folder("7", tmp_path / "from-files", state))
    assert cli("import", str(tmp_path / "from-files")).code == 0
    same_state(service.call("GET", "/v1/sessions/from-files/state"), state)


def test_several_sessions_are_folders_in_a_folder(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "both"
    assert cli("export", "real-6", "real-7", "--as", "files", "--output", str(out)).code == 0
    assert sorted(os.listdir(out)) == ["real-6", "real-7"]
    assert cli("import", str(out), "--tenant", "folders").code == 0
    assert cli("migrate", "verify", "--from", f"files:{out}", "--tenant", "folders").code == 0


def test_one_session_as_files_comes_back_under_its_name(service: ServiceProcess, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "exf"
    done = cli("export", "real-7", "--as", "files", "--output", str(out))
    assert (done.code, "--session real-7" in done.err) == (0, True)
    assert cli("import", f"files:{out}", "--session", "real-7", "--tenant", "named").code == 0
    listed = cli.good("sessions", "list", "--tenant", "named", "--format", "json").json
    assert [each["session"] if "session" in each else each["name"] for each in listed] == ["real-7"]
    for verb in ("plan", "copy", "verify"):
        args = ["--from", str(out), "--session", "real-7", "--tenant", "named"]
        assert cli("migrate", verb, *args).code == 0
    moved = ["--from", str(out), "--session", "real-7", "--tenant", "named", "--old-writer-stopped", "--watch", "0"]
    assert cli("migrate", "cutover", *moved).code == 0
    back = cli("migrate", "rollback", "--session", "real-7", "--tenant", "named")
    assert back.code == 0, back.out
    assert cli("import", str(tmp_path / "nothing")).code == 2
    assert cli("import", f"files:{tmp_path / 'nothing'}").code == 2


def test_lines_are_taken_with_and_without_their_kind(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "lines"
    assert cli("export", "real-7", "--output", str(out)).code == 0
    assert cli("import", f"ndjson:{out}", "--tenant", "lines").code == 0
    assert cli("migrate", "verify", "--from", str(out), "--tenant", "lines", "--keep-unknown").code == 0


def test_a_folder_given_back_to_a_source_that_is_told_is_the_folder(
    service: ServiceProcess, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "exf"
    assert cli("export", "real-7", "--as", "files", "--output", str(out)).code == 0
    assert cli("import", str(out), "--session", "again", "--tenant", "told").code == 0
    done = cli("migrate", "rollback", "--session", "again", "--from", str(out), "--tenant", "told", "--format", "json")
    assert done.code == 0, done.out
    assert sorted(os.listdir(tmp_path)) == ["exf"]


def test_torn_creds_keep_their_session_out_and_no_other(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "both"
    assert cli("export", "real-6", "real-7", "--as", "files", "--output", str(out)).code == 0
    creds = out / "real-6" / "creds.json"
    creds.write_bytes(creds.read_bytes()[:-40])
    done = cli("import", str(out), "--tenant", "torn", "--format", "json", "--report", str(tmp_path / "report"))
    assert done.code == 1
    outcomes = {each["session"]: each["outcome"] for each in done.json["sessions"]}
    assert outcomes == {"real-6": "blocked", "real-7": "copied"}
    listed = json.loads(cli.good("sessions", "list", "--tenant", "torn", "--format", "json").out)
    assert [each["session"] if "session" in each else each["name"] for each in listed] == ["real-7"]


def test_what_a_disk_cannot_tell_apart_is_refused_and_nothing_is_left(
    service: ServiceProcess, cli: Cli, tmp_path: Path
) -> None:
    creds = states.load("6.7.24")["creds"]
    keys = {"own": {"a/b": 1, "a__b": 2}}
    service.call("PUT", "/v1/sessions/clash/state", {"creds": creds, "keys": keys})
    service.call("PUT", "/v1/sessions/long/state", {"creds": creds, "keys": {"own": {"x" * 300: 1}}})
    for name in ("clash", "long"):
        done = cli("export", name, "--as", "files", "--output", str(tmp_path / name))
        assert done.code == 2
        assert "as lines" in done.err
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for form in ("files", "ndjson"):
        assert cli("export", "real-6", "--as", form, "--output", str(there)).code == 2
        assert cli("export", "real-6", "--as", form, "--output", str(tmp_path / "no" / "folder")).code == 2
    assert list(tmp_path.rglob("*")) == [there]
    assert cli("export", "absent", "--output", str(tmp_path / "x")).code == 1
    assert list(tmp_path.rglob("*")) == [there]
    cut = tmp_path / "cut.ndjson"
    cut.write_text(cli("export", "real-6").out[:-200])
    assert cli("import", str(cut), "--tenant", "cut").code == 1
    assert cli.good("sessions", "list", "--tenant", "cut", "--format", "json").json == []


@pytest.mark.parametrize(
    "args", [[], ["real-6", "--all"], ["--diagnose"], ["real-6", "real-7", "--diagnose"], ["real-6", "--as", "files"]]
)
def test_usage(cli: Cli, args: list[str]) -> None:
    assert cli("export", *args).code == 2


def test_a_file_in_the_folder_has_the_name_that_is_told(cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "real-7", "--as", "files", "--output", str(tmp_path / "x")).code == 0
    names = set(os.listdir(tmp_path / "x")) - {"creds.json"}
    state = states.load("7.0.0-rc14")
    assert names == {file_name(ktype, key_id) for ktype, ids in state["keys"].items() for key_id in ids}


@pytest.mark.parametrize("form", ["ndjson", "files"])
async def test_a_damaged_session_keeps_no_other_from_being_saved(database_url: str, tmp_path: Path, form: str) -> None:
    async with open_store(database_url) as store:
        for name in ("one", "torn", "two"):
            rows = [Row("lid-mapping", str(n).encode(), b'"2"') for n in range(5)]
            await store.commit(CALLER, name, CommitRequest(creds=b'{"me":{}}', rows=rows))
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE session_keys SET sealed = substr(sealed, 1, length(sealed) - 1) || '\\x00'::bytea WHERE kh = (SELECT max(kh)"
        " FROM session_keys WHERE sid = (SELECT sid FROM sessions WHERE name = 'torn'))"
    )
    await connection.close()
    made = tmp_path / "made"

    def run(*args: str) -> Any:
        return authstore(database_url, "export", *args, "--as", form, "--output", str(made), cwd=tmp_path)

    named = await asyncio.to_thread(run, "one", "torn")
    assert (named.returncode, made.exists()) == (1, False)
    done = await asyncio.to_thread(run, "--all")
    assert done.returncode == 3, done.stderr
    assert "torn was left out" in done.stderr
    assert "2 sessions, 10 keys" in done.stderr
    async with await open_source(f"{form}:{made}") as source, source.snapshot() as snapshot:
        assert [name async for name in snapshot.sessions()] == ["one", "two"]
        assert len((await snapshot.read("two")).rows) == 5


async def test_a_session_that_is_deleted_meanwhile_is_passed_over(database_url: str) -> None:
    async with open_store(database_url) as store:
        await store.commit(CALLER, "one", CommitRequest(creds=b'{"me":{}}'))
        out = io.BytesIO()
        done = await export_lines(store, CALLER, ["gone", "one"], out, Exported(all_or_none=False))
        assert (done.sessions, done.failed) == (1, {})
        assert b'"sessions":1' in out.getvalue()
