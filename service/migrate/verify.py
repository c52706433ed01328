"""Reads both sides again and compares every value by canonical digest, both ways; then the integrity rules on what is here.

The digest of a source's value is taken from its text as found, that of ours from the text as stored: nothing that was
repaired on the way is taken at its word.
"""

import time

from service.errors import Corrupt, Deleted
from service.migrate import integrity
from service.migrate.plan import SessionPlan
from service.migrate.reading import NOTHING, Progress, Reading
from service.migrate.report import Report, SessionReport, Verdict, begin_session, differences
from service.migrate.runs import Run
from service.migrate.target import Target, read_target
from service.store import AuthStore, Caller


async def verify(run: Run, read: Reading, progress: Progress) -> Report:
    """Verifies every session of the reading."""
    began = time.monotonic()
    run.report.notes += read.notes
    if not read.names:
        run.report.notes.append(NOTHING)
    done = 0
    async for plan in read.plans():
        start = time.monotonic()
        each, target = await verify_session(run.store, run.caller, plan)
        each.took_s = round(time.monotonic() - start, 3)
        await run.note(each, None if target is None else target.version, None if target is None else target.digest)
        done += 1
        progress(done, len(read.names))
    run.report.took_s = time.monotonic() - began
    return await run.end()


async def verify_session(store: AuthStore, caller: Caller, plan: SessionPlan) -> tuple[SessionReport, Target | None]:
    """One session, and what was read here."""
    each = begin_session(plan)
    if plan.blocked is not None:
        return each.settle("blocked", Verdict.failed, f"not moved: {plan.not_moved}"), None
    try:
        target = await read_target(store, caller, plan.name)
    except (Deleted, Corrupt) as error:
        return each.settle("unreadable", Verdict.failed, error.detail), None
    if target is None:
        return each.settle("absent", Verdict.failed, "not here"), None
    return compare(each, plan, target), target


def compare(each: SessionReport, plan: SessionPlan, target: Target) -> SessionReport:
    """Pure: fills in the differences and findings."""
    each.differences = differences(plan.digests, target.digests)
    each.integrity = integrity.findings(target.creds, target.rows)
    if each.differences:
        return each.settle("different", Verdict.failed, f"{len(each.differences)} values differ")
    if any(finding.get("severity") == "error" for finding in each.integrity):
        return each.settle("equal", Verdict.findings, "equal to the source, and broken in both")
    return each.settle("equal", Verdict.findings if plan.quarantine else Verdict.good)
