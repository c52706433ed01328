"""export and import: sessions out of the store, and back in."""

import json
import sys
from contextlib import aclosing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from protocol.repairs import Repair
from protocol.types import check_session_name, check_tenant
from service.cli import migrate
from service.cli.migrate_options import MapFile, Overwrite, ReportFolder, Sessions, Takeover, Tenant, asked_for
from service.cli.output import Format, FormatOption, counted
from service.cli.sessions import TenantOption
from service.cli.surroundings import with_store
from service.errors import BadInput
from service.integrity.diagnose import diagnose
from service.migrate.copy import Told
from service.migrate.export import Exported, every_session, export_file, export_folder, export_lines
from service.store import AuthStore, Caller
from service.store.tokens import DEFAULT_TENANT


class As(StrEnum):
    """The forms of an export."""

    ndjson = "ndjson"  # lines of JSON: everything, as it is stored
    files = "files"  # what useMultiFileAuthState opens


def export(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="The sessions' names.", metavar="NAME...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session of the tenant.")] = False,
    form: Annotated[As, typer.Option("--as", help="Lines of JSON, or folders that Baileys opens.")] = As.ndjson,
    diagnosis: Annotated[
        bool, typer.Option("--diagnose", help="One, for a bug report: every value replaced by lengths and digests.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="What to make; standard output for lines unless told.")] = None,
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Writes sessions with all their secrets: as lines of JSON, or as multi-file folders. ``import`` takes both.

    As files, one session named alone is the folder itself, as Baileys opens it: `import FOLDER --session NAME` gives it its
    name back. With --all, or several, each is a folder of its name in that folder.

    Exit 0: every session is there. 1: nothing was made, since a session that was named or the database failed. 2: wrong usage.
    3: with --all, sessions that cannot be read are named and left out; what was made is whole for the others.
    """
    caller = Caller(check_tenant(tenant), "admin")
    sessions = [check_session_name(name) for name in dict.fromkeys(names or ())]
    if everything is bool(sessions) or (diagnosis and len(sessions) != 1):
        raise typer.BadParameter("names of sessions, or --all; one name for --diagnose", param_hint="NAME")
    if diagnosis:
        _diagnose(context, caller, sessions[0], output)
        return
    if form is As.files and output is None:
        raise typer.BadParameter("where to make the folder is told by --output", param_hint="--output")

    async def work(store: AuthStore) -> Exported:
        chosen = await every_session(store, caller) if everything else sessions
        done = Exported(all_or_none=not everything)
        for name in sessions:
            await store.show(caller, name)  # before a first line is out
        if output is None:
            return await export_lines(store, caller, chosen, sys.stdout.buffer, done)
        if form is As.ndjson:
            return await export_file(store, caller, chosen, output, done)
        return await export_folder(store, caller, chosen, output, done, alone=len(sessions) == 1)

    try:
        done = with_store(context, work)
    except BadInput as error:
        raise typer.BadParameter(error.detail, param_hint=error.pointer) from None
    _tell(done)
    if form is As.files and len(sessions) == 1 and output is not None and output.name != sessions[0]:
        typer.echo(f"the folder does not say whose it is: import it with --session {sessions[0]}", err=True)


def _tell(done: Exported) -> None:
    for name, why in done.failed.items():
        typer.echo(f"{name} was left out: {why}", err=True)
    typer.echo(f"{counted(done.sessions, 'session')}, {counted(done.keys, 'key')}", err=True)
    if done.failed:
        sys.exit(3)


def import_(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            help="What export made, or any folder of useMultiFileAuthState; files: or ndjson: may stand before it."
        ),
    ],
    session: Sessions = None,
    mapped: MapFile = None,
    tenant: Tenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    quarantine_unknown: Annotated[
        bool, typer.Option("--quarantine-unknown", help="Leave keys behind whose type no Baileys release has.")
    ] = False,
    overwrite: Overwrite = False,
    takeover: Takeover = False,
) -> None:
    """Takes sessions in from lines (values as they are) or from multi-file folders, as ``migrate copy`` does.

    A folder with creds.json in it is one session, and has its folder's name here unless --session gives it another.

    Exit 0: every session is here, every row of it. 1: a session was not taken in (the others were), there is none, or the
    files, the database or a report failed. 2: wrong usage, nothing was done. 3: every session is here, but rows went to the
    quarantine; also when nothing had to be written.
    """
    form, place = _form(path)
    lines = form is As.ndjson
    asked = asked_for(
        f"{form}:{place}",
        session,
        mapped,
        list(Repair) if lines else None,
        tenant,
        report,
        how,
        keep_unknown=not quarantine_unknown,
        skip_expired=False,
    )
    # Lines are our own: what was kept comes back, whether or not it is anything that Baileys would read.
    asked = replace(asked, options=replace(asked.options, verbatim=lines))
    migrate.take_in(context, asked, Told(overwrite, takeover))


def _form(path: str) -> tuple[As, str]:
    """What kind it is, and its path. A scheme before it is taken where no such file is there."""
    scheme, colon, rest = path.partition(":")
    place = rest if colon and scheme in set(As) and not Path(path).exists() else path
    if not Path(place).exists():
        raise typer.BadParameter("there is no such file or folder", param_hint="PATH")
    return As.files if Path(place).is_dir() else As.ndjson, place


def _diagnose(context: typer.Context, caller: Caller, session: str, output: Path | None) -> None:
    if output is None:
        with_store(context, lambda store: _write(store, caller, session, sys.stdout))
        return
    with output.open("x", encoding="utf-8") as out:
        with_store(context, lambda store: _write(store, caller, session, out))


async def _write(store: AuthStore, caller: Caller, name: str, out: TextIO) -> None:
    async with aclosing(diagnose(store, caller, name)) as lines:
        async for line in lines:
            out.write(json.dumps(line) + "\n")
