"""What an operation costs beside time: requests, statements, bytes of WAL. None of it depends on the machine."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from bench.servers.mariadb import MariaDb
from bench.servers.redis import Redis
from bench.servers.service import Service
from bench.sql import Sql

_STATEMENTS: Final = """
SELECT coalesce(sum(s.calls) FILTER (WHERE s.query NOT LIKE '%FROM mirror_entries e JOIN sessions%'
                                       AND s.query NOT LIKE '%FROM session_journal j JOIN sessions%'
                                       AND s.query NOT LIKE '%AS afterwork%'), 0)::bigint AS statements,
       coalesce(sum(s.wal_fpi), 0)::bigint AS full_pages,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS wal_bytes
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1
"""
_TRACK: Final = "ALTER SYSTEM SET pg_stat_statements.track = '{}'"
_RELOAD_S: Final = 0.3


class Reader(Protocol):
    """Something that only grows."""

    def read(self) -> dict[str, int]: ...


class Statements:
    """Statements of one database, and the whole server's WAL: nothing else may run beside what is counted.

    Our service's looks for what waits for a mirror, or was left in a journal, run by the clock and are not an operation's.
    """

    def __init__(self, sql: Sql, database: str, url: str) -> None:
        self.sql = sql
        self.database = database
        self.url = url

    @contextmanager
    def inside(self) -> Iterator[Sql]:
        """A connection to the database itself."""
        sql = Sql(self.url)
        try:
            yield sql
        finally:
            sql.close()

    def read(self) -> dict[str, int]:
        return self.sql.row(_STATEMENTS, self.database)


class Requests:
    """Requests a service answered; renewals of open sessions' leases, which run by the clock, are not an operation's."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def read(self) -> dict[str, int]:
        if not self._service.countable:
            return {}
        requests, renewals = self._service.requests()
        return {"requests": requests - renewals, "statements": -renewals}


class Commands:
    """Commands a Redis ran."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def read(self) -> dict[str, int]:
        return {"commands": self._redis.commands()}


class Questions:
    """Statements a MariaDB ran, but for those of looking on (the client's greeting is one as well)."""

    def __init__(self, server: MariaDb) -> None:
        self._server = server
        self._asked = 0

    def read(self) -> dict[str, int]:
        self._asked += 2
        return {"statements": self._server.statements() - self._asked}


def read_all(counters: Sequence[Reader]) -> dict[str, int]:
    """One reading of all of them."""
    readings: Counter[str] = Counter()
    for counter in counters:
        for name, value in counter.read().items():
            readings[name] += value
    return dict(readings)


def per_operation(before: Mapping[str, int], after: Mapping[str, int], operations: int) -> dict[str, float]:
    """What each operation took of everything counted."""
    return {name: round((after[name] - before[name]) / operations, 2) for name in after}


def switch(servers: Sequence[Sql], *, on: bool) -> None:
    """Statement counting costs something, so it is off while the clock runs."""
    for sql in servers:
        sql.run(_TRACK.format("top" if on else "none"))
        sql.run("SELECT pg_reload_conf()")
    time.sleep(_RELOAD_S)
