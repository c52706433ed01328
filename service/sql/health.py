"""The database as the connection itself reports it, never as it is configured."""

import time
from dataclasses import dataclass
from typing import Final

from service.sql.pool import Connection

BACKEND_SQL: Final = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::bool AS read_only,
       current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
       current_setting('synchronous_standby_names') <> '' AS has_sync_standbys,
       (SELECT max(version) FROM schema_versions) AS schema
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """``latency_ms``: one round trip."""

    version: str
    standby: bool
    writable: bool
    synchronous_commit: str
    fsync: str
    has_sync_standbys: bool
    schema: int
    latency_ms: float


async def ask(connection: Connection) -> Backend:
    """Asks the server. Driver errors become Unavailable where the connection was lent."""
    started = time.perf_counter()
    row = await connection.fetchrow(BACKEND_SQL)
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    took = (time.perf_counter() - started) * 1000
    writable = not (row["standby"] or row["read_only"])
    return Backend(
        row["version"],
        row["standby"],
        writable,
        row["synchronous_commit"],
        row["fsync"],
        row["has_sync_standbys"],
        row["schema"] or 0,
        round(took, 3),
    )
