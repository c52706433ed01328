"""What our service still does when it has answered: large commits become rows.

Nobody else's turn begins before that is done, and no turn of ours begins with sessions that still wait.
"""

import time
from typing import Final

from bench.counters import Statements
from bench.sql import Sql

_LEFT: Final = "SELECT count(*) AS n FROM session_journal AS afterwork"  # the alias keeps it out of what is counted
_WITHIN_S: Final = 30.0


class Afterwork:
    """Of the service on one database."""

    def __init__(self, statements: Statements) -> None:
        self._url = statements.url
        self._sql: Sql | None = None

    def wait(self) -> None:
        """Until nothing waits. Raises TimeoutError when that does not end."""
        if self._sql is None:
            self._sql = Sql(self._url)
        end = time.monotonic() + _WITHIN_S
        while self._sql.row(_LEFT)["n"]:
            if time.monotonic() > end:
                raise TimeoutError("large commits do not become rows")
            time.sleep(0.02)

    def close(self) -> None:
        if self._sql is not None:
            self._sql.close()
