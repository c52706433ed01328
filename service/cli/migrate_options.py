"""The options that the verbs of migrate share, and what they say together."""

import json
import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from protocol.repairs import ALL, Repair
from protocol.types import check_tenant
from service.cli.output import Format
from service.migrate.plan import Options
from service.migrate.report import Folder
from service.migrate.source import Source
from service.migrate.sources import Layout, open_source, settled
from service.store import Caller

From = Annotated[
    str,
    typer.Option(
        "--from",
        help="The source: postgres://…, mysql://…, redis://…, sqlite:PATH, ndjson:PATH, files:PATH or a path alone; "
        "@FILE reads it from a file.",
    ),
]
Sessions = Annotated[
    list[str] | None,
    typer.Option(
        "--session", help="Only this one; may be given again. Of a folder that is one session: its name here."
    ),
]
OneSession = Annotated[str, typer.Option("--session", help="Which session.")]
MapFile = Annotated[
    Path | None, typer.Option("--map", help="TOML or .json: table sessions (there = here), table source (a layout).")
]
Off = Annotated[
    list[Repair] | None,
    typer.Option(
        "--no-repair", metavar="REPAIR", help="Leave out a repair that `migrate plan` names; may be given again."
    ),
]
KeepUnknown = Annotated[bool, typer.Option("--keep-unknown", help="Move rows of types no Baileys release has.")]
SkipExpired = Annotated[bool, typer.Option("--skip-expired", help="Leave rows past their old expiry behind.")]
ReportFolder = Annotated[
    Path | None, typer.Option("--report", help="A folder for report and quarantine; they name ids, files are 0600.")
]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose sessions they become.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Whose sessions they are.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what was written here since, or by others.")]
Takeover = Annotated[bool, typer.Option("--takeover", help="End another writer's lease.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the common options say."""

    spec: str = field(repr=False)
    layout: Layout | None
    options: Options
    only: tuple[str, ...]
    caller: Caller
    folder: Folder
    wants_report: bool
    how: Format

    async def open(self) -> Source:
        return await open_source(self.spec, self.layout)

    def of(self, source: Source) -> "Asked":
        """The same, where one session is asked for of a place that is one session: that is its name here."""
        there = source.only_session
        if there is None or there in self.options.names or len(self.only) != 1 or self.only[0] == there:
            return self
        return replace(self, options=replace(self.options, names={**self.options.names, there: self.only[0]}))


def asked_for(
    spec: str,
    only: list[str] | None,
    mapped: Path | None,
    off: list[Repair] | None,
    tenant: str,
    report: Path | None,
    how: Format,
    *,
    keep_unknown: bool,
    skip_expired: bool,
) -> Asked:
    names, layout = _read_map(mapped)
    options = Options(ALL - frozenset(off or ()), keep_unknown, skip_expired, names)
    folder = report or Path(f"authstore-migrate-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    caller = Caller(check_tenant(tenant), "admin")
    return Asked(
        settled(_read_spec(spec)), layout, options, tuple(only or ()), caller, Folder(folder), report is not None, how
    )


def _read_spec(spec: str) -> str:
    """What ``--from`` says, or the first line of the file it names: a password on a command line is everybody's."""
    if not spec.startswith("@"):
        return spec
    try:
        return Path(spec[1:]).read_text().strip()
    except (OSError, ValueError):
        raise typer.BadParameter("cannot be read", param_hint="--from") from None


def _read_map(path: Path | None) -> tuple[dict[str, str], Layout | None]:
    if path is None:
        return {}, None
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError):
        raise typer.BadParameter("cannot be read as TOML (as JSON when named .json)", param_hint="--map") from None
    if not isinstance(found, dict):
        found = {"": found}
    names = found.get("sessions", {})
    layout = found.get("source")
    if found.keys() - {"sessions", "source"} or not isinstance(layout, dict | None):
        raise typer.BadParameter("has tables [sessions] and [source], nothing else", param_hint="--map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise typer.BadParameter('[sessions] holds lines like "there" = "here"', param_hint="--map")
    return names, layout
