"""The schema and its history: numbered ``.sql`` files, each applied once, in a transaction with its own record.

Two starters at once: the second waits at the version table's lock and finds the work done. A database newer than this
release, or whose history differs from our files, is refused.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Final

import asyncpg

from service.errors import WrongSchema
from service.sql.pool import Connection
from service.sql.privileges import permitted

VERSIONS_SQL: Final = """
CREATE TABLE IF NOT EXISTS schema_versions (
    version int PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""
LOCK_SQL: Final = "LOCK TABLE schema_versions IN SHARE ROW EXCLUSIVE MODE"
HISTORY_SQL: Final = "SELECT version, name, checksum, applied_at FROM schema_versions ORDER BY version"
RECORD_SQL: Final = "INSERT INTO schema_versions (version, name, checksum) VALUES ($1, $2, $3)"
KNOWN_SQL: Final = "SELECT to_regclass('schema_versions') IS NOT NULL"
SERVER_SQL: Final = """
SELECT current_setting('server_version_num')::int AS number, current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes, current_setting('synchronous_commit') AS synchronous_commit
"""

# What CREATE TABLE IF NOT EXISTS says when another starter makes the table in the same moment.
_MADE_BY_ANOTHER: Final = (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.DuplicateTableError)

OLDEST_SERVER: Final = 140000
_MIGRATION_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    text: str

    @property
    def checksum(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def migrations() -> list[Migration]:
    """Our files, in order."""
    folder = resources.files("service.sql").joinpath("migrations")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [Migration(int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in files]


async def check_server(connection: Connection) -> None:
    """WrongSchema when the server is too old or does not keep what it acknowledges."""
    server = await connection.fetchrow(SERVER_SQL)
    if server is None or server["number"] < OLDEST_SERVER:
        raise WrongSchema("the database server is older than Postgres 14")
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        if server[setting] == "off":
            raise WrongSchema(f"the database server runs with {setting} = off: it may lose what it acknowledged")


async def apply(connection: Connection) -> list[str]:
    """Brings the schema up to date; the names of what was applied. NotPermitted when the role lacks a privilege."""
    async with permitted(connection):
        return await _apply(connection)


async def _apply(connection: Connection) -> list[str]:
    with suppress(*_MADE_BY_ANOTHER):
        await connection.execute(VERSIONS_SQL)
    async with connection.transaction():
        await connection.execute(LOCK_SQL, timeout=_MIGRATION_S)
        missing = _missing(await connection.fetch(HISTORY_SQL))
        for migration in missing:
            await connection.execute(migration.text, timeout=_MIGRATION_S)
            await connection.execute(RECORD_SQL, migration.version, migration.name, migration.checksum)
    return [migration.name for migration in missing]


async def pending(connection: Connection) -> list[str]:
    """Names of migrations not applied yet. WrongSchema when the database is newer or its history is another; NotPermitted."""
    async with permitted(connection):
        if not await connection.fetchval(KNOWN_SQL):
            return [migration.name for migration in migrations()]
        return [migration.name for migration in _missing(await connection.fetch(HISTORY_SQL))]


def _missing(history: list[asyncpg.Record]) -> list[Migration]:
    ours = migrations()
    applied = {record["version"]: record for record in history}
    if applied and max(applied) > ours[-1].version:
        raise WrongSchema("the database's schema is newer than this release: upgrade the service")
    for migration in ours:
        record = applied.get(migration.version)
        if record is not None and record["checksum"] != migration.checksum:
            raise WrongSchema(f"the database was migrated with another text of {migration.name}")
    return [migration for migration in ours if migration.version not in applied]
