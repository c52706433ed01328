"""`authstore check` and `authstore export --diagnose`, as processes beside a running service."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import states
from api import sid_of
from mutations import own_name, raw
from needles import forms
from service_process import ServiceProcess
from test_cli import Cli

from service.embedded import attach


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("check") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def cli(service: ServiceProcess) -> Cli:
    return Cli(service.data_dir, AUTHSTORE_PORT=str(service.port))


def put(service: ServiceProcess, name: str, state: dict[str, Any]) -> None:
    service.call("PUT", f"/v1/sessions/{name}/state", {"creds": state["creds"], "keys": state["keys"]})


def broken() -> dict[str, Any]:
    state = states.load("7.0.0-rc14")
    del state["keys"]["sender-key"][own_name(state)]
    return state


def test_a_whole_session_is_good(service: ServiceProcess, cli: Cli) -> None:
    put(service, "good", states.load("6.7.24"))
    assert cli.good("check", "good").out == "good: version 1, 41 rows, 0 errors, 0 warnings\n"


def test_findings_are_exit_3_as_table_and_as_json(service: ServiceProcess, cli: Cli) -> None:
    put(service, "bad", broken())
    table = cli("check", "bad")
    assert table.code == 3
    assert "sender-key-memory-stale" in table.out
    assert "Messages to this group will not decrypt" in table.out
    as_json = cli("check", "bad", "--format", "json")
    assert as_json.code == 3
    assert [each["rule"] for each in as_json.json["findings"]] == ["sender-key-memory-stale"]
    assert as_json.json["errors"] == 1


def test_fix_shows_asks_mends_and_can_be_undone(service: ServiceProcess, cli: Cli) -> None:
    put(service, "mend", broken())
    refused = cli("check", "mend", "--fix")  # nobody answers
    assert refused.code == 1
    assert "deletes the sender-key-memory row" in refused.err
    assert cli("check", "mend").code == 3
    fixed = cli("check", "mend", "--fix", "--yes")
    assert fixed.code == 0
    assert "0 errors" in fixed.out
    assert cli.good("check", "mend", "--undo").out == "1 row put back\n"
    assert cli("check", "mend").code == 3


def test_undo_leaves_what_was_written_since_alone_and_says_so(service: ServiceProcess, cli: Cli) -> None:
    state = states.load("7.0.0-rc14")
    state["creds"] |= {"nextPreKeyId": 5, "firstUnuploadedPreKeyId": 5}
    put(service, "went-on", state)
    assert cli("check", "went-on", "--fix", "--yes").code == 0
    creds = service.call("GET", "/v1/sessions/went-on/creds")
    creds["nextPreKeyId"] += 30
    service.call("POST", "/v1/sessions/went-on/commit", {"creds": creds})
    done = cli("check", "went-on", "--undo")
    assert (done.code, done.out) == (3, "0 rows put back\n")
    assert done.err == "left alone, since it is not what the repair wrote: creds\n"
    assert service.call("GET", "/v1/sessions/went-on/creds") == creds


def test_fix_does_not_touch_a_session_in_use(service: ServiceProcess, cli: Cli) -> None:
    put(service, "used", broken())
    service.call("POST", "/v1/sessions/used/lease", {"holder": "bot-7", "ttl_s": 60})
    done = cli("check", "used", "--fix", "--yes")
    assert done.code == 3
    assert "in use by bot-7" in done.err
    assert service.call("GET", "/v1/sessions/used")["version"] == 1


FORGED = "1\x1b[2K\r\nforged: version 1, 900 rows, 0 errors, 0 warnings\n\u2028\u202e"


def test_an_id_writes_no_line_of_its_own(service: ServiceProcess, cli: Cli) -> None:
    state = states.load("6.7.24")
    pair = {**state["keys"]["pre-key"]["5"]}
    pair["public"] = {"type": "Buffer", "data": list(raw(pair["public"]))}
    state["keys"]["pre-key"][FORGED] = pair
    put(service, "forging", state)
    for more in ([], ["--fix", "--yes"]):
        done = cli("check", "forging", *more)
        assert not {each for each in done.out + done.err if not each.isprintable()} - {"\n"}
        assert not [line for line in (done.out + done.err).splitlines() if line.startswith("forged")]
        assert "1\\x1b[2K\\r\\nforged" in done.out + done.err
    service.call("POST", "/v1/sessions/forging/commit", {"keys": {"pre-key": {FORGED: None}}})
    left = cli("check", "forging", "--undo")
    assert (left.code, len(left.err.splitlines())) == (3, 1)


def test_a_rule_is_explained_once(service: ServiceProcess, cli: Cli) -> None:
    state = states.load("6.7.24")
    for pair in state["keys"]["pre-key"].values():
        pair["public"] = {"type": "Buffer", "data": list(raw(pair["public"]))}
    put(service, "many", state)
    out = cli("check", "many").out
    assert out.count("warning bytes-spelling: pre-key ") == min(50, len(state["keys"]["pre-key"]))
    assert out.count("Bytes are spelled as a list") == 1


def test_what_many_sessions_and_rows_have_in_common_is_printed_a_few_times(service: ServiceProcess, cli: Cli) -> None:
    pair = {"public": {"type": "Buffer", "data": "AQ=="}, "private": {"type": "Buffer", "data": "AQ=="}}
    for n in range(2):
        body = {"keys": {"pre-key": {str(number): pair for number in range(1, 71)}}}
        service.call("POST", f"/v1/sessions/alike-{n}/commit", body)
    found = {each: cli("check", f"alike-{each}").out for each in range(2)}
    rule = found[0].split(" more of ")[1].split(";")[0]
    assert found[0].count(f" {rule}: pre-key ") == 50
    assert f"  20 more of {rule}; --format json shows each\n" in found[0]
    done = cli("check", "--all", "--restart")
    assert done.out.count(f" {rule}: pre-key ") <= 50
    assert f"  70 of {rule}; --format json shows each\n" in done.out
    listed = [json.loads(line) for line in cli("check", "--all", "--format", "json", "--restart").out.splitlines()]
    alike = [each for each in listed if each.get("session") == "alike-1"]
    assert len([each for each in alike[0]["findings"] if each["rule"] == rule]) == 70
    assert "commit null for it, with the bot stopped" in done.out


def test_undo_without_a_session_says_what_is_missing(cli: Cli) -> None:
    for arguments in (["--undo"], ["--undo", "--all"]):
        done = cli("check", *arguments)
        assert done.code == 2
        assert "--undo needs the name of one session" in " ".join(done.err.replace("│", " ").split())


def test_all_sessions_as_lines(service: ServiceProcess, cli: Cli) -> None:
    put(service, "all-good", states.load("6.7.24"))
    put(service, "all-bad", broken())
    done = cli("check", "--all", "--format", "json", "--restart")
    assert done.code == 3
    reports = {each["session"]: each for each in map(json.loads, done.out.splitlines())}
    assert reports["all-good"]["findings"] == []
    assert reports["all-bad"]["errors"] == 1
    assert done.err.splitlines()[-1].startswith(f"{len(reports)} sessions checked: ")
    table = cli("check", "--all")
    assert "all-bad: version 1" in table.out
    assert "all-good" not in table.out


def test_a_run_cut_off_and_gone_on_with_counts_all_of_it(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "data") as service:
        cli = Cli(service.data_dir, AUTHSTORE_PORT=str(service.port))
        for number in range(6):
            put(service, f"each-{number}", broken())
        _stand_after_four(service)
        done = cli("check", "--all")
        assert done.code == 3
        assert done.err.startswith("going on after 4 sessions with 4 errors, 2 warnings; --restart ")
        assert done.out.endswith("6 sessions checked, 4 of them before it was cut off: 6 errors, 2 warnings\n")
        assert cli("check", "--all").out.endswith("6 sessions checked: 6 errors, 0 warnings\n")


def _stand_after_four(service: ServiceProcess) -> None:
    """As a run leaves it that was killed after four sessions."""
    fourth = sorted(sid_of(f"each-{number}") for number in range(6))[3]

    async def change() -> None:
        url = attach(service.data_dir)
        assert url is not None
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO integrity_runs VALUES ('', $1, 4, 4, 2)", fourth)
        await connection.close()

    asyncio.run(change())


def test_fix_of_all_goes_on_after_a_session_that_cannot_be_mended(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "data") as service:
        cli = Cli(service.data_dir, AUTHSTORE_PORT=str(service.port))
        for number in range(4):
            put(service, f"each-{number}", broken())
        service.call("POST", "/v1/sessions/each-2/lease", {"holder": "bot-7", "ttl_s": 60})
        done = cli("check", "--all", "--fix", "--yes")
        assert (done.code, done.err.count("in use by bot-7")) == (3, 1)
        assert done.out.endswith("4 sessions checked: 1 error, 0 warnings\n")


@pytest.mark.parametrize("arguments", [[], ["one", "--all"], ["--all", "--undo"], ["one", "--fix", "--undo"]])
def test_what_makes_no_sense_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    assert cli("check", *arguments).code == 2


def test_an_unknown_session_is_exit_1(cli: Cli) -> None:
    done = cli("check", "nobody")
    assert (done.code, done.out) == (1, "")
    assert done.err == "authstore: there is no such session\n" or "no such session" in done.err


def secrets(value: Any) -> Iterator[bytes]:
    """Everything in a state that must not leave: bytes of keys, and texts and ids with a number of a person."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer":
            yield raw(value)
            return
        for name, each in value.items():
            yield from () if name.isalpha() else secrets(name)  # a member that Baileys names
            yield from () if name == "timestamp" else secrets(each)  # times may be seen
    elif isinstance(value, list):
        for each in value:
            yield from secrets(each)
    elif isinstance(value, str):
        if len(value) >= 20:  # no name of a member has as many
            with contextlib.suppress(ValueError):
                yield raw(value)
        digits = "".join(filter(str.isdigit, value.partition("@")[0].partition(":")[0].partition("_")[0]))
        if len(digits) >= 8:
            yield digits.encode()


@pytest.mark.parametrize("release", ["7.0.0-rc14", "6.17.16", "7.0.0-rc.4"])
def test_a_bundle_for_a_bug_report_holds_no_byte_of_a_key_and_no_number_of_anybody(
    service: ServiceProcess, cli: Cli, release: str
) -> None:
    state = states.load(release)
    state["creds"]["me"]["name"] = "Zoë Needleworth"
    state["creds"]["additionalData"] = {"15550104444": "secret text of the owner", "n": 15550103333}
    pair = state["keys"]["pre-key"]["10"]
    pair["private"] = {"type": "Buffer", "data": list(raw(pair["private"]))}
    name = f"named-{release}"
    put(service, name, state)
    done = cli.good("export", "--diagnose", name)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[0]["rows"] == 1 + len(states.rows(state))
    assert sum("type" in line and "finding" not in line for line in lines) == lines[0]["rows"]
    assert any(line.get("finding") == "bytes-spelling" for line in lines)
    out = done.out.encode()
    marked = {each for each in secrets(state) if len(each) >= 8}
    assert len(marked) > 100
    for secret in [*marked, b"Needleworth", b"secret text of the owner", b"15550103333", name.encode()]:
        assert not any(len(pattern) >= 8 and pattern in out for _, pattern in forms(secret)), (
            "a secret is in the bundle"
        )


def test_a_bundle_shows_what_belongs_together_and_nothing_across_bundles(service: ServiceProcess, cli: Cli) -> None:
    put(service, "twice", states.load("7.0.0-rc14"))
    one, other = (
        [json.loads(line) for line in cli.good("export", "--diagnose", "twice").out.splitlines()] for _ in range(2)
    )

    def identities(lines: list[Any]) -> set[tuple[str, str]]:
        return {(line["id"], line["value"]["digest"]) for line in lines if line.get("type") == "identity-key"}

    used = json.dumps([line for line in one if line.get("type") == "session"])
    for key_id, digest in identities(one):
        assert key_id in used
        assert digest in used
    assert identities(one).isdisjoint(identities(other))


def test_a_bundle_of_a_session_with_a_row_that_does_not_open(service: ServiceProcess, cli: Cli) -> None:
    put(service, "spoiled", states.load("6.7.24"))
    _spoil(service, "spoiled")
    lines = [json.loads(line) for line in cli.good("export", "--diagnose", "spoiled").out.splitlines()]
    assert sum("unreadable" in line for line in lines) == 1
    assert any(line.get("finding") == "row-unreadable" for line in lines)


def _spoil(service: ServiceProcess, name: str) -> None:
    async def change() -> None:
        url = attach(service.data_dir)
        assert url is not None
        connection = await asyncpg.connect(url)
        await connection.execute(
            "UPDATE session_keys SET sealed = sealed || '\\x00'::bytea WHERE (sid, kh) = "
            "(SELECT sid, kh FROM session_keys WHERE sid = $1 AND ktype = 'session' LIMIT 1)",
            sid_of(name),
        )
        await connection.close()

    asyncio.run(change())
