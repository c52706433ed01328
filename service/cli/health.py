"""health: asked every few seconds where containers run, so it imports nothing of the store."""

import sys
from typing import Annotated

import typer

from service.cli import asking
from service.config import load_settings


def health(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="Ask this address, whatever the settings and the folder say.")] = None,
) -> None:
    """Asks the running service whether it is ready; exit 0 or 1.

    The service is that of the data folder, wherever it listens, unless host, port or unix socket are set.
    """
    settings = load_settings(**context.obj)
    if url is not None and not asking.is_place(url):
        raise typer.BadParameter("must begin with http:// or https:// and name a host", param_hint="--url")
    try:
        place = url or asking.place_of(settings)
        body = asking.readiness(settings, place, own=url is None)
    except asking.NoService:
        typer.echo(
            f"no service runs on {settings.data_dir.absolute()}: --data-dir names another folder, --url an address",
            err=True,
        )
        sys.exit(1)
    except asking.NoAnswer:
        typer.echo(f"no answer from {place}", err=True)
        sys.exit(1)
    typer.echo(f"{body.get('reason', body['status'])} ({place})")
    sys.exit(0 if body["status"] == "ok" else 1)
