"""Every statement is used, prepares against the real schema, keeps to indexes, and leaves nothing behind in a session."""

import ast
import gc
import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from api import MASTER_KEY, creds, serve

import service.sql
from service.sql import commit, commit_one, journal, keys, pool, schema, sessions, settle, whole
from service.store.auth_store import AuthStore, StoreOptions
from service.vault import MasterKeys

SERVICE = Path(service.sql.__file__).parent.parent
MODULES = [importlib.import_module(f"service.sql.{found.name}") for found in pkgutil.iter_modules(service.sql.__path__)]
STATEMENTS = {
    f"{module.__name__.removeprefix('service.sql.')}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if name.endswith("_SQL") and f"\n{name}: " in (SERVICE / "sql" / f"{module.__name__.split('.')[-1]}.py").read_text()
}
# Utility statements, which cannot be prepared: each is run when a store opens.
RUN_AT_START = {"schema.VERSIONS_SQL", "schema.LOCK_SQL"}
ROWS = 50_000


@pytest.fixture
async def opened(database_url: str) -> Any:
    """A store's own connection, with its settings, to a database with the schema."""
    store = AuthStore(database_url, MasterKeys([MASTER_KEY]), None, StoreOptions())
    await store.open()
    connection = await store.database.connect()
    yield connection
    await connection.close()
    await store.close()


def syntax_of(path: Path) -> list[ast.AST]:
    """A file's syntax. No collection meanwhile: a finalizer that shows a traceback parses too, and early 3.11 mixes them up."""
    gc.disable()
    try:
        return list(ast.walk(ast.parse(path.read_text())))
    finally:
        gc.enable()


def names_used(path: Path) -> set[str]:
    """Names that a file loads, its own assignments aside."""
    found = syntax_of(path)
    return {node.id for node in found if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} | {
        node.attr for node in found if isinstance(node, ast.Attribute)
    }


def test_there_are_statements():
    assert len(STATEMENTS) > 25
    assert {"commit.COMMIT_SQL", "keys.GET_SQL", "keys.PAGE_SQL", "keys.STATE_SQL"} <= set(STATEMENTS)


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_used(name: str):
    module, constant = name.split(".")
    assert constant in names_used(SERVICE / "sql" / f"{module}.py")


def test_statements_stand_nowhere_else():
    words = re.compile(
        r"^\s*(SELECT\s.+\sFROM|INSERT INTO|UPDATE\s\w+\sSET|DELETE FROM|WITH\s\w+\sAS)\s", re.IGNORECASE
    )
    allowed = {SERVICE / "sql", SERVICE / "migrate"}  # the sources of a migration read other people's tables
    for path in SERVICE.rglob("*.py"):
        if allowed & set(path.parents):
            continue
        for node in syntax_of(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not words.match(node.value), f"{path.relative_to(SERVICE)}:{node.lineno}"


async def test_every_statement_prepares(opened: Any):
    for name in sorted(set(STATEMENTS) - RUN_AT_START):
        try:
            await opened.prepare(STATEMENTS[name])
        except asyncpg.PostgresError as error:
            error.add_note(name)
            raise


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_needs_a_session_of_the_server(name: str):
    text = re.sub(r"--.*", "", STATEMENTS[name]).lower()
    for word in ("advisory", "listen", "notify", "temp", "temporary", "xmin", "ctid", "declare", "discard", "unlogged"):
        assert not re.search(rf"\b\w*{word}\w*\b", text), word
    assert not re.match(r"\s*(set|prepare|begin|commit|copy)\b", text)
    assert ";" not in text


def test_no_migration_needs_what_a_pooler_or_a_sharded_server_lacks():
    for migration in schema.migrations():
        text = re.sub(r"--.*", "", migration.text).lower()
        for word in ("advisory", "temporary", "unlogged", "trigger", "references", "sequence", "serial", "extension"):
            assert not re.search(rf"\b\w*{word}\w*\b", text), (migration.name, word)


# -- plans -------------------------------------------------------------------------------------------------------------

TO_PLAN = {
    "COMMIT_SQL": commit.COMMIT_SQL,
    "COMMIT_ONE_SQL": commit_one.COMMIT_ONE_SQL,
    "COMMIT_FRESH_SQL": commit_one.COMMIT_FRESH_SQL,
    "COMMIT_SMALL_SQL": commit_one.COMMIT_SMALL_SQL,
    "COMMIT_MIRRORED_SQL": commit.COMMIT_MIRRORED_SQL,
    "APPEND_SQL": journal.APPEND_SQL,
    "APPEND_MANY_SQL": journal.APPEND_MANY_SQL,
    "APPEND_KEYS_SQL": journal.APPEND_KEYS_SQL,
    "SETTLE_SQL": settle.SETTLE_SQL,
    "SETTLE_FRESH_SQL": settle.SETTLE_FRESH_SQL,
    "SETTLE_MANY_SQL": settle.SETTLE_MANY_SQL,
    "JOURNAL_SQL": journal.JOURNAL_SQL,
    "REPLACE_SQL": whole.REPLACE_SQL,
    "CREATE_SQL": whole.CREATE_SQL,
    "GET_SQL": keys.GET_SQL,
    "PAGE_SQL": keys.PAGE_SQL,
    "STATE_SQL": keys.STATE_SQL,
    "FIND_SQL": sessions.FIND_SQL,
    "HOLD_SQL": sessions.HOLD_SQL,
    "LEASE_SQL": sessions.LEASE_SQL,
    "LIST_SQL": sessions.LIST_SQL,
    "COUNT_KEYS_SQL": sessions.COUNT_KEYS_SQL,
    "EXPIRED_SQL": sessions.EXPIRED_SQL,
    "DELETED_SQL": sessions.DELETED_SQL,
    "PURGE_SQL": sessions.PURGE_SQL,
}
LARGE = {"sessions", "session_keys", "session_journal"}
BY_KEY = {"Index Scan", "Index Only Scan"}
BY_INDEX = {*BY_KEY, "Bitmap Heap Scan"}
EACH_ROW_BY_KEY = {
    "APPEND_SQL",
    "APPEND_MANY_SQL",
    "APPEND_KEYS_SQL",
    "SETTLE_SQL",
    "SETTLE_FRESH_SQL",
    "SETTLE_MANY_SQL",
    "COMMIT_ONE_SQL",
    "COMMIT_FRESH_SQL",
    "COMMIT_SMALL_SQL",
    "COMMIT_SQL",
    "COMMIT_MIRRORED_SQL",
    "CREATE_SQL",
    "GET_SQL",
    "PAGE_SQL",
    "FIND_SQL",
    "HOLD_SQL",
    "LEASE_SQL",
}
OF_RANGES = {"SETTLE_MANY_SQL"}  # of the journal, which may be many rows
# Of a few rows, analyzed, Postgres goes through all rather than look up ten, where what is found is what is changed (by the
# name that the plan gives it). It plans anew when they are analyzed again.
WHOLE_WHEN_FEW = {
    *((f"{name}_SQL", "s") for name in ("APPEND_MANY", "APPEND_KEYS", "COMMIT", "COMMIT_MIRRORED")),
    *((name, "k_1") for name in ("SETTLE_SQL", "SETTLE_FRESH_SQL")),
}


async def fill(connection: Any, rows: int = ROWS) -> None:
    """Sessions of 100 rows each, and one of 5,000."""
    await connection.execute(
        "INSERT INTO sessions (sid, tenant, name, version, epoch, master_key_id, dek_id, wrapped_key, row_count, mark, recent,"
        " paired) SELECT gen_random_uuid(), 't' || n % 3, 's' || n, 1, 0, repeat('a', 16), 1, decode(repeat('00', 60), 'hex'),"
        " 100, 0, '', false FROM generate_series(1, $1::int / 100) n",
        rows,
    )
    await connection.execute(
        "INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed) SELECT s.sid, decode(lpad(to_hex(n), 48, '0'), 'hex'),"
        " 'session', 0, 0, decode(repeat('00', 100), 'hex') FROM sessions s,"
        " generate_series(1, CASE WHEN s.name = 's1' THEN 5000 ELSE 100 END) n"
    )
    await connection.execute(
        "INSERT INTO session_journal (sid, version, sealed) SELECT s.sid, n, decode(repeat('00', 100), 'hex')"
        " FROM sessions s, generate_series(1, 20) n WHERE s.name <> 's1'"
    )


def scans(plan: Any) -> list[Any]:
    """Every scan of a table in a plan."""
    found = [plan] if plan["Node Type"].endswith("Scan") and plan.get("Relation Name") else []
    return found + [scan for inner in plan.get("Plans", []) for scan in scans(inner)]


def nodes(plan: Any) -> set[str]:
    return {plan["Node Type"], *(node for inner in plan.get("Plans", []) for node in nodes(inner))}


async def explained(connection: Any, name: str, parameters: int) -> Any:
    nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    return json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{nulls}"))[0]["Plan"]


@pytest.mark.parametrize("when", ["before", "few", "after"])
async def test_plans_keep_to_indexes_also_when_made_on_empty_tables(opened: Any, when: str):
    counts = {}
    if when != "before":
        await fill(opened, ROWS if when == "after" else 100)
        if when == "few":
            await opened.execute("DELETE FROM session_keys WHERE kh > $1", (3).to_bytes(24, "big"))
        await opened.execute("VACUUM ANALYZE")
    for name, text in TO_PLAN.items():
        await opened.execute(f"PREPARE {name} AS {text}")
        counts[name] = max([int(n) for n in re.findall(r"\$(\d+)", text)], default=0)
        await explained(opened, name, counts[name])  # makes the plan that stays
    if when != "after":
        for table in sorted(LARGE):
            await opened.execute(f"DELETE FROM {table}")  # keeps the plans, as TRUNCATE would not
        await fill(opened)
    for name in TO_PLAN:
        plan = await explained(opened, name, counts[name])
        for scan in scans(plan):
            kind, table = scan["Node Type"], scan["Relation Name"]
            if table in LARGE:
                by_key = name in EACH_ROW_BY_KEY - OF_RANGES and when != "few"
                assert kind in (BY_KEY if by_key else BY_INDEX), (name, kind, table)
            exempt = when == "few" and (name, scan["Alias"]) in WHOLE_WHEN_FEW
            if table in LARGE and name in EACH_ROW_BY_KEY and not exempt:
                # Else all of an index is gone through.
                found_by = scan.get("Recheck Cond" if kind == "Bitmap Heap Scan" else "Index Cond", "")
                assert "sid" in found_by, (name, kind, table, scan["Alias"])
        assert not {node for node in nodes(plan) if "Hash Join" in node or "Merge Join" in node}, name
        # The session comes first of a UNION ALL: only a parallel plan could change that.
        assert not nodes(plan) & {"Gather", "Gather Merge"}, name


async def test_the_settings_of_connections_are_those_the_plans_were_looked_at_with(opened: Any):
    for setting, value in pool._PLANNER.items():
        assert await opened.fetchval("SELECT current_setting($1)", setting) == value


@pytest.mark.parametrize("count", [1, 100, 6000])
async def test_a_get_of_one_session_reads_no_more_of_the_index_than_it_must(opened: Any, count: int):
    """Rows touched grow with what is asked for, not with what is stored."""
    await fill(opened)
    sid = await opened.fetchval("SELECT sid FROM sessions WHERE name = 's1'")
    khs = [n.to_bytes(24, "big") for n in range(1, count + 1)]
    arguments = [1], [sid], [1] * count, list(range(count)), khs
    found = await opened.fetch(keys.GET_SQL, *arguments)
    assert len(found) == 1 + min(count, 5000)
    text = "\n".join(
        row[0]
        for row in await opened.fetch(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {keys.GET_SQL}", *arguments
        )
    )
    removed = sum(int(n) for n in re.findall(r"Rows Removed by (?:Filter|Index Recheck|Join Filter): (\d+)", text))
    assert removed == 0, text
    assert f"loops={count}" in text


def spelled(values: list[Any]) -> str:
    """An array as a literal."""
    texts = (
        "\\\\x" + value.hex() if isinstance(value, bytes) else "NULL" if value is None else str(value)
        for value in values
    )
    return "'{" + ",".join(texts) + "}'"


@pytest.mark.parametrize("mirrored", [False, True])
async def test_commits_that_share_a_statement_are_not_compared_with_each_other(opened: Any, mirrored: bool):
    """What a commit costs does not grow with how many there are: each part is gone through once, and nothing is sifted out."""
    await fill(opened)
    count = 100
    found = await opened.fetch("SELECT sid FROM sessions WHERE name <> 's1' ORDER BY sid LIMIT $1", count)
    kept, gone = ([n.to_bytes(24, "big")] * count for n in (1, 2))
    arguments = [
        [row["sid"] for row in found],
        *([1] * count, [1] * count, [None] * count, [5] * count, [b""] * count, [None] * count, [False] * count),
        *([1] * count, [None] * count, [False] * count, *[[None] * count] * 4),
        [n for n in range(1, count + 1) for _ in range(2)],
        [kh for pair in zip(kept, gone, strict=True) for kh in pair],
        ["session"] * 2 * count,
        [b"x" * 40, None] * count,
        *[[7] * 2 * count] * 4,
        *([[b"x" * 40] * count] if mirrored else []),
    ]
    await opened.execute(f"PREPARE many AS {commit.COMMIT_MIRRORED_SQL if mirrored else commit.COMMIT_SQL}")
    plan = await opened.fetch(
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"
        f" EXECUTE many ({', '.join(spelled(values) for values in arguments)})"
    )
    told = "\n".join(row[0] for row in plan)
    assert await opened.fetchval("SELECT count(*) FROM sessions WHERE version = 2") == count
    assert await opened.fetchval("SELECT count(*) FROM session_keys WHERE sealed = $1", b"x" * 40) == count
    assert "Removed by Join Filter" not in told, told
    loops = re.findall(r"CTE Scan on (?:r|was|upd)\b.*\(actual .*loops=(\d+)\)", told)
    assert len(loops) >= 7, told
    assert set(loops) == {"1"}, told


async def test_a_state_is_read_with_its_session_first_however_large(opened: Any):
    await fill(opened)
    await opened.execute("ANALYZE")
    sid = await opened.fetchval("SELECT sid FROM sessions WHERE name = 's1'")
    found = await keys.get_state(opened, UUID(bytes=sid.bytes))
    assert found is not None
    assert (found.row.name, found.entries, len(found.rows)) == ("s1", [], 5000)


async def test_statements_work_without_prepared_statements_and_planner_settings(database_url: str):
    """As behind a transaction pooler."""
    async with serve(database_url, pooler="transaction") as api:
        await api.commit("s", {"creds": creds(), "keys": {"t": {"a": 1}}})
        assert await api.get("s", {"t": ["a"]}) == {"t": {"a": 1}}
        assert (await api.state("s"))["keys"] == {"t": {"a": 1}}
        epoch = await api.lease("s")
        await api.good("PUT", "/v1/sessions/s/state", {"creds": creds()}, headers={"Lease-Epoch": str(epoch)})
        left = await api.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        assert left[0][0] == 0
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    await connection.close()
