"""Results as a table for people or as JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

_PIPE_WIDTH: Final = 4096


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print results.")]


def show(rows: Sequence[Mapping[str, Any]], how: Format) -> None:
    """Prints rows of the same columns."""
    if how is Format.json:
        typer.echo(json.dumps([dict(row) for row in rows], default=_plain, indent=2))
        return
    table = Table(*(rows[0] if rows else ()), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else str(_plain(value)) for value in row.values()))
    # A pipe has no width: nothing is cut there.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table if rows else "nothing")


def show_one(row: Mapping[str, Any], how: Format) -> None:
    """Prints one thing: name and value a line, or a JSON object."""
    if how is Format.json:
        typer.echo(json.dumps(dict(row), default=_plain, indent=2))
        return
    show([{"": name, " ": value} for name, value in row.items()], how)


def counted(count: int, what: str) -> str:
    """A count and its noun: one error, two errors."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
