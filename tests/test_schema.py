"""The schema refuses bad rows; migrations are applied once, whoever starts, and only by a release that knows them all."""

import asyncio
import re
from importlib import resources
from typing import Any

import asyncpg
import pytest
from api import MASTER_KEY, serve

from service.errors import WrongSchema
from service.sql import schema
from service.store.auth_store import AuthStore, StoreOptions
from service.vault import MasterKeys

SID = "00000000-0000-0000-0000-000000000001"
SESSION = {
    "sid": f"'{SID}'",
    "tenant": "'t'",
    "name": "'s'",
    "version": "0",
    "epoch": "0",
    "master_key_id": "repeat('a', 16)",
    "dek_id": "0",
    "wrapped_key": "decode(repeat('00', 60), 'hex')",
    "row_count": "0",
    "mark": "0",
    "recent": "''",
    "paired": "false",
}
ROW = {
    "sid": f"'{SID}'",
    "kh": "decode(repeat('00', 24), 'hex')",
    "ktype": "'t'",
    "d_hi": "0",
    "d_lo": "0",
    "sealed": "decode(repeat('00', 36), 'hex')",
}
TOKEN = {
    "id": "'abcdefabcdef'",
    "tenant": "'t'",
    "scope": "'read'",
    "label": "''",
    "hash": "decode(repeat('00', 32), 'hex')",
}
MASTER = {"id": "repeat('a', 16)", "check_value": "decode(repeat('00', 48), 'hex')"}

BAD = [
    *(("sessions", SESSION, {"name": name}) for name in ("''", "repeat('a', 129)", "NULL")),
    *(("sessions", SESSION, {"tenant": tenant}) for tenant in ("''", "repeat('a', 65)", "NULL")),
    *(("sessions", SESSION, {name: "-1"}) for name in ("version", "epoch", "row_count", "mark", "dek_id")),
    *(("sessions", SESSION, {name: "NULL"}) for name in SESSION),
    *(
        ("sessions", SESSION, {name: "-1"})
        for name in ("next_pre_key", "first_unuploaded", "account_sync", "signed_pre_key")
    ),
    ("sessions", SESSION, {"mark": "2305843009213693951"}),
    ("sessions", SESSION, {"wrapped_key": "decode(repeat('00', 59), 'hex')"}),
    ("sessions", SESSION, {"wrapped_key": "decode(repeat('00', 61), 'hex')"}),
    ("sessions", SESSION, {"master_key_id": "repeat('a', 15)"}),
    ("sessions", SESSION, {"recent": "decode(repeat('00', 31), 'hex')"}),
    ("sessions", SESSION, {"recent": "decode(repeat('00', 544), 'hex')"}),
    ("sessions", SESSION, {"identity_tag": "decode(repeat('00', 15), 'hex')"}),
    ("sessions", SESSION, {"lease_holder": "'h'"}),
    ("sessions", SESSION, {"lease_expires": "now()"}),
    ("sessions", SESSION, {"lease_holder": "''", "lease_expires": "now()"}),
    ("sessions", SESSION, {"lease_holder": "repeat('h', 201)", "lease_expires": "now()"}),
    *(("session_keys", ROW, {name: "NULL"}) for name in ROW),
    ("session_keys", ROW, {"kh": "decode(repeat('00', 23), 'hex')"}),
    ("session_keys", ROW, {"kh": "decode(repeat('00', 25), 'hex')"}),
    ("session_keys", ROW, {"ktype": "repeat('t', 65)"}),
    ("session_keys", ROW, {"sealed": "decode(repeat('00', 35), 'hex')"}),
    ("tokens", TOKEN, {"id": "'short'"}),
    ("tokens", TOKEN, {"id": "'ABCDEFABCDEF'"}),
    ("tokens", TOKEN, {"tenant": "''"}),
    ("tokens", TOKEN, {"scope": "'root'"}),
    ("tokens", TOKEN, {"label": "repeat('x', 101)"}),
    ("tokens", TOKEN, {"hash": "decode(repeat('00', 31), 'hex')"}),
    ("master_keys", MASTER, {"id": "'short'"}),
    ("master_keys", MASTER, {"check_value": "''"}),
    ("master_keys", MASTER, {"check_value": "decode(repeat('00', 129), 'hex')"}),
]


@pytest.fixture
async def connection(database_url: str) -> Any:
    found = await asyncpg.connect(database_url)
    yield found
    await found.close()


def store(url: str) -> AuthStore:
    return AuthStore(url, MasterKeys([MASTER_KEY]), None, StoreOptions())


def insert(table: str, row: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"


async def shape_of(connection: Any) -> list[Any]:
    """Every column, constraint and index."""
    columns = await connection.fetch(
        "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    constraints = await connection.fetch(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
    )
    indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    history = await connection.fetch("SELECT * FROM schema_versions ORDER BY version")
    return [*columns, *constraints, *indexes, *history]


async def test_bad_rows_are_refused_and_the_row_they_come_from_is_not(connection: Any):
    await schema.apply(connection)
    for table, good, change in BAD:
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
            await connection.execute(insert(table, {**good, **change}))
    for table, good in (("sessions", SESSION), ("session_keys", ROW), ("tokens", TOKEN), ("master_keys", MASTER)):
        await connection.execute(insert(table, good))
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(insert(table, good))


async def test_migrations_applied_twice_are_no_ops(connection: Any):
    assert await schema.pending(connection) == [migration.name for migration in schema.migrations()]
    assert await schema.apply(connection) == [migration.name for migration in schema.migrations()]
    before = await shape_of(connection)
    assert len(before) > 40
    assert await schema.apply(connection) == []
    assert await schema.pending(connection) == []
    assert await shape_of(connection) == before


async def test_migrations_are_numbered_without_a_gap_and_each_runs_in_a_transaction():
    found = schema.migrations()
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        assert re.fullmatch(r"\d{4}_[a-z_]+\.sql", migration.name)
        words = migration.text.upper()
        assert not re.search(r"\bCONCURRENTLY\b|\bVACUUM\b|^\s*(BEGIN|COMMIT)\b", words, re.MULTILINE)


# Of files that databases were migrated with: a change of the schema is a new file.
SEEN = {
    "0001_sessions.sql": "1eafa20186aaa0821cff770b4395b9dfa50cd45c7e674f3f5184a09a7b8091d0",
    "0002_access.sql": "17bbb683be8589e080bab8c4206a0c837149b4ad908822088f2b9fcb61b5ba90",
    "0003_integrity.sql": "8b7f36162b47cc66bede7d6320069b17b1d9044dadeb819e2bffd64e5f62efad",
    "0004_migrate.sql": "ba71f9ee2c26e63a41b7235e20560d5a7f58488636633ae5ad095bac821ecf6f",
}


def test_migrations_that_databases_have_seen_stay_as_they_are():
    checksums = {migration.name: migration.checksum.hex() for migration in schema.migrations()}
    assert {name: checksums[name] for name in SEEN} == SEEN


async def test_a_lease_has_a_holder_and_an_end_or_neither(connection: Any):
    await schema.apply(connection)
    made = (
        "INSERT INTO sessions (sid, tenant, name, version, epoch, master_key_id, dek_id, wrapped_key, row_count, mark, recent,"
        " paired, lease_holder) VALUES (gen_random_uuid(), 't', 's', 1, 0, repeat('a', 16), 1, decode(repeat('00', 60), 'hex'),"
        " 0, 0, '', false, $1)"
    )
    await connection.execute(made, None)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(made, "holder")


async def test_a_migration_that_fails_leaves_nothing(connection: Any, monkeypatch: pytest.MonkeyPatch):
    found = schema.migrations()
    broken = [
        *found[:-1],
        schema.Migration(found[-1].version, found[-1].name, "CREATE TABLE half (a int); SELECT 1 / 0"),
    ]
    monkeypatch.setattr(schema, "migrations", lambda: broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await schema.apply(connection)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [each[0] for each in tables] == ["schema_versions"]
    assert await connection.fetchval("SELECT count(*) FROM schema_versions") == 0
    monkeypatch.undo()
    assert len(await schema.apply(connection)) == len(found)


@pytest.mark.parametrize("_", range(5))
async def test_starters_at_once_apply_each_migration_once(database_url: str, connection: Any, _: int):
    stores = [store(database_url) for _ in range(6)]
    try:
        await asyncio.gather(*(each.open() for each in stores))
        history = await connection.fetch("SELECT version FROM schema_versions ORDER BY version")
        assert [row["version"] for row in history] == [migration.version for migration in schema.migrations()]
        assert await connection.fetchval("SELECT count(*) FROM master_keys") == 1
    finally:
        for each in stores:
            await each.close()


async def test_a_newer_schema_is_refused(database_url: str, connection: Any):
    await schema.apply(connection)
    await connection.execute("INSERT INTO schema_versions (version, name, checksum) VALUES (9999, '9999_new.sql', '')")
    before = await shape_of(connection)
    for _ in range(2):
        opened = store(database_url)
        with pytest.raises(WrongSchema, match="newer than this release"):
            await opened.open()
        await opened.close()
    with pytest.raises(WrongSchema):
        async with serve(database_url):
            pytest.fail("it served")
    assert await shape_of(connection) == before


@pytest.mark.parametrize("what", ["database", "file"])
async def test_a_migration_of_another_text_is_refused(
    database_url: str, connection: Any, monkeypatch: pytest.MonkeyPatch, what: str
):
    await schema.apply(connection)
    found = schema.migrations()
    if what == "database":
        await connection.execute("UPDATE schema_versions SET checksum = '\\x00' WHERE version = 1")
    else:
        changed = [schema.Migration(each.version, each.name, each.text + " ") for each in found]
        monkeypatch.setattr(schema, "migrations", lambda: changed)
    opened = store(database_url)
    with pytest.raises(WrongSchema, match="another text of 0001"):
        await opened.open()
    await opened.close()
    assert not opened.is_open


async def test_a_service_is_not_ready_when_a_migration_is_taken_back(database_url: str, connection: Any):
    async with serve(database_url) as api:
        assert (await api.ask("GET", "/health/ready")).status == 200
        await connection.execute(
            "DELETE FROM schema_versions WHERE version = (SELECT max(version) FROM schema_versions)"
        )
        answer = await api.ask("GET", "/health/ready")
        assert (answer.status, answer.json["status"]) == (503, "unavailable")


def test_every_migration_is_in_the_package():
    folder = resources.files("service.sql").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == [migration.name for migration in schema.migrations()]


async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(database_url: str, connection: Any):
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    opened = store(database_url)
    with pytest.raises(Exception, match="synchronous_commit = off"):
        await opened.open()
    await opened.close()
