"""What becomes of each row, alone: a plan accounts for everything that was found. Pure, but for what operators get wrong."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from migrating import CALLER, Scene, Told, authstore, database_beside, empty_scene, run_copy, run_verify, shop

from service.migrate.plan import Blocked, Options, SessionPlan, Why, alike, plan_session, taken_names
from service.migrate.report import begin_session, page
from service.migrate.source import Fault, FaultKind, Found, SourceRow
from service.migrate.target import read_target
from service.store.request import CommitRequest, Row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAIR = {"private": {"type": "Buffer", "data": "AQ=="}, "public": {"type": "Buffer", "data": "Ag=="}}
OTHER = {"private": {"type": "Buffer", "data": "Aw=="}, "public": {"type": "Buffer", "data": "Ag=="}}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def plan(
    *rows: SourceRow, creds: bytes | None = b"{}", faults: Any = (), options: Options | None = None
) -> SessionPlan:
    made = plan_session("one", Found(creds, list(rows), list(faults)), options or Options(), NOW)
    assert made.accounted
    return made


def whys(made: SessionPlan) -> list[Why]:
    return [each.why for each in made.quarantine]


@pytest.mark.parametrize("levels", [480, 900])
def test_what_is_nested_too_deeply_is_kept_out_and_stops_nothing(levels: int) -> None:
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    made = plan(SourceRow("app-state-sync-version", "1", deep), SourceRow("pre-key", "1", text(PAIR)))
    assert made.blocked is None
    assert dict(made.by_type)["pre-key"] == 1
    assert set(whys(made)) <= {Why.bad_value}
    assert plan(creds=b'{"additionalData":' + deep + b"}").blocked in {None, Blocked.bad_creds}


def test_a_key_is_taken() -> None:
    made = plan(SourceRow("pre-key", "1", text(PAIR)))
    assert made.blocked is None
    assert dict(made.by_type) == {"pre-key": 1}
    assert whys(made) == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (SourceRow("test-type", "test-key-1", b"1"), Why.unknown_type),
        (SourceRow("pre-key", "1", text({"private": {"0": 300}})), Why.bad_value),
        (SourceRow("pre-key", "1", b"{"), Why.bad_value),
        (SourceRow("pre-key", "1", b" null "), Why.null),
        (SourceRow("pre-key", "", b"1"), Why.bad_name),
        (SourceRow("pre-key", "x" * 513, b"1"), Why.bad_name),
        (SourceRow("x" * 65, "1", b"1"), Why.bad_name),
        (SourceRow("session", "a\0b", b"{}"), Why.bad_name),
        (SourceRow("pre", "key-x", b"1"), Why.unknown_type),
    ],
)
def test_what_is_not_a_key_is_quarantined_with_its_reason(row: SourceRow, why: Why) -> None:
    made = plan(row)
    assert whys(made) == [why]
    assert made.quarantine[0].raw == row.text
    assert made.by_type == {}


def test_unknown_types_can_be_kept() -> None:
    made = plan(SourceRow("forks-own", "x/y:z", text({"a": 1})), options=Options(keep_unknown=True))
    assert made.by_type == {"forks-own": 1}


@pytest.mark.parametrize("order", [1, -1])
def test_the_row_under_its_real_name_wins(order: int) -> None:
    rows = [SourceRow("pre-key", "12", text(PAIR)), SourceRow("pre", "key-12", text(OTHER))]
    made = plan(*rows[::order])
    assert made.keys["pre-key", "12"].text == text(PAIR)
    assert whys(made) == [Why.superseded]
    assert made.twins == 0


def test_a_twin_that_means_the_same_is_only_counted() -> None:
    octets = {"private": {"type": "Buffer", "data": [1]}, "public": {"0": 2}}
    made = plan(SourceRow("pre-key", "12", text(PAIR)), SourceRow("pre", "key-12", text(octets)))
    assert (whys(made), made.twins) == ([], 1)


def test_rivals_without_a_real_name_are_a_conflict_and_none_is_guessed() -> None:
    """Two ids that the importer mangled to names which both mean one key again."""
    rows = [
        SourceRow("sender", "key-120363000000000001@g.us--1555--0", text({"type": "Buffer", "data": "W10="})),
        SourceRow("sender", "key-120363000000000001@g.us::1555::0", text({"type": "Buffer", "data": "W3t9XQ=="})),
    ]
    made = plan(*rows)
    assert whys(made) == [Why.conflict, Why.conflict]
    assert made.by_type == {}
    same = plan(rows[0], SourceRow(rows[1].ktype, rows[1].key_id, rows[0].text))
    assert (same.by_type, same.twins) == ({"sender-key": 1}, 1)


def test_a_key_found_twice_under_its_real_name_with_two_values_is_a_conflict() -> None:
    made = plan(
        SourceRow("pre-key", "1", text(PAIR)),
        SourceRow("pre-key", "1", text(OTHER)),
        SourceRow("pre", "key-1", text(PAIR)),
    )
    assert whys(made) == [Why.conflict] * 3


def test_rows_past_their_expiry_are_taken_unless_told() -> None:
    rows = [
        SourceRow("pre-key", "1", text(PAIR), NOW - timedelta(seconds=1)),
        SourceRow("pre-key", "2", text(PAIR), NOW),
    ]
    assert (plan(*rows).expired, plan(*rows).by_type) == (1, {"pre-key": 2})
    left = plan(*rows, options=Options(skip_expired=True))
    assert (left.by_type, whys(left)) == ({"pre-key": 1}, [Why.expired])


@pytest.mark.parametrize(
    ("creds", "faults", "blocked"),
    [
        (None, [], Blocked.no_creds),
        (None, [Fault(FaultKind.torn_creds, "creds.json", "cut off", b"{")], Blocked.torn_creds),
        (b"[]", [], Blocked.bad_creds),
        (b'{"noiseKey":{"private":{"0":300}}}', [], Blocked.bad_creds),
        (b"{", [], Blocked.bad_creds),
    ],
)
def test_a_session_without_good_creds_is_not_moved(creds: bytes | None, faults: list[Fault], blocked: Blocked) -> None:
    made = plan(SourceRow("pre-key", "1", text(PAIR)), creds=creds, faults=faults)
    assert made.blocked is blocked


def test_a_name_we_cannot_have_is_blocked_and_can_be_mapped() -> None:
    found = Found(b"{}")
    assert plan_session("a/b", found, Options(), NOW).blocked is Blocked.bad_name
    mapped = plan_session("a/b", found, Options(names={"a/b": "company_1"}), NOW)
    assert (mapped.blocked, mapped.name) == (None, "company_1")


def test_names_that_meet_and_names_that_look_alike() -> None:
    assert taken_names([("a", "x"), ("b", "x"), ("c", "c")]) == {"x": ["a", "b"]}
    assert alike(["900001", "company_900001", "company_2"]) == [("900001", "company_900001")]


def test_the_page_escapes_what_it_shows() -> None:
    from service.migrate.report import Report

    made = plan(SourceRow("test-type", "<script>alert(1)</script>", b"1", where="<b>"))
    report = Report("plan", "legacy-postgres here", "default", sessions=[begin_session(made)])
    shown = page(report)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


# What operators get wrong, by the command line and on real servers.


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """One small session."""
    async with empty_scene(database_url) as scene:
        await _put(scene.source, "company_1", PAIR)
        yield scene


async def _put(source: Any, session: str, value: Any, ktype: str = "pre-key", key_id: str = "1") -> None:
    await source.execute(
        "INSERT INTO whatsapp_auth (company_id, creds) VALUES ($1, $2::text::jsonb) ON CONFLICT DO NOTHING",
        session, shop.creds(shop.state()),
    )  # fmt: skip
    await source.execute(
        "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value) VALUES ($1, $2, $3, $4::text::jsonb)",
        session, ktype, key_id, json.dumps(value),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "args", "code", "says"),
    [
        ("plan", ["--from", "nonsense"], 2, "--from"),
        ("plan", ["--from", "oracle://x"], 2, "--from"),
        ("copy", ["--from", "postgresql://nobody@127.0.0.1:1/x"], 1, "cannot be reached"),
        ("plan", ["--from", "postgresql://user:hunter2@127.0.0.1:1/x?sslmode=nonsense"], 2, "--from"),
        ("plan", ["--from", "{source}", "--session", "nobody"], 2, "--session"),
        ("copy", ["--from", "{source}", "--map", "missing.toml"], 2, "--map"),
        ("plan", ["--from", "{source}", "--no-repair", "everything"], 2, "--no-repair"),
        ("copy", ["--from", "{empty}"], 1, "no table of this database"),
        ("cutover", ["--from", "{source}", "--session", "company_1", "--wait", "4"], 2, "--still"),
        ("cutover", ["--from", "{source}", "--session", "company_1", "--wait", "9", "--still", "9"], 2, "--wait"),
    ],
)
async def test_a_wrong_option_or_source_is_said_in_a_sentence(
    scene: Scene, tmp_path: Path, verb: str, args: list[str], code: int, says: str
) -> None:
    filled = [arg.format(source=scene.source_url, empty=scene.target_url) for arg in args]
    done = await asyncio.to_thread(authstore, scene.target_url, "migrate", verb, *filled, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert os.listdir(tmp_path) == []
    assert await read_target(scene.store, CALLER, "company_1") is None


async def test_a_plan_against_a_database_without_our_schema_leaves_it_so(scene: Scene, tmp_path: Path) -> None:
    async with database_beside(scene.target_url) as fresh:
        done = await asyncio.to_thread(authstore, fresh, "migrate", "plan", "--from", scene.source_url, cwd=tmp_path)
        assert "ready" in done.stdout, done.stderr
        connection = await asyncpg.connect(fresh)
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
        )
        await connection.close()


async def test_a_plan_beside_no_database_at_all_makes_none(scene: Scene, tmp_path: Path) -> None:
    import subprocess

    from migrating import AUTHSTORE

    done = await asyncio.to_thread(
        subprocess.run,
        [AUTHSTORE, "--data-dir", tmp_path / "data", "migrate", "plan", "--from", scene.source_url],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ready" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [100_000, 7_000_000])
async def test_large_values_arrive_whole(scene: Scene, size: int) -> None:
    mac = {"type": "Buffer", "data": list(range(32))}
    entries = {f"{n:044d}": {"valueMac": mac} for n in range(size // 190)}
    value = {"version": 1, "hash": {"type": "Buffer", "data": [0] * 128}, "indexValueMap": entries}
    assert len(text(value)) > size
    await _put(scene.source, "company_1", value, "app-state-sync-version", "regular")
    report = await run_copy(scene.store, scene.source_url)
    assert [each.outcome for each in report.sessions] == ["copied"]
    assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]


async def test_a_copy_under_a_running_writer_is_of_one_moment(scene: Scene) -> None:
    for n in range(40):
        await _put(scene.source, f"company_x{n}", {"n": 0}, "session", "1555.0")
    stop = asyncio.Event()

    async def write() -> None:
        connection = await asyncpg.connect(scene.source_url)
        n = 0
        while not stop.is_set():
            n += 1
            await connection.execute(
                "UPDATE whatsapp_keys SET value = $1::text::jsonb WHERE key_type = 'session'", text({"n": n}).decode()
            )
        await connection.close()
        assert n > 3

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    await run_copy(scene.store, scene.source_url)
    stop.set()
    await writing
    found = set()
    for n in range(40):
        target = await read_target(scene.store, CALLER, f"company_x{n}")
        assert target is not None
        found.add(target.texts["session", "1555.0"])
    assert len(found) == 1


async def test_what_stands_here_is_not_overwritten_unless_told(scene: Scene) -> None:
    async def outcome(**told: bool) -> str:
        return (await run_copy(scene.store, scene.source_url, Told(**told))).sessions[0].outcome

    async def change_source(n: int) -> None:
        await scene.source.execute("UPDATE whatsapp_keys SET value = jsonb_set(value, '{n}', $1::text::jsonb)", str(n))

    assert await outcome() == "copied"
    await change_source(1)
    assert await outcome() == "copied"  # as we left it
    await scene.store.commit(CALLER, "company_1", CommitRequest(rows=[Row("lid-mapping", b"1", b'"2"')]))
    before = await read_target(scene.store, CALLER, "company_1")
    assert await outcome() == "refused"
    assert await outcome(takeover=True) == "refused"
    after = await read_target(scene.store, CALLER, "company_1")
    assert before is not None
    assert after is not None
    assert after.texts == before.texts
    assert await outcome(overwrite=True) == "copied"
    await change_source(2)
    await scene.store.lease(CALLER, "company_1", "a client", 60, takeover=False, epoch=None)
    assert await outcome(overwrite=True) == "refused"
    assert await outcome(takeover=True) == "copied"
    target = await read_target(scene.store, CALLER, "company_1")
    assert target is not None
    assert target.lease is None
    await scene.store.delete(CALLER, "company_1", epoch=None, purge=False)
    assert await outcome(overwrite=True, takeover=True) == "refused"


async def test_two_source_sessions_never_land_on_one(scene: Scene) -> None:
    await _put(scene.source, "company_2", PAIR)
    report = await run_copy(scene.store, scene.source_url, options=Options(names={"company_2": "company_1"}))
    assert [each.outcome for each in report.sessions] == ["blocked", "blocked"]
    assert await read_target(scene.store, CALLER, "company_1") is None


async def test_a_map_renames(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('[sessions]\n"company_1" = "shop@1"\n')
    done = await asyncio.to_thread(
        authstore, scene.target_url, "migrate", "copy", "--from", scene.source_url, "--map", "map.toml",
        "--session", "shop@1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert await read_target(scene.store, CALLER, "shop@1") is not None
    assert await read_target(scene.store, CALLER, "company_1") is None
