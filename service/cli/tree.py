"""The commands by name. A module is imported when one of its commands is asked for: all of them together take a second."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typing_extensions import override

# name -> (module of this package, what is in it: a function or a tree of its own)
_PLACES: Final = {
    "serve": ("serving", "serve"),
    "health": ("health", "health"),
    "doctor": ("doctor", "doctor"),
    "check": ("check", "check"),
    "bench": ("bench", "bench"),
    "export": ("export", "export"),
    "import": ("export", "import_"),
    "token": ("tokens", "app"),
    "key": ("keys", "app"),
    "sessions": ("sessions", "app"),
    "schema": ("schema", "app"),
    "migrate": ("migrate", "app"),
}


class Commands(Mapping[str, Any]):
    """What the group looks its commands up in; help looks at all of them."""

    @override
    def __getitem__(self, name: str) -> Any:
        module, member = _PLACES[name]
        found = getattr(import_module(f"service.cli.{module}"), member)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(name)(found)
            command = typer.main.get_command(alone)
        command.name = name
        return command

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    @override
    def __len__(self) -> int:
        return len(_PLACES)


class Group(TyperGroup):
    """The root of the tree."""

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = Commands()
