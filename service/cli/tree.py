"""The commands by name. A module is imported when one of its commands is asked for: all of them together take a second."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typing_extensions import override

_COMMON: Final = ("--config", "--data-dir")

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
    """The root of the tree. Its options may also stand behind a command, where everybody writes them."""

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = Commands()

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _common_first(args))


def _common_first(args: list[str]) -> list[str]:
    """Arguments with the common options before the command. Raises BadParameter for one without its value."""
    common: list[str] = []
    others: list[str] = []
    left = iter(args)
    for word in left:
        if word == "--":
            return [*common, *others, word, *left]
        if word.partition("=")[0] not in _COMMON:
            others.append(word)
            continue
        common.append(word)
        if "=" not in word:
            value = next(left, None)
            if value is None:
                raise typer.BadParameter("needs a value", param_hint=word)
            common.append(value)
    return common + others
