"""What a run found and did: for the terminal, as JSON, as a page to read, and the quarantine beside them.

Reports name ids of keys, which hold phone numbers, and a quarantine holds values: files are made 0600 in a folder made
0700, and nothing of it goes to the log.
"""

import base64
import html
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from service.errors import ServiceError
from service.migrate.plan import Name, Quarantined, SessionPlan

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class Unwritten(ServiceError):
    """A file of the run cannot be written."""


class Verdict(StrEnum):
    """How a run or a session ended; the exit codes 0, 3 and 1."""

    good = "good"
    findings = "findings"
    failed = "failed"


EXIT: Final = {Verdict.good: 0, Verdict.findings: 3, Verdict.failed: 1}


@dataclass(frozen=True, slots=True)
class Listed:
    """A row that is named in a report: why, and where it stands at the source."""

    why: str
    type: str
    id: str = field(repr=False)
    where: str = field(default="", repr=False)


@dataclass(slots=True)
class SessionReport:
    """One session. ``outcome`` is a word; ``says`` a sentence for people; ``took_s`` the seconds spent on it."""

    session: str
    source_name: str
    outcome: str = ""
    verdict: Verdict = Verdict.good
    says: str = ""
    version: int | None = None
    digest: str | None = None
    keys: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    spellings: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, dict[str, int]] = field(default_factory=dict)  # the same by type; "" is the creds
    twins: int = 0
    expired: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    quarantine: list[Listed] = field(default_factory=list)
    differences: list[Listed] = field(default_factory=list)
    integrity: list[dict[str, Any]] | None = None  # None: the rules were not asked
    facts: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    def settle(self, outcome: str, verdict: Verdict, says: str = "") -> "SessionReport":
        """Says how it ended."""
        self.outcome, self.verdict, self.says = outcome, verdict, says
        return self

    def row(self) -> dict[str, Any]:
        """The columns of a terminal's table."""
        return {
            "session": self.session,
            "outcome": self.outcome,
            "keys": self.keys,
            "repaired": sum(self.repairs.values()),
            "quarantined": sum(self.quarantined.values()),
            "expired": self.expired,
            "differences": len(self.differences),
            "integrity": "-" if self.integrity is None else len(self.integrity),
            "says": self.says,
        }


@dataclass(slots=True)
class Report:
    """A whole run."""

    verb: str
    source: str
    tenant: str
    run: str | None = None
    by: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    sessions: list[SessionReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """That of the worst session; without any session nothing was done, which is no success."""
        verdicts = {each.verdict for each in self.sessions}
        if Verdict.failed in verdicts or not verdicts:
            return Verdict.failed
        return Verdict.findings if Verdict.findings in verdicts or self.notes else Verdict.good

    def plain(self) -> dict[str, Any]:
        """As JSON members; members of a session first those that matter most."""
        return {"verdict": self.verdict, "exit": EXIT[self.verdict], **asdict(self)}


def begin_session(plan: SessionPlan) -> SessionReport:
    """A report that says what the plan found."""
    repaired: dict[str, dict[str, int]] = {}
    for (repair, ktype), count in sorted(plan.repairs.items()):
        repaired.setdefault(repair, {})[ktype] = count
    quarantined: dict[str, int] = {}
    for each in plan.quarantine:
        quarantined[each.why] = quarantined.get(each.why, 0) + 1
    return SessionReport(
        plan.name,
        plan.source_name,
        keys=sum(plan.by_type.values()),
        by_type=plan.by_type,
        spellings=dict(sorted(plan.spellings.items())),
        repairs={repair: sum(types.values()) for repair, types in repaired.items()},
        repaired=repaired,
        twins=plan.twins,
        expired=plan.expired,
        quarantined=dict(sorted(quarantined.items())),
        quarantine=[Listed(each.why, each.ktype, each.key_id, each.where) for each in plan.quarantine],
    )


def differences(wanted: Mapping[Name, bytes], there: Mapping[Name, bytes]) -> list[Listed]:
    """Digests compared both ways: ``missing`` here, ``extra`` here, ``differs``."""
    missing = [Listed("missing", *name) for name in sorted(wanted.keys() - there.keys())]
    extra = [Listed("extra", *name) for name in sorted(there.keys() - wanted.keys())]
    both = sorted(wanted.keys() & there.keys())
    return missing + extra + [Listed("differs", *name) for name in both if wanted[name] != there[name]]


class Folder:
    """Where the files of a run go, made when the first is written; None: nowhere."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.written = False

    def quarantine(self, session: str, rows: Iterable[Quarantined]) -> None:
        """Appends rows to ``quarantine.ndjson``: everything needed to put one back by hand."""
        lines = [json.dumps(_quarantined(session, row)) + "\n" for row in rows]
        if lines:
            self._write("quarantine.ndjson", "".join(lines), os.O_APPEND)

    def report(self, report: Report) -> None:
        """Writes ``report.json`` and ``report.html``."""
        self._write("report.json", json.dumps(report.plain(), default=str, indent=2) + "\n", os.O_TRUNC)
        self._write("report.html", page(report), os.O_TRUNC)

    @property
    def says(self) -> str:
        """Where the files are and what they hold, for the operator."""
        where = "" if self.path is None else self.path.absolute()
        return f"files in {where}: they name ids, and a quarantine holds secrets; delete them when done"

    def _write(self, name: str, text: str, how: int) -> None:
        if self.path is None:
            return
        try:
            self.path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, _FILE_MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
                os.fchmod(descriptor, _FILE_MODE)  # one that was there may be anybody's to read
                file.write(text)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise Unwritten(
                f"{name} cannot be written there as a file of yours alone ({why}): name a folder with --report"
            ) from None
        self.written = True


def page(report: Report) -> str:
    """The report as one static HTML page."""
    sessions = "".join(_session(each) for each in report.sessions)
    notes = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
    facts = {
        "verdict": report.verdict,
        "source": report.source,
        "tenant": report.tenant,
        "run": report.run,
        "by": report.by,
        "began": report.started_at,
        "ended": report.ended_at,
        "sessions": len(report.sessions),
        "keys": sum(each.keys for each in report.sessions),
        "seconds": round(report.took_s, 2),
    }
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>migrate {_text(report.verb)}</title>'
        f"<style>{_STYLE}</style>"
        f"<h1>migrate {_text(report.verb)}</h1>{_facts(facts)}{f'<ul>{notes}</ul>' if notes else ''}{sessions}</html>\n"
    )


_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #bbb;padding:.15rem .5rem;text-align:left}"
    "h2{margin-top:2rem}.failed{color:#a00}.findings{color:#850}.good{color:#060}"
)


def _session(each: SessionReport) -> str:
    facts = {
        "outcome": each.outcome,
        "says": each.says,
        "at the source": each.source_name,
        "version here": each.version,
        "digest": each.digest,
        "keys": each.keys,
        **{f"keys {name}": count for name, count in each.by_type.items()},
        **{f"spelling {name}": count for name, count in each.spellings.items()},
        **{f"repair {name}": count for name, count in each.repairs.items()},
        "mis-typed twins": each.twins,
        "past their old expiry": each.expired,
        **{name.replace("_", " "): value for name, value in each.facts.items()},
    }
    return (
        f'<h2 class="{each.verdict}">{_text(each.session)}</h2>{_facts(facts)}'
        f"{_listed('Differences', each.differences)}{_listed('Quarantine', each.quarantine)}{_findings(each.integrity or [])}"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{_text(name)}<td>{_text(value)}"
        for name, value in facts.items()
        if value is not None and value != "" and (value or isinstance(value, bool))
    )
    return f"<table>{rows}</table>"


def _listed(title: str, rows: list[Listed]) -> str:
    if not rows:
        return ""
    body = "".join(f"<tr><td>{_text(r.why)}<td>{_text(r.type)}<td>{_text(r.id)}<td>{_text(r.where)}" for r in rows)
    return f"<h3>{title} ({len(rows)})</h3><table><tr><th>why<th>type<th>id<th>where{body}</table>"


def _findings(findings: list[dict[str, Any]]) -> str:
    if not findings:
        return ""
    body = "".join(
        f"<tr><td>{_text(each.get('severity'))}<td>{_text(each.get('rule'))}<td>{_text(each.get('type'))}"
        f"<td>{_text(each.get('id'))}<td>{_text(each.get('message'))}"
        for each in findings
    )
    return f"<h3>Integrity ({len(findings)})</h3><table><tr><th>severity<th>rule<th>type<th>id<th>message{body}</table>"


def _text(value: Any) -> str:
    return html.escape("" if value is None else str(value))


def _quarantined(session: str, row: Quarantined) -> dict[str, Any]:
    plain = {"session": session, "why": row.why, "type": row.ktype, "id": row.key_id, "where": row.where}
    if row.raw is None:
        return plain
    try:
        return {**plain, "text": row.raw.decode()}
    except UnicodeDecodeError:
        return {**plain, "base64": base64.b64encode(row.raw).decode()}
