"""migrate plan, copy, verify, cutover, mirror, rollback, list, show."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from protocol.types import check_session_name, check_tenant
from service.cli.migrate_options import (
    Asked,
    From,
    KeepUnknown,
    MapFile,
    Off,
    OfTenant,
    OneSession,
    Overwrite,
    ReportFolder,
    Sessions,
    SkipExpired,
    Takeover,
    Tenant,
    asked_for,
)
from service.cli.output import Format, FormatOption, counted, show, show_one
from service.cli.surroundings import with_store, with_store_as_it_is
from service.errors import BadInput
from service.migrate import cutover as cutting
from service.migrate import mirror as mirroring
from service.migrate import rollback as rolling
from service.migrate.copy import Told, preview
from service.migrate.copy import copy as copy_all
from service.migrate.mirror_state import MirrorState, mirrors
from service.migrate.origin import Origin
from service.migrate.reading import Reading, reading
from service.migrate.report import EXIT, Folder, Report, Unwritten, Verdict
from service.migrate.runs import Run, as_reported, called, list_runs, options_plain, show_run
from service.migrate.source import Source
from service.migrate.summary import summaries
from service.migrate.verify import verify as verify_all
from service.store import AuthStore, Caller
from service.store.tokens import DEFAULT_TENANT

T = TypeVar("T")

_MORE: Final = "ids and every row: --report FOLDER, or --format json"
_MORE_OF_A_RUN: Final = "ids and every row: --format json"

app = typer.Typer(
    help="Moves sessions in from another store, proves every value, cuts over live, and back.", no_args_is_help=True
)


@app.command()
def plan(
    context: typer.Context,
    source: From,
    session: Sessions = None,
    mapped: MapFile = None,
    off: Off = None,
    tenant: Tenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    keep_unknown: KeepUnknown = False,
    skip_expired: SkipExpired = False,
) -> None:
    """Says what a copy would do, and changes nothing anywhere.

    Exit 0: every session would be copied whole, or is here already. 1: the source holds no session, or it, the database or
    a report failed. 2: wrong usage. 3: there is something to decide: rows for the quarantine, a session that would be
    refused or not moved, integrity errors, or a note.
    """
    asked = asked_for(
        source, session, mapped, off, tenant, report, how, keep_unknown=keep_unknown, skip_expired=skip_expired
    )
    folder = asked.folder if asked.wants_report else Folder(None)

    async def work(store: AuthStore | None) -> Report:
        async with _reading(asked) as (told, read):
            with _bar("plan") as progress:
                return await preview(store, told.caller, read, folder, progress)

    _finish(asked, _usage(lambda: with_store_as_it_is(context, work)))


@app.command()
def copy(
    context: typer.Context,
    source: From,
    session: Sessions = None,
    mapped: MapFile = None,
    off: Off = None,
    tenant: Tenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    keep_unknown: KeepUnknown = False,
    skip_expired: SkipExpired = False,
    overwrite: Overwrite = False,
    takeover: Takeover = False,
) -> None:
    """Copies sessions in, each in one transaction; again after any interruption. The source is not touched.

    One bot that keeps itself in a folder of useMultiFileAuthState (auth/, with creds.json in it): stop it; `plan --from auth
    --session NAME` says what will happen; `copy --from auth --session NAME` does it; `verify --from auth --session NAME`
    proves it; then start the bot with the session NAME of this service, and keep the folder until it ran for a while.

    Exit 0: every session is here, every row of it. 1: a session was not copied (the others were), the source holds none,
    or it, the database or a report failed. 2: wrong usage, nothing was done. 3: every session is here, but rows went to the
    quarantine; also when nothing had to be written.
    """
    asked = asked_for(
        source, session, mapped, off, tenant, report, how, keep_unknown=keep_unknown, skip_expired=skip_expired
    )
    take_in(context, asked, Told(overwrite, takeover))


def take_in(context: typer.Context, asked: Asked, told: Told) -> None:
    """Copies what was asked for, shows it, and exits."""

    async def work(store: AuthStore) -> Report:
        async with _reading(asked) as (fitted, read):
            run = await _begin(store, fitted, "copy", read.source)
            with _bar("copy") as progress:
                return await copy_all(run, read, told, asked.folder, progress)

    _finish(asked, _usage(lambda: with_store(context, work)))


@app.command()
def verify(
    context: typer.Context,
    source: From,
    session: Sessions = None,
    mapped: MapFile = None,
    off: Off = None,
    tenant: Tenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    keep_unknown: KeepUnknown = False,
    skip_expired: SkipExpired = False,
) -> None:
    """Reads both sides again and compares every value, both ways. The exit code is the verdict.

    Exit 0: every row of the source is here with the same value, and nothing else. 1: a value differs, a session is not here
    or cannot be read, the source holds none, or it, the database or a report failed. 2: wrong usage. 3: everything that can
    be moved is equal, but the source has rows for the quarantine, or integrity errors that are in both. Repairs alone
    are no findings.
    """
    asked = asked_for(
        source, session, mapped, off, tenant, report, how, keep_unknown=keep_unknown, skip_expired=skip_expired
    )

    async def work(store: AuthStore) -> Report:
        async with _reading(asked) as (told, read):
            run = await _begin(store, told, "verify", read.source)
            with _bar("verify") as progress:
                return await verify_all(run, read, progress)

    _finish(asked, _usage(lambda: with_store(context, work)))


@app.command()
def cutover(
    context: typer.Context,
    source: From,
    session: OneSession,
    mapped: MapFile = None,
    off: Off = None,
    tenant: Tenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    keep_unknown: KeepUnknown = False,
    skip_expired: SkipExpired = False,
    overwrite: Overwrite = False,
    takeover: Takeover = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Write every later commit back to the source.")] = False,
    stopped: Annotated[bool, typer.Option("--old-writer-stopped", help="It is; do not wait for stillness.")] = False,
    still: Annotated[float, typer.Option(min=0.5, help="Seconds the source must stand still.")] = 5.0,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for that at most.")] = 600.0,
    watch: Annotated[float, typer.Option(min=0, help="Seconds to watch both sides afterwards.")] = 10.0,
) -> None:
    """Moves one living session: copies what changed since, verifies, opens it here, proves it. Prints the downtime.

    Exit 0: it is open here, equal, and what is written arrives. 1: it was not moved, since it was refused or the source or the
    database failed; or, where the report says cut-over, it is open here and THE SOURCE STILL CHANGES or could not be watched.
    2: wrong usage, nothing was done. 3: it is open here; rows went to the quarantine, integrity errors are in both, or
    nothing was written here yet.
    """
    asked = asked_for(
        source, [session], mapped, off, tenant, report, how, keep_unknown=keep_unknown, skip_expired=skip_expired
    )
    if not stopped and wait <= still:
        raise typer.BadParameter(
            f"the source must stand still for {still:g} s (--still), which takes longer than {wait:g} s",
            param_hint="--wait",
        )
    chosen = cutting.Cutover(stopped, still, wait, watch, mirror, Told(overwrite, takeover))

    async def work(store: AuthStore) -> Report:
        async with await asked.open() as opened:
            told = asked.of(opened)
            async with reading(opened, told.options, told.only) as read:
                name = _named(session, read.names, told.options.names)
            run = await _begin(store, told, "cutover", opened, mirror=mirror)
            origin = Origin(told.spec, name, told.options, told.layout)
            return await cutting.cutover(run, opened, origin, chosen, told.folder, _say)

    _finish(asked, _usage(lambda: with_store(context, work)))


@app.command()
def rollback(
    context: typer.Context,
    session: OneSession,
    source: Annotated[
        str | None, typer.Option("--from", help="The source, when the cutover's is not remembered.")
    ] = None,
    mapped: MapFile = None,
    tenant: OfTenant = DEFAULT_TENANT,
    report: ReportFolder = None,
    how: FormatOption = Format.table,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="What is here wins over the source.")] = False,
) -> None:
    """Gives a session back to the store it came from, with everything committed here since. Ends every lease here, once
    nothing that can be seen without speaks against it.

    Exit 0: the old store has it, equal, or it was given back before and nothing here is newer. 1: it stays where it is: the
    source was written by others, lost it, cannot be written or read back, or differs, or the session was written here
    meanwhile. 2: wrong usage, nothing was done. 3 is not used.
    """
    asked = asked_for(
        source or "", [session], mapped, None, tenant, report, how, keep_unknown=False, skip_expired=False
    )

    async def work(store: AuthStore) -> Report:
        name, chosen = check_session_name(session), rolling.Rollback(overwrite)
        origin = await _origin(store, asked, name)
        if origin is None:
            return await _without_source(store, asked, name, chosen)
        async with await origin.open() as opened:
            if asked.spec and opened.only_session is not None:
                origin = replace(origin, session=opened.only_session, options=asked.of(opened).options)
            run = await _begin(store, replace(asked, options=origin.options), "rollback", opened)
            return await rolling.rollback(run, opened, origin, name, chosen)

    _finish(asked, _usage(lambda: with_store(context, work)))


@app.command()
def mirror(
    context: typer.Context,
    session: Annotated[str | None, typer.Option("--session", help="Only this one.")] = None,
    tenant: OfTenant = DEFAULT_TENANT,
    carry: Annotated[bool, typer.Option("--carry", help="Carry what waits over now; serving does it anyway.")] = False,
    how: FormatOption = Format.table,
) -> None:
    """Tells how far each mirror is behind its source, and what keeps it.

    Exit 0: no commit waits. 1: the source or the database failed. 2: wrong usage. 3: some wait.
    """
    caller = Caller(check_tenant(tenant), "admin")

    async def work(store: AuthStore) -> list[MirrorState]:
        if carry:
            carried = await mirroring.drain(store, caller, session)
            typer.echo(f"{counted(carried, 'commit')} carried over", err=True)
        return await mirrors(store, caller, session)

    states = with_store(context, work)
    if states or how is Format.json:
        show([each.row() for each in states], how)
    else:
        typer.echo("no mirror is on" if session is None else "this session has no mirror")
    sys.exit(3 if any(each.commits for each in states) else 0)


@app.command("list")
def list_all(context: typer.Context, tenant: OfTenant = DEFAULT_TENANT, how: FormatOption = Format.table) -> None:
    """The tenant's runs, newest first."""
    caller = Caller(check_tenant(tenant), "admin")
    show([_plain(row) for row in with_store(context, lambda store: list_runs(store, caller))], how)


@app.command("show")
def show_one_run(
    context: typer.Context,
    run: Annotated[UUID, typer.Argument(help="The run's id.")],
    tenant: OfTenant = DEFAULT_TENANT,
    how: FormatOption = Format.table,
) -> None:
    """What a run did to each session. As JSON with every detail: it names ids."""
    caller = Caller(check_tenant(tenant), "admin")
    rows = with_store(context, lambda store: show_run(store, caller, run))
    if how is Format.json:
        show([_plain(row) for row in rows], how)
        return
    sessions = [as_reported(row) for row in rows]
    show([_columns(each) for each in sessions], how)
    _echo(summaries(sessions, more=_MORE_OF_A_RUN))


@asynccontextmanager
async def _reading(asked: Asked) -> AsyncIterator[tuple[Asked, Reading]]:
    """What is asked of the source, and that of it."""
    async with await asked.open() as opened:
        told = asked.of(opened)
        async with reading(opened, told.options, told.only) as read:
            yield told, read


async def _begin(store: AuthStore, asked: Asked, verb: str, source: Source, **more: object) -> Run:
    return await Run.begin(store, asked.caller, verb, called(source), options_plain(asked.options) | more)


def _named(session: str, found: Sequence[str], names: Mapping[str, str]) -> str:
    """The one session that is meant, by its name at the source. Where a map swaps names, the name here counts, as it does
    in every other command."""
    here = [name for name in found if names.get(name, name) == session]
    name = (here or found)[0]
    if len(found) > 1:
        _say(f"{name} at the source becomes {names.get(name, name)} here")
    return name


async def _origin(store: AuthStore, asked: Asked, name: str) -> Origin | None:
    if asked.spec:
        named = {here: there for there, here in asked.options.names.items()}
        return Origin(asked.spec, named.get(name, name), asked.options, asked.layout)
    kept = await store.mirrors.origin(asked.caller, name)
    return None if kept is None else Origin.decode(kept)


async def _without_source(store: AuthStore, asked: Asked, name: str, chosen: rolling.Rollback) -> Report:
    given = await rolling.remembered_as_given(store, asked.caller, name)
    if given is None:
        raise BadInput("nothing is remembered of where this session came from: give --from", pointer="--from")
    run = await Run.begin(store, asked.caller, "rollback", given.source, options_plain(asked.options))
    return await rolling.give_back_again(run, name, given, chosen)


def _usage(work: Callable[[], T]) -> T:
    """A wrong option is a usage error, whoever noticed."""
    try:
        return work()
    except BadInput as error:
        if (error.pointer or "").startswith("--"):
            raise typer.BadParameter(error.detail, param_hint=error.pointer) from None
        raise


def _finish(asked: Asked, report: Report) -> None:
    unwritten = _write_report(asked, report)
    if asked.how is Format.json:
        show_one(report.plain(), asked.how)
    else:
        show([each.row() for each in report.sessions], asked.how)
        more = "" if asked.wants_report else _MORE
        _echo(summaries([asdict(each) for each in report.sessions], more=more))
        for note in report.notes:
            typer.echo(f"note: {note}")
        keys = sum(each.keys for each in report.sessions)
        downtime = [each.facts["downtime_s"] for each in report.sessions if "downtime_s" in each.facts]
        down = f", down for {downtime[0]} s" if downtime else ""
        typer.echo(f"{report.verb}: {report.verdict}, {keys} keys in {report.took_s:.1f} s{down}")
        if asked.folder.written:
            typer.echo(asked.folder.says, err=True)
    if unwritten is not None:
        typer.echo(f"{unwritten}; the run itself ended as shown", err=True)
    sys.exit(EXIT[report.verdict if unwritten is None else Verdict.failed])


def _write_report(asked: Asked, report: Report) -> str | None:
    """Why it could not be written: what was done is shown all the same."""
    try:
        if asked.wants_report:
            asked.folder.report(report)
    except Unwritten as error:
        return error.detail
    return None


def _columns(each: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a run of the past, whose details may be gone."""
    differences = each["differences"]
    return {
        "session": each["session"],
        "at the source": each["at the source"],
        "outcome": each["outcome"],
        "version": each["version"],
        "at": each["at"],
        "keys": sum(each["by_type"].values()),
        "repaired": sum(each["repairs"].values()),
        "quarantined": sum(each["quarantined"].values()),
        "expired": each["expired"],
        "differences": len(differences) if isinstance(differences, list) else differences,
        "integrity": "-" if each.get("integrity") is None else len(each["integrity"]),
        "says": each.get("says"),
    }


def _echo(lines: Sequence[str]) -> None:
    for line in filter(None, lines):
        typer.echo(line)


def _say(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(verb)
        yield lambda done, every: progress.update(task, completed=done, total=every)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, UUID) else value for name, value in row.items()}
