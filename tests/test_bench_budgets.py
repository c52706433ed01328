"""That budgets are measured against services that really lack what they are said to lack. Nothing here judges time."""

import gzip
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import budget_report, budgets, cpu, reduced
from bench.budget_report import AGAIN, SHIPPED, TRACKED, UNFENCED, UNSEALED, Turn
from bench.budgets import ARMS, TINY, Arm
from bench.servers.sink import Sink
from bench.sql import Sql
from bench.stores import DIRECT
from bench.worker import Worker

REPORTED_S = 20.0
# Arms with a service of ours.
OURS = [name for name in ARMS if name != DIRECT]
# A member of every session's value, as its text has it.
IN_CLEAR = b'"indexInfo"'
STORED = """
SELECT array_agg(k.ktype || ' ' || k.count ORDER BY k.ktype) AS rows, bool_or(k.digests) AS digests
FROM (SELECT ktype, count(*) AS count, bool_or(d_hi <> 0 OR d_lo <> 0) AS digests FROM session_keys GROUP BY ktype) k
"""
SEEN = """
SELECT count(*) FILTER (WHERE position($1 IN sealed) > 0) AS clear, count(*) AS n FROM session_keys WHERE ktype = 'session'
"""
TOUCHED = """
SELECT min(version) AS least, max(version) AS most, max(row_count) AS rows, max(octet_length(recent)) AS recent FROM sessions
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where servers can run: not below a folder of the test's user alone."""
    with command.room(Path("/var/tmp")) as room:
        yield room


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as started:
        yield started


@pytest.fixture(scope="module")
def driven(folder: Path, sink: Sink) -> Iterator[dict[str, Arm]]:
    """Every arm after the same turn at w8."""
    with budgets.started(folder, print, sink) as arms:
        with Worker(folder / "worker.log") as worker:
            for arm in arms.values():
                budgets.fill(worker, arm, TINY)
                turn = arm.drive(worker, TINY)
                assert min(turn.clock, turn.node, turn.database) > 0, arm.name
                assert (turn.service > 0) == (arm.service is not None), arm.name
        yield {name: arms[name] for name in OURS}


def row(arm: Arm, statement: str, *arguments: object) -> dict[str, object]:
    sql = Sql(arm.url)
    try:
        return sql.row(statement, *arguments)
    finally:
        sql.close()


def test_every_arm_stores_the_same_rows_and_gives_them_back(driven: dict[str, Arm]) -> None:
    stored = {name: row(arm, STORED)["rows"] for name, arm in driven.items()}
    assert set(stored) == set(OURS)
    # Creds of the main session and of the crowd; the crowd's pre-keys were used up by the turn.
    assert f" {TINY.crowd + 1}" in stored[SHIPPED]
    assert all(rows == stored[SHIPPED] for rows in stored.values()), stored
    assert {name: ask_creds(arm) for name, arm in driven.items()} == dict.fromkeys(OURS, 200)


def test_without_sealing_the_database_holds_values_in_clear(driven: dict[str, Arm]) -> None:
    found = {name: row(arm, SEEN, IN_CLEAR) for name, arm in driven.items()}
    assert found[UNSEALED]["clear"] == found[UNSEALED]["n"]
    assert {name for name, each in found.items() if each["clear"]} == {UNSEALED}


def test_without_fencing_no_commit_touches_the_session(driven: dict[str, Arm]) -> None:
    assert row(driven[UNFENCED], TOUCHED) == {"least": 0, "most": 0, "rows": 0, "recent": 0}
    assert row(driven[UNFENCED], STORED)["digests"] is False
    for name in {*OURS} - {UNFENCED}:
        found = row(driven[name], TOUCHED)
        assert min(found.values()) > 0, name
        assert row(driven[name], STORED)["digests"] is True, name


def test_only_the_tracked_service_reports_its_faults(driven: dict[str, Arm], sink: Sink) -> None:
    for name in (SHIPPED, TRACKED):  # in this order: what the first one sent would be there with the second one's
        row(driven[name], "UPDATE session_keys SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 1)")
        assert ask_creds(driven[name]) == 500
    deadline = time.monotonic() + REPORTED_S
    while not sink.received and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(sink.received) == 1
    assert b'"Corrupt"' in gzip.decompress(sink.received[0])


def ask_creds(arm: Arm) -> int:
    assert arm.service is not None
    session = row(arm, "SELECT name FROM sessions ORDER BY name LIMIT 1")["name"]
    request = urllib.request.Request(
        f"{arm.service.url}/v1/sessions/{session}/creds", headers={"Authorization": f"Bearer {arm.service.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def test_the_measurement_runs_from_end_to_end(folder: Path) -> None:
    room = folder / "measured"
    room.mkdir(mode=0o755)
    results = budgets.measure(room, print, tiny=True)
    assert json.loads(json.dumps(results)) == results
    assert set(results["arms"]) == set(ARMS)
    for arm in results["arms"].values():
        assert min(arm["per_second"], arm["cpu_us"]["node"], arm["cpu_us"]["database"]) > 0
    said = budgets.markdown(results)
    assert [line.split(" | ")[1] for line in said.splitlines()[2:5]] == ["≤ 5 %", "≤ 3 %", "≤ 15 %"]
    assert all(set(found["more_us"]) == set(budget_report.PLACES) for found in results["budgets"])
    assert "As shipped, measured twice: " in said
    assert "`direct` moves " in said


def test_a_share_is_of_what_has_the_thing_and_taken_round_by_round() -> None:
    whole, less, more = Turn(100, 30, 40, 30), Turn(80, 30, 40, 20), Turn(125, 30, 60, 35)
    slow = Turn(1000, 300, 400, 300)  # a disturbed round, in which everything was ten times slower
    same = {name: [whole, slow] for name in (SHIPPED, UNSEALED, AGAIN)}
    differing = {UNFENCED: [less, Turn(800, 300, 400, 200)], TRACKED: [more, Turn(1250, 300, 600, 350)]}
    results = budget_report.assemble({**same, **differing})
    found = {each["what"]: each for each in results["budgets"]}
    assert found["sealing"]["by_cpu"] == results["noise"]["by_rate"] == {"median": 0, "low": 0, "high": 0}
    assert found["fencing, version and digests"]["by_cpu"]["median"] == pytest.approx(0.1)
    assert found["fencing, version and digests"]["by_rate"]["high"] == pytest.approx(0.2)
    assert found["fencing, version and digests"]["more_us"] == {"node": 0, "service": 0, "database": 55}
    assert found["error tracker"]["by_cpu"]["low"] == pytest.approx(0.2)
    assert [each["reached"] for each in found.values()] == [True, False, True]
    assert results["arms"][UNFENCED]["ratio"]["median"] == pytest.approx(0.8)


def test_as_shipped_is_what_its_twins_took_on_average() -> None:
    once, again, other = Turn(90, 30, 40, 20), Turn(110, 30, 50, 30), Turn(100, 25, 30, 25)
    turns = {SHIPPED: [once], AGAIN: [again], **{name: [other] for name in (UNSEALED, UNFENCED, TRACKED)}}
    results = budget_report.assemble(turns)
    assert results["budgets"][0]["by_cpu"]["median"] == pytest.approx(0.2)
    assert results["budgets"][0]["by_rate"]["median"] == 0
    assert results["noise"]["by_cpu"]["median"] == pytest.approx(1 - 110 / 90, abs=1e-4)


def test_a_round_is_the_least_of_its_passes() -> None:
    assert budget_report.least([Turn(9, 4, 3, 2), Turn(8, 5, 2, 2)]) == Turn(8, 4, 2, 2)


def test_what_is_not_there_cannot_be_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {"sealing": (reduced._Replaced(reduced.vault, "AESGCM2", reduced.Copying),)}
    monkeypatch.setattr(reduced, "_WITHOUT", renamed)
    with pytest.raises(AttributeError, match="AESGCM2 is not there"):
        reduced.take_out("sealing")


def test_cpu_time_is_of_those_that_live() -> None:
    assert cpu.between({1: 100, 2: 50}, {1: 130, 3: 5}) == 35
    assert cpu.spent([2**22 + 1]) == {}
