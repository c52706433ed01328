"""token create, list, revoke."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from service.cli.output import Format, FormatOption, show
from service.cli.surroundings import with_store
from service.errors import BadInput
from service.store.caller import Scope
from service.store.tokens import DEFAULT_TENANT

app = typer.Typer(help="Bearer tokens.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Whose sessions it opens.")] = DEFAULT_TENANT,
    scope: Annotated[Scope, typer.Option(help="read sees, write also changes, admin also reads /metrics.")] = "write",
    label: Annotated[str, typer.Option(help="To recognize it in lists.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="How long it lives; for ever unless told.")] = None,
) -> None:
    """Makes a token and prints it, this once."""
    lifetime = None if days is None else timedelta(days=days)
    typer.echo(with_store(context, lambda store: store.tokens.create(tenant, scope, label, lifetime)))


@app.command("list")
def list_tokens(context: typer.Context, how: FormatOption = Format.table) -> None:
    """Every token made, never its secret."""
    show([asdict(row) for row in with_store(context, lambda store: store.tokens.list())], how)


@app.command()
def revoke(context: typer.Context, token_id: Annotated[str, typer.Argument(help="The id that `list` shows.")]) -> None:
    """Ends a token; running services refuse it within a second."""
    if not with_store(context, lambda store: store.tokens.revoke(token_id)):
        raise BadInput("there is no such token, or it is revoked already")
