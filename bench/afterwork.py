"""What our service still does when it has answered: large commits become rows.

Nobody else's turn begins before that is done, and no turn of ours begins with sessions that still wait.
"""

import time
from typing import Final

from bench.counters import Statements

_LEFT: Final = "SELECT count(*) AS n FROM session_journal AS afterwork"  # the alias keeps it out of what is counted
_WITHIN_S: Final = 30.0


class Afterwork:
    """Of the service on one database."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def wait(self) -> None:
        """Until nothing waits. Raises TimeoutError when that does not end."""
        end = time.monotonic() + _WITHIN_S
        with self._statements.inside() as sql:
            while sql.row(_LEFT)["n"]:
                if time.monotonic() > end:
                    raise TimeoutError("large commits do not become rows")
                time.sleep(0.02)
