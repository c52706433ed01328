"""That the parts of a workload are what they are called. Nothing here judges how long anything took."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import crowd, floors
from bench.budgets import ARMS
from bench.crowd import Crowd
from bench.inside import Inside, body_of, runner
from bench.servers.hollow import Hollow
from bench.servers.nothing import Nothing
from bench.servers.postgres import Postgres
from bench.sql import Sql
from bench.worker import PARTS, Worker

MEASURED = {"w2", "w3", "w4", "w5", "w6", "w7", "w9"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where servers can run: not below a folder of the test's user alone."""
    with command.room(Path("/var/tmp")) as room:
        yield room


@pytest.fixture(scope="module")
def parts(folder: Path) -> Iterator[Worker]:
    with Worker(folder / "parts.log", PARTS) as worker:
        yield worker


def test_it_runs_from_end_to_end(tmp_path: Path) -> None:
    assert command.main(["--floors", "--tiny", "--no-readme", "--results", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "floors.json").read_text())
    assert set(results["parts"]) == MEASURED
    for workload, found in results["parts"].items():
        assert set(found) == {"direct", "ours", "codec", "hop", "edge", "service", "database", "later"}
        assert min(value for part, value in found.items() if part != "edge") > 0, workload
    assert set(results["hollow"]["stores"]) == {"direct", "direct-again", "postgres-baileys", "hollow", "ours"}
    assert set(results["budgets"]["arms"]) == set(ARMS)
    assert set(results["crowd"]) == {"edge", "service"}
    assert results["crowd"]["service"] > 0
    table = (tmp_path / "floors.md").read_text()
    assert all(f"| {workload} " in table for workload in MEASURED)
    assert "| p99, of direct | ≤ 0.3 | " in table
    assert "| 3 × `direct` | " in table
    assert "| 4 × `postgres-baileys` | " in table


def test_what_a_goal_leaves_is_told_for_the_rivals_rate_beside_the_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    cpu_us = {"node": 100.0, "service": 0.0, "database": 60.0}  # 160 µs 10,000 times a second: 1.6 cores of two
    arms = {name: {"per_second": 10_000.0, "cpu_us": cpu_us} for name in ("direct", "shipped")}
    stores = {"direct": {"per_second": 5_000.0}, "postgres-baileys": {"per_second": 2_500.0}}
    lines = crowd.markdown({"edge": 9.0, "service": 30.0}, arms, stores).splitlines()
    assert lines[2] == "| 3 × `direct` | 67 | 53 | 100 | 9 | 30 | 60 | **199** | 160 |"
    assert lines[3] == "| 4 × `postgres-baileys` | 100 | 80 | 100 | 9 | 30 | 60 | **199** | 160 |"


def test_bodies_there_and_back_are_as_long_as_those_of_the_workload(folder: Path, parts: Worker) -> None:
    texts = parts.ask("values")
    ((login, answer),) = floors._bodies("w3", texts)
    assert login == len(json.dumps({"keys": {"pre-key": _read(texts["preKeys"])}}, separators=(",", ":")))
    assert answer < 100
    (_, (asked, state)) = floors._bodies("w9", texts)
    assert (asked, state) == (0, len(body_of(texts["whole"], texts["creds"])))
    room = folder / "nothing"
    room.mkdir(mode=0o755)
    with Postgres(room) as postgres, Nothing() as bare, Nothing(postgres.database("nothing")) as framework:
        for server in (bare, framework):
            # The client counts what it is answered; half a megabyte comes and goes whole.
            took = parts.ask("hop", url=server.url, sent=500_000, received=state, n=3)["took"]
            assert len(took) == 3
        assert postgres.sql.row("SELECT query FROM pg_stat_activity WHERE datname = 'nothing'") == {"query": "SELECT 1"}


def test_what_runs_inside_is_what_the_service_stores(folder: Path, parts: Worker) -> None:
    texts = parts.ask("values")
    room = folder / "inside"
    room.mkdir(mode=0o755)
    with Postgres(room) as postgres, runner() as loop:
        url = postgres.database("inside")
        inside = Inside(url, texts, os.urandom(32))
        loop.run(inside.open())
        spent = {workload: loop.run(inside.time(workload, 2)) for workload in sorted(MEASURED)}
        loop.run(inside.close())
        sql = Sql(url)
        stored = sql.row(
            "SELECT (SELECT version FROM sessions WHERE name = 'main') AS version, count(*) FILTER (WHERE ktype = 'session')"
            " AS sessions FROM session_keys k JOIN sessions s USING (sid) WHERE s.name = 'main'"
        )
        fresh = sql.row(
            "SELECT count(*) FILTER (WHERE row_count = 813) AS logins, count(*) FILTER (WHERE row_count = 1128) AS whole"
            " FROM sessions"
        )
        sql.close()
    # Filled once, pre-keys made for w4 once, and two of each of w2, w4, w5 and w7.
    assert stored == {"version": 1 + 1 + 4 * 2, "sessions": 256}
    assert fresh == {"logins": 2, "whole": 2 + 2}, "two first logins, two loaded whole, two to restart from"
    for workload, each in spent.items():
        assert all(one.service > 0 and one.database > 0 for one in each), workload


def test_a_crowd_s_commits_are_those_of_w8_and_become_rows(folder: Path, parts: Worker) -> None:
    texts = parts.ask("values")
    room = folder / "crowd"
    room.mkdir(mode=0o755)
    with Postgres(room) as postgres, runner() as loop:
        url = postgres.database("crowd")
        crowd = Crowd(url, texts)
        loop.run(crowd.open())
        sql = Sql(url)
        burst = 12  # more than make one: the last ones wait in the journal
        assert loop.run(crowd.committing(burst)) > 0
        seen = sql.row(
            "SELECT count(*) AS sessions, min(version) AS least, max(version) AS most, sum(pending)::int AS waiting,"
            " min(row_count) AS rows FROM sessions WHERE name LIKE 'crowd-%'"
        )
        loop.run(crowd.close())
        sql.close()
    made = 1 + burst
    assert seen == {"sessions": Crowd.batch, "least": made, "most": made, "waiting": 0, "rows": 2}


def test_a_hollow_service_answers_when_it_is_on_disk(folder: Path) -> None:
    """Else it would tell of goals within reach that are not. Each commit waits for the one before: none shares a fsync."""
    room = folder / "hollow"
    room.mkdir(mode=0o755)
    fsyncs = "SELECT sum(fsyncs)::bigint AS n FROM pg_stat_io WHERE object = 'wal' AND context = 'normal'"
    with Postgres(room) as postgres, Worker(folder / "hollow.log") as worker:
        url = postgres.database("hollow")
        with Hollow(url) as hollow:
            worker.ask("make", store="it", kind="client", settings={"url": hollow.url, "token": "of-nobody"})
            worker.ask("fill", store="it", keys=20)
            worker.ask("prepare", store="it", workload="w2", n=60)
            before = postgres.sql.row(fsyncs)["n"]
            assert len(worker.ask("run")["took"]) == 60
        # What a backend counted is only certain to be told when it has ended.
        deadline = time.monotonic() + 15
        while (after := postgres.sql.row(fsyncs)["n"]) < before + 60 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert after >= before + 60


def _read(texts: dict[str, str]) -> dict[str, object]:
    return {name: json.loads(text) for name, text in texts.items()}
