"""What is asked of a table of MySQL: put together from its layout, and values put together for a statement. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from service.migrate.sources.layout import TableLayout

RowName = tuple[str, ...]
"""What the columns that name a row hold."""

# Of one statement: every server's longest packet and shortest plan take it.
ROWS: Final = 250
_CHARS: Final = 1 << 18


class Statements:
    """What is asked of a layout's table. Parameters: the session, then the columns that name a row, then the value.

    ``same``, ``delete`` and ``put`` are of so many rows: a round trip for each would make a far table too slow to follow.
    """

    def __init__(self, table: TableLayout) -> None:
        name, session, value = (_quoted(each) for each in (table.table, table.session, table.value))
        named = [_quoted(each) for each in table.named]
        listed = ", ".join(named)
        row = f"SHA2(CONCAT_WS(CHAR(0), {listed}, SHA2(COALESCE({value}, ''), 256)), 256)"
        halves = ", ".join(
            f"COALESCE(BIT_XOR(CAST(CONV(SUBSTRING({row}, {at}, 15), 16, 10) AS UNSIGNED)), 0)" for at in (1, 16)
        )
        self.sessions = f"SELECT DISTINCT {session} FROM {name} WHERE {session} IS NOT NULL ORDER BY 1"
        self.rows = f"SELECT {listed}, {value} FROM {name} WHERE {session} = %s ORDER BY {listed}"
        self.mark = f"SELECT COUNT(*), {halves} FROM {name} WHERE {session} = %s"
        self.wipe = f"DELETE FROM {name} WHERE {session} = %s"
        alike = [f"{each} = %s" for each in named]
        exact = [f"BINARY CONVERT({each} USING utf8mb4) = %s" for each in named]
        self._same = f"SELECT {listed} FROM {name} WHERE {session} = %s", f"({' AND '.join(alike)})"
        self._delete = f"DELETE FROM {name} WHERE {session} = %s", f"({' AND '.join(alike + exact)})"
        self._put = (
            f"INSERT INTO {name} ({session}, {listed}, {value}) VALUES ",
            f"({', '.join(['%s'] * (len(named) + 2))})",
            f" ON DUPLICATE KEY UPDATE {value} = VALUES({value})",
        )
        self.creds = (
            f"SELECT {listed} FROM {name} WHERE {session} = %s AND BINARY CONVERT({named[0]} USING utf8mb4) = %s"
        )

    def same(self, rows: int) -> str:
        """Names of the rows that the table takes for these. Parameters: the session, then each name."""
        head, row = self._same
        return f"{head} AND ({' OR '.join([row] * rows)})"

    def delete(self, rows: int) -> str:
        """Parameters: the session, then each name twice."""
        head, row = self._delete
        return f"{head} AND ({' OR '.join([row] * rows)})"

    def put(self, rows: int) -> str:
        """Parameters: of each row the session, its name and its value."""
        head, row, tail = self._put
        return f"{head}{', '.join([row] * rows)}{tail}"


def batches(rows: Iterable[tuple[RowName, str]]) -> Iterator[list[tuple[RowName, str]]]:
    """Pure: rows for one statement each. Names that a collation may take for one another stand apart, so that the second
    meets the row of the first."""
    batch: list[tuple[RowName, str]] = []
    folded: set[RowName | None] = set()
    size = 0
    for name, text in rows:
        fold = _folded(name)
        apart = fold is None or None in folded or fold in folded
        if batch and (apart or len(batch) == ROWS or size + len(text) > _CHARS):
            yield batch
            batch, folded, size = [], set(), 0
        batch.append((name, text))
        folded.add(fold)
        size += len(text)
    if batch:
        yield batch


def _folded(name: RowName) -> RowName | None:
    """What names that are the same to a collation share. None: of such characters that this cannot be told here."""
    plain = all(part.isascii() and part.isprintable() for part in name)
    return tuple(part.lower().rstrip() for part in name) if plain else None


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"
