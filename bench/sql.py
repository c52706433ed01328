"""One connection to look at a Postgres from, without an event loop in sight."""

import asyncio
from typing import Any

import asyncpg


class Sql:
    """A superuser's connection; connects at once."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))

    def run(self, statement: str) -> None:
        """A statement without an answer."""
        self._loop.run_until_complete(self._connection.execute(statement))

    def row(self, statement: str, *arguments: object) -> dict[str, Any]:
        """The first row."""
        record = self._loop.run_until_complete(self._connection.fetchrow(statement, *arguments))
        return dict(record) if record is not None else {}

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()
