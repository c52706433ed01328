"""schema apply, status."""

import asyncio
import sys

import typer

from service.cli.surroundings import database_url, settings_of
from service.sql import schema
from service.sql.pool import Database

app = typer.Typer(help="The database schema.", no_args_is_help=True)


@app.command()
def apply(context: typer.Context) -> None:
    """Brings the schema up to date; serving does the same at start."""
    for name in _run(context, change=True) or ["nothing to apply"]:
        typer.echo(name)


@app.command()
def status(context: typer.Context) -> None:
    """Names migrations not applied yet; exit 3 when there are some."""
    missing = _run(context, change=False)
    typer.echo("\n".join(missing) or "up to date")
    sys.exit(3 if missing else 0)


def _run(context: typer.Context, *, change: bool) -> list[str]:
    settings = settings_of(context)
    with database_url(settings) as url:
        return asyncio.run(_ask(url, pooled=settings.pooler == "transaction", change=change))


async def _ask(url: str, *, pooled: bool, change: bool) -> list[str]:
    database = Database(url, pooled=pooled)
    await database.open()
    try:
        async with database.connection() as connection:
            await schema.check_server(connection)
            return await (schema.apply(connection) if change else schema.pending(connection))
    finally:
        await database.close()
