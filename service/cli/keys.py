"""key rotate, status."""

import sys
from dataclasses import asdict

import typer

from service import first_secrets
from service.cli.output import Format, FormatOption, counted, show
from service.cli.surroundings import settings_of, with_store
from service.config import Settings
from service.store import AuthStore, keyring

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
    done = with_store(context, lambda store: _rotated(settings, store))
    typer.echo(f"{counted(done.wrapped, 'data key')} wrapped by the current master key")
    if done.broken:
        typer.echo(
            f"authstore: {counted(done.broken, 'data key')} could not be opened: left under the old key", err=True
        )
        sys.exit(3)


async def _rotated(settings: Settings, store: AuthStore) -> keyring.Rotated:
    """The key file changes only once the store is open, and that is said at once: a running service uses the new key."""
    if not settings.master_keys:
        made = first_secrets.add_master_key(settings)
        typer.echo(f"a new key stands first in {made}: copies of that file made before do not open what is stored now")
        store.masters.refresh()
    return await keyring.rewrap(store.database, store.masters)


@app.command("status")
def key_status(context: typer.Context, how: FormatOption = Format.table) -> None:
    """The master keys this database knows, by fingerprint."""
    rows = with_store(context, lambda store: keyring.status(store.database, store.masters))
    show([asdict(row) for row in rows], how)
