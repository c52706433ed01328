"""serve."""

import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service import process
from service.cli.surroundings import settings_of
from service.config import load_settings


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen.")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes.")] = None,
    unix_socket: Annotated[Path | None, typer.Option(help="Listen here too.")] = None,
) -> None:
    """Runs the service in the foreground until SIGTERM or SIGINT."""
    # Until the loop listens for signals: a KeyboardInterrupt can be raised, and lost, where Python ignores exceptions.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    context.obj |= {"host": host, "port": port, "workers": workers, "unix_socket": unix_socket}
    process.run(settings_of(context), partial(load_settings, **context.obj))
