"""That the measurements run and count what they say they count. Nothing here judges how long anything took."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import readme
from bench.counters import Statements
from bench.durability import prove
from bench.figures import TOLERANCE, Slice, drift, figure
from bench.servers.postgres import Postgres, season
from bench.servers.service import Service
from bench.sql import Sql
from bench.stores import AGAIN, DIRECT, OUR_CONFIGURATIONS, OURS, Contestant, Field, line_up

ACKNOWLEDGED = 60


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where servers can run: not below a folder of the test's user alone."""
    with command.room(Path("/var/tmp")) as room:
        yield room


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Field]:
    """Every configuration of ours that the bench measures, and `direct`."""
    place = folder / "start"
    place.mkdir(mode=0o755)
    with line_up(place, [DIRECT, *OUR_CONFIGURATIONS]) as started:
        yield started


def test_an_answer_is_an_fsync_in_every_configuration(start: Field, folder: Path) -> None:
    proven = set()
    for contestant in start.contestants:
        proof = prove(contestant, folder / "worker.log", ACKNOWLEDGED)
        assert proof is not None, contestant.name
        assert proof.commits == ACKNOWLEDGED
        assert proof.holds, f"{contestant.name}: {proof}"
        proven.add(contestant.name)
    assert proven == {DIRECT, *OUR_CONFIGURATIONS}


def test_a_seasoned_server_has_the_files_that_its_log_goes_on_in(folder: Path) -> None:
    room = folder / "seasoned"
    room.mkdir(mode=0o755)
    with Postgres(room) as postgres:
        assert _log_files_made(postgres.sql) > 0  # as a new server does, while commits wait
        season(postgres.sql)
        assert _log_files_made(postgres.sql) == 0


def _log_files_made(sql: Sql) -> int:
    """Of 80 MiB of log."""
    files = "SELECT count(*) AS files FROM pg_ls_waldir()"
    before = sql.row(files)["files"]
    sql.run("SELECT pg_logical_emit_message(false, '', repeat('x', 1 << 20)) FROM generate_series(1, 80)")
    made: int = sql.row(files)["files"] - before
    return made


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_the_proof_fails_where_an_answer_is_no_promise(folder: Path, setting: str) -> None:
    room = folder / setting
    (room / "service").mkdir(parents=True)
    with Postgres(room, {setting: "off"}) as postgres:
        url = postgres.database("weak")
        counted = [Statements(postgres.sql, "weak", url)]
        proof = prove(Contestant("weak", "weak", DIRECT, {"url": url}, "no", counted), room / "log", ACKNOWLEDGED)
        # Ours does not even begin there, so that another store has to stand in for the control.
        with pytest.raises(RuntimeError, match="may lose what it acknowledged"), Service(room / "service", url):
            pass
    assert proof is not None
    assert proof.commits == ACKNOWLEDGED
    assert not proof.holds, proof


def test_the_comparison_runs_from_end_to_end(tmp_path: Path) -> None:
    words = ["--tiny", "--rounds", "1", "--repeats", "0", "--no-readme", "--results", str(tmp_path)]
    assert command.main([*words, "--only", "multi-file", "postgres-baileys", OURS]) == 0
    results = json.loads((tmp_path / "latest.json").read_text())
    assert set(results["stores"]) == {"multi-file", "postgres-baileys", DIRECT, OURS}
    for name, store in results["stores"].items():
        assert store["examined"] == {"readsBack": True, "deletes": True}, name
        assert set(store["workloads"]) == {f"w{n}" for n in range(1, 10)}
    ours, rival = (results["stores"][name]["workloads"]["w3"] for name in (OURS, "postgres-baileys"))
    assert (ours["requests"], ours["statements"]) == (1, 1)
    assert rival["statements"] == 812
    assert ours["wal_bytes"] > 100_000
    assert "| **ours** |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "ratios.svg").read_text().startswith("<svg")


def test_an_operator_measures_a_deployment_and_nothing_stays(start: Field, tmp_path: Path) -> None:
    service = start.services[OURS]
    token = tmp_path / "token"
    token.write_text(service.token)
    command_line = [Path(sys.executable).parent / "authstore", "bench", "--url", service.url, "--token-file", token]
    words = ["--seconds", "0.1", "--sessions", "4", "--format", "json"]
    answer = subprocess.run([*command_line, *words], capture_output=True, text=True, check=True)
    assert [row["workload"] for row in json.loads(answer.stdout)] == [f"w{n}" for n in range(1, 10)]
    asked = urllib.request.Request(
        f"{service.url}/v1/sessions?prefix=authstore-bench", headers={"Authorization": f"Bearer {service.token}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as listed:
        assert json.load(listed)["sessions"] == []


@pytest.mark.slow
def test_growth_runs_from_end_to_end(tmp_path: Path) -> None:
    assert command.main(["--scale", "--tiny", "--no-readme", "--results", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "scale.json").read_text())
    small, large = results["rows"]["ours-bare"].values()
    assert 1_000 < small["there"] < large["there"]
    assert set(results["sessions"][OURS]) == {"1", "4"}
    assert results["memory"]["full"]["node_per_open"] > results["memory"]["empty"]["node_per_open"] > 0
    assert results["time"]["updates"] > 0
    assert {path.name for path in tmp_path.glob("*.svg")} == {"rows.svg", "sessions.svg", "sizes.svg"}


def test_a_name_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no store is called our"), line_up(tmp_path, ["our"]):
        pass


def test_the_same_store_measured_twice_voids_what_says_nothing() -> None:
    once, half_again = Slice([1.0, 1.0, 1.0], 0.003), Slice([1.5, 1.5, 1.5], 0.0045)
    assert drift("w2", {DIRECT: [once, once], AGAIN: [once, once]}) == 1
    assert drift("w2", {DIRECT: [once] * 3, AGAIN: [half_again] * 3}) > TOLERANCE
    assert drift("w2", {DIRECT: [half_again] * 3, AGAIN: [once] * 3}) > TOLERANCE
    # One disturbed round of three is what medians are for.
    assert drift("w2", {DIRECT: [once] * 3, AGAIN: [once, half_again, once]}) == 1


def test_ratios_are_taken_round_by_round_and_rates_the_other_way() -> None:
    fast, slow = Slice([1.0] * 4, 0.004), Slice([10.0] * 4, 0.04)
    rounds = {DIRECT: [fast, slow], OURS: [fast, slow]}
    assert figure("w2", rounds, OURS).ratio == 1  # both drifted alike
    assert figure("w2", {DIRECT: [slow], OURS: [fast]}, OURS).ratio == pytest.approx(0.1)
    assert figure("w8", {DIRECT: [slow], OURS: [fast]}, OURS).ratio == pytest.approx(10)


def test_only_the_section_between_the_markers_is_written(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    assert readme.put("bench", "new", path)
    assert path.read_text() == "before\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nafter\n"
    assert not readme.put("elsewhere", "new", path)
    assert not readme.README.samefile(path)
