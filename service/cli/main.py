"""The command line's beginning and end. Exit codes: 0 good, 1 failed, 2 usage, 3 done but with findings."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from protocol.errors import ProtocolError
from service.cli.tree import Group
from service.config import ConfigError
from service.embedded import EmbeddedError
from service.errors import ServiceError
from service.observe import install_hooks

USAGE = 2

# Rich tracebacks print locals, which hold keys.
app = typer.Typer(
    name="authstore",
    cls=Group,
    help="Keeps the auth state of WhatsApp sessions run with Baileys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("baileys-auth-store"))
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded database lives.")] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Prints the release.")
    ] = False,
) -> None:
    """Settings come from flags over AUTHSTORE_ variables over the file."""
    install_hooks()  # here, because typer puts its own in place when it is called
    context.obj = {"config": config, "data_dir": data_dir}


def main() -> None:
    """Runs the command line. What can go wrong is said in a sentence, on stderr."""
    try:
        app()
    except ConfigError as error:
        for fault in error.faults:
            typer.echo(f"authstore: {fault}", err=True)
        sys.exit(USAGE)
    except (ServiceError, EmbeddedError, ProtocolError) as error:
        typer.echo(f"authstore: {error}", err=True)
        sys.exit(1)
