"""key rotate, status."""

import sys
from dataclasses import asdict

import typer

from service import first_secrets
from service.cli.output import Format, FormatOption, show
from service.cli.surroundings import settings_of, with_store
from service.store import keyring

app = typer.Typer(help="Master keys.", no_args_is_help=True)


@app.command()
def rotate(context: typer.Context) -> None:
    """Wraps every session's data key by the current master key, beside a running service.

    With the data folder's own key a new one is made first; the old one stays behind it in the file. With configured keys
    put the new one before the old one (AUTHSTORE_MASTER_KEY="new,old" or two lines of AUTHSTORE_MASTER_KEY_FILE), restart,
    then run this. An old key may go when `authstore key status` no longer shows it in use. Exit 3 when data keys do not
    open: they stay under their old key.
    """
    settings = settings_of(context)
    made = None if settings.master_keys else first_secrets.add_master_key(settings)
    done = with_store(context, lambda store: keyring.rewrap(store.database, store.masters))
    typer.echo(f"{done.wrapped} data keys wrapped by the current master key")
    if made is not None:
        typer.echo(f"a new key stands first in {made}: copies of that file made before do not open what is stored now")
    if done.broken:
        typer.echo(f"authstore: {done.broken} data keys do not open and stay under their old key", err=True)
        sys.exit(3)


@app.command("status")
def key_status(context: typer.Context, how: FormatOption = Format.table) -> None:
    """The master keys this database knows, by fingerprint."""
    rows = with_store(context, lambda store: keyring.status(store.database, store.masters))
    show([asdict(row) for row in rows], how)
