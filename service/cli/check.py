"""check: is a session whole, and can it be mended."""

import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from protocol.printable import printable
from protocol.rules import Finding
from protocol.types import check_session_name, check_tenant
from service.cli.output import Format, FormatOption, counted
from service.cli.surroundings import with_store
from service.errors import Deleted, LeaseHeld, NoSession, VersionMismatch
from service.integrity import Report, check_session, repair
from service.integrity.sweep import Begun, Stray, sweep
from service.store import AuthStore, Caller
from service.store.tokens import DEFAULT_TENANT

_FINDINGS = 3
_LINES_OF_A_RULE = 50


def check(
    context: typer.Context,
    session: Annotated[str | None, typer.Argument(help="The session's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session; goes on where it was cut off.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Make the exact repairs, after showing them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make them without asking.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put back what the last repair replaced.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="With --all: from the start again.")] = False,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Whose sessions; --all without it: everybody's.")
    ] = None,
    how: FormatOption = Format.table,
) -> None:
    """Judges every row of a session, and all of them together; exit 3 with findings.

    A repair takes the session's lease: stop its owner first. What it replaces is archived; --undo puts back what nobody
    wrote since, and leaves the rest alone (exit 3).
    """
    if undo and (session is None or everything or fix):
        raise typer.BadParameter("--undo needs the name of one session, and goes with neither --all nor --fix")
    if (session is None) != everything:
        raise typer.BadParameter("name a session, or give --all")
    mender = _Mender(fix=fix, sure=yes)
    if everything:
        whose = None if tenant is None else check_tenant(tenant)
        found = with_store(context, lambda store: _all(store, whose, mender, how, restart=restart))
    else:
        caller, name = Caller(check_tenant(tenant or DEFAULT_TENANT), "admin"), check_session_name(session or "")
        if undo:
            sys.exit(_undo(with_store(context, lambda store: repair.undo(store, caller, name))))
        found = with_store(context, lambda store: _one(store, caller, name, mender, how))
    sys.exit(_FINDINGS if found else 0)


class _Mender:
    """Shows repairs, asks, and makes them."""

    def __init__(self, *, fix: bool, sure: bool) -> None:
        self.wanted = fix
        self._sure = sure

    async def mend(self, store: AuthStore, report: Report) -> Report:
        """The report after what could be mended was; the same when nothing was."""
        caller = Caller(report.tenant, "admin")
        _, plan = await repair.plan(store, caller, report.session)
        if not plan.steps:
            return report
        for step in plan.steps:
            typer.echo(f"repair of {report.session}: {_named(step.ktype, step.key_id)}: {step.does}", err=True)
        if not (self._sure or typer.confirm("Make these repairs?", err=True)):
            return report
        try:
            return await repair.mend(store, caller, plan)
        except LeaseHeld as error:
            typer.echo(f"{report.session} is in use by {error.holder}: stop it first", err=True)
        except VersionMismatch as error:
            typer.echo(f"{report.session}: {error}", err=True)
        return report


def _undo(done: repair.Undone) -> int:
    """Says what was undone; the exit code."""
    for ktype, key_id in done.left:
        typer.echo(f"left alone, since it is not what the repair wrote: {_named(ktype, key_id)}", err=True)
    typer.echo(f"{counted(done.back, 'row')} put back")
    return _FINDINGS if done.left else 0


async def _one(store: AuthStore, caller: Caller, name: str, mender: _Mender, how: Format) -> bool:
    report = await check_session(store, caller, name)
    if mender.wanted:
        report = await mender.mend(store, report)
    _Shown().print(report, how, indent=2)
    return bool(report.rules)


async def _all(store: AuthStore, tenant: str | None, mender: _Mender, how: Format, *, restart: bool) -> bool:
    before, sessions, errors, warnings = 0, 0, 0, 0
    shown = _Shown()
    walk = sweep(store, tenant, restart=restart, then=lambda report: _mended(store, mender, report))
    async with aclosing(_advancing(walk)) as found:
        async for each in found:
            if isinstance(each, Begun):
                before, sessions, errors, warnings = each.done, each.done, each.errors, each.warnings
                continue
            if isinstance(each, Stray):
                errors += 1
                _print_stray(each, how)
                continue
            sessions, errors, warnings = sessions + 1, errors + each.errors, warnings + each.warnings
            if each.rules or how is Format.json:
                shown.print(each, how)
    earlier = f", {before} of them before it was cut off" if before else ""
    said = (
        f"{counted(sessions, 'session')} checked{earlier}: {counted(errors, 'error')}, {counted(warnings, 'warning')}"
    )
    typer.echo(said, err=how is Format.json)
    return errors + warnings > 0


async def _mended(store: AuthStore, mender: _Mender, report: Report) -> Report:
    """One of all: what goes wrong with its repair is said, and does not keep the others from theirs."""
    if not (mender.wanted and report.rules):
        return report
    try:
        return await mender.mend(store, report)
    except (typer.Abort, NoSession, Deleted):
        raise
    except Exception as error:
        typer.echo(f"{report.session}: not repaired ({type(error).__name__})", err=True)
        return report


async def _advancing(found: AsyncIterator[Begun | Report | Stray]) -> AsyncGenerator[Begun | Report | Stray, None]:
    """What is found, with a bar on a terminal."""
    with _bar() as bar:
        task = bar.add_task("sessions", total=None)
        async for each in found:
            if isinstance(each, Begun):
                bar.update(task, total=each.done + each.left, completed=each.done)
                if each.done:
                    typer.echo(
                        f"going on after {counted(each.done, 'session')} with {counted(each.errors, 'error')}, "
                        f"{counted(each.warnings, 'warning')}; --restart begins again and shows them",
                        err=True,
                    )
            elif isinstance(each, Report):
                bar.advance(task)
            yield each


@contextmanager
def _bar() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


class _Shown:
    """How much was printed of each rule: what thousands of sessions or rows have in common is printed a few times."""

    def __init__(self) -> None:
        self._lines: Counter[str] = Counter()

    def print(self, report: Report, how: Format, indent: int | None = None) -> None:
        if how is Format.json:
            typer.echo(json.dumps(_plain(report), indent=indent))
            return
        typer.echo(
            f"{report.session}: version {report.version}, {counted(report.checked, 'row')}, "
            f"{counted(report.errors, 'error')}, {counted(report.warnings, 'warning')}"
        )
        here: Counter[str] = Counter()
        for each in report.findings:
            if self._lines[each.rule] < _LINES_OF_A_RULE:
                _print_finding(each, explain=not here[each.rule])
                self._lines[each.rule] += 1
                here[each.rule] += 1
        for rule, count in report.rules.items():
            if more := count - here[rule]:
                typer.echo(f"  {more}{' more' if here[rule] else ''} of {rule}; --format json shows each")


def _print_finding(each: Finding, *, explain: bool) -> None:
    # Lines, not a table: an id must not be cut to the width of a terminal.
    detail = "" if explain or not each.detail else f" ({printable(each.detail)})"
    typer.echo(f"  {each.severity} {each.rule}: {_named(each.ktype, each.key_id) or 'the session'}{detail}")
    if explain:
        typer.echo(f"    {printable(each.message)}")


def _named(ktype: str, key_id: str) -> str:
    return printable(f"{ktype} {key_id}".strip())


def _print_stray(stray: Stray, how: Format) -> None:
    finding = stray.finding
    if how is Format.json:
        shown = {"tenant": stray.tenant, "session": stray.name, "rule": finding.rule, "message": finding.message}
        typer.echo(json.dumps({"stray": shown}))
        return
    typer.echo(f"{stray.name}: {finding.rule}: {finding.message}")


def _plain(report: Report) -> dict[str, Any]:
    return {
        "tenant": report.tenant,
        "session": report.session,
        "version": report.version,
        "checked": report.checked,
        "errors": report.errors,
        "warnings": report.warnings,
        "findings": [
            {
                "rule": each.rule,
                "severity": each.severity,
                "type": each.ktype,
                "id": each.key_id,
                "message": each.message,
                **({"repair": each.repair} if each.repair else {}),
            }
            for each in report.findings
        ],
    }
