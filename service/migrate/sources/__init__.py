"""The kinds of store we can read and write. `open_source` takes what ``--from`` says.

| ``--from`` | stores | one moment for all it reads |
|---|---|---|
| ``postgres://…`` | the shop's tables, postgres-baileys, Prisma's ``Session``, any table (`layout`) | yes |
| ``mysql://…`` | mysql-baileys, Prisma's ``Session``, any table | InnoDB yes, MyISAM no |
| ``sqlite:PATH`` | upstream's databases | one database yes, a folder of them no |
| ``redis://…`` | a hash a session, a key a value | no |
| ``files:PATH`` | folders of ``useMultiFileAuthState`` | no |
| ``ndjson:PATH`` | our own export | yes |

Where it is no, a session is read until its fingerprint is the same before and after (`reading`).

The path of a folder or a file may stand alone (`settled`). A place that is one session has no name for it but its own: a
session's name that is asked for then is the name it gets here.

A kind is a module with ``async def open_it(place: str, layout: Layout | None) -> Source``, imported when it is asked for, so
that a driver is needed only by those who use it. ``place`` is the whole of ``--from`` for URLs, what follows the colon
otherwise.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from service.errors import BadInput
from service.migrate.source import Source, SourceError

Layout = Mapping[str, Any]
"""The ``[source]`` table of a ``--map`` file: how a store of one's own is laid out."""

_KINDS: Final = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "files": "files",
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "mysql": "mysql",
    "ndjson": "ndjson",
}
_SQLITE: Final = b"SQLite format 3\0"
_URLS: Final = frozenset({"postgres", "postgresql", "redis", "rediss", "mysql"})


async def open_source(spec: str, layout: Layout | None = None) -> Source:
    """The store that ``spec`` names, connected. Raises BadInput, SourceAway, SourceRefused, WrongSource."""
    scheme, colon, rest = spec.partition(":")
    if not colon or scheme not in _KINDS:
        raise _unknown()
    source: Source = await _module(scheme).open_it(spec if scheme in _URLS else rest, layout)
    return source


def settled(spec: str) -> str:
    """The same source for a process that stands in another folder: a mirror runs where the service does.

    A path alone is that of folders, of a SQLite database or of our own lines.
    """
    spec = f"{_kind_of(Path(spec))}{spec}" if spec else ""
    scheme, colon, rest = spec.partition(":")
    if not colon or scheme not in _KINDS or scheme in _URLS or not rest:
        return spec
    return f"{scheme}:{Path(rest).absolute()}"


def _kind_of(path: Path) -> str:
    """Its scheme and the colon; "" for what is no path of something that is there."""
    try:
        if path.is_dir():
            return "files:"
        if path.is_file():
            with path.open("rb") as file:
                return "sqlite:" if file.read(len(_SQLITE)) == _SQLITE else "ndjson:"
    except (OSError, ValueError):
        pass
    return ""


def _unknown() -> BadInput:
    return BadInput(f"a source is one of {', '.join(f'{kind}:' for kind in sorted(_KINDS))}", pointer="--from")


def _module(scheme: str) -> ModuleType:
    try:
        return import_module(f"service.migrate.sources.{_KINDS[scheme]}")
    except ModuleNotFoundError as error:
        raise SourceError(
            f"sources of kind {scheme}: need the Python package {error.name}: install baileys-auth-store[migrate]"
        ) from None
