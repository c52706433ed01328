"""Copies sessions in: one statement a session, so that whatever dies, each is there whole or not at all.

| what stands here | what happens |
|---|---|
| nothing, or an empty session | copied |
| the same values | nothing is written |
| what the last run from this source left, and the source went on | replaced |
| somebody wrote here since, or it was never ours | refused; ``overwrite`` replaces it, guards and all |
| what was cut over: it lives here | refused, whatever it holds; ``overwrite`` replaces it, guards and all |
| a living lease | refused; ``takeover`` ends it first, and permits nothing else |
| the lease of a run of ours that was killed | ended first |
| a session that was given back | as a living lease; it stays closed here all the same (`fence`) |
| a deleted session | refused: restore or purge it first |
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.errors import BadInput, Corrupt, Deleted, LeaseHeld, Refused, ServiceError, VersionMismatch
from service.migrate import fence, integrity
from service.migrate.leases import LEASE_S, end_that_of_the_dead, is_of_the_dead
from service.migrate.plan import SessionPlan
from service.migrate.reading import NOTHING, Progress, Reading
from service.migrate.report import Folder, Report, SessionReport, Unwritten, Verdict, begin_session, differences
from service.migrate.runs import Run, called, left_so, operator
from service.migrate.target import Target, read_target
from service.records import Lease
from service.store import AuthStore, Caller
from service.store.request import CommitRequest, Row


class Stand(StrEnum):
    """What a copy finds here."""

    absent = "absent"
    empty = "empty"
    same = "same"
    ours = "ours"  # as the last run from this source left it
    different = "different"  # written since by others, never ours, or from another source
    cut_over = "cut-over"  # it lives here
    deleted = "deleted"
    corrupt = "corrupt"


_SAYS: Final = {
    Stand.different: "here is what no run of ours left from this source: written since, from elsewhere, or another "
    "session; --overwrite replaces it",
    Stand.cut_over: "it was cut over and lives here, and differs from the source; --overwrite replaces it",
    Stand.deleted: "deleted here; restore or purge it first",
    Stand.corrupt: "what is here cannot be read, nor replaced: mend or purge it first",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands here where a plan would go. ``lease``: another writer's, which lives."""

    stand: Stand
    target: Target | None = None
    lease: Lease | None = None

    @property
    def here(self) -> str:
        """A word for it."""
        return self.stand.value if self.lease is None or self.stand is Stand.same else "leased"


@dataclass(frozen=True, slots=True)
class Told:
    """What the operator allows."""

    overwrite: bool = False
    takeover: bool = False


async def look(store: AuthStore, caller: Caller, plan: SessionPlan, source: str, own: str = "") -> Seen:
    """What stands here where the plan would go. ``source`` as runs name it, ``own``: the name that our lease would have."""
    try:
        target = await read_target(store, caller, plan.name)
        if target is None:
            return Seen(Stand.absent)
        barred = await _barred(store, caller, target, own)
        return Seen(await _stand(store, caller, plan, target, source), target, target.lease if barred else None)
    except Deleted:
        return Seen(Stand.deleted)
    except Corrupt:
        return Seen(Stand.corrupt)


def refusal(seen: Seen, told: Told) -> str | None:
    """Pure: the sentence that says why a copy would not write, or None."""
    if seen.stand in (Stand.deleted, Stand.corrupt) or (
        seen.stand in (Stand.different, Stand.cut_over) and not told.overwrite
    ):
        return _SAYS[seen.stand]
    if seen.lease is not None and seen.stand is not Stand.same and not told.takeover:
        return leased(seen.lease.holder, seen.lease.expires_at.isoformat(timespec="seconds"))
    return None


def leased(by: str, until: str) -> str:
    """The sentence for a session that another writer holds."""
    return f'leased by "{by}" until {until}; --takeover ends its lease'


async def preview(store: AuthStore | None, caller: Caller, read: Reading, folder: Folder, progress: Progress) -> Report:
    """What a copy would do; nothing is written but the quarantine file. ``store`` None: the target is yet to be made."""
    report = Report("plan", called(read.source), caller.need("admin"), by=operator())
    began = time.monotonic()
    report.notes += read.notes
    if not read.names:
        report.notes.append(NOTHING)
    for one, other in read.alike:
        report.notes.append(f"sessions {one} and {other} may be one tenant under two names: give names with --map")
    done = 0
    async for plan in read.plans():
        each = begin_session(plan)
        seen = Seen(Stand.absent) if store is None else await look(store, caller, plan, called(read.source))
        each.facts["here"] = seen.here
        if seen.target is not None and seen.stand is not Stand.same:
            each.facts["differs_from_here"] = len(differences(plan.digests, seen.target.digests))
        each.integrity = integrity.findings(plan.creds, plan.rows)
        report.sessions.append(_foresee(each, plan, seen))
        try:
            folder.quarantine(plan.source_name, plan.quarantine)
        except Unwritten as error:
            each.settle("unwritten", Verdict.failed, error.detail)
        done += 1
        progress(done, len(read.names))
    report.took_s = time.monotonic() - began
    return report


async def copy(run: Run, read: Reading, told: Told, folder: Folder, progress: Progress) -> Report:
    """Copies every session of the reading. Raises what keeps all of them from being copied."""
    began = time.monotonic()
    run.report.notes += read.notes
    if not read.names:
        run.report.notes.append(NOTHING)
    done = 0
    async for plan in read.plans():
        start = time.monotonic()
        each, version = await _copy_one(run, plan, told, folder)
        each.took_s = round(time.monotonic() - start, 3)
        await run.note(each, version, plan.digest if version is not None else None)
        done += 1
        progress(done, len(read.names))
    run.report.took_s = time.monotonic() - began
    return await run.end()


async def _copy_one(run: Run, plan: SessionPlan, told: Told, folder: Folder) -> tuple[SessionReport, int | None]:
    """Its quarantine on disk, then the session; what is wrong with one keeps none of the others from being copied."""
    try:
        folder.quarantine(plan.source_name, plan.quarantine)
        return await copy_session(run, plan, told)
    except Unwritten as error:
        return begin_session(plan).settle("refused", Verdict.failed, f"not moved: {error.detail}"), None


async def copy_session(
    run: Run, plan: SessionPlan, told: Told, epoch: int | None = None
) -> tuple[SessionReport, int | None]:
    """One session; its version here when it holds the plan's values now. ``epoch``: of a lease that is ours."""
    each = begin_session(plan)
    if plan.blocked is not None:
        return each.settle("blocked", Verdict.failed, f"not moved: {plan.not_moved}"), None
    seen = await look(run.store, run.caller, plan, run.report.source, run.holder)
    target = seen.target
    if seen.stand is Stand.same and target is not None:
        return each.settle("same", _quarantine_verdict(plan), "nothing to write"), target.version
    why = refusal(seen, told)
    if why is not None:
        return each.settle("refused", Verdict.failed, why), None
    await run.intend(each, 1 if target is None else target.version + 1, plan.digest)
    try:
        version = await _write(run, plan, target, told, epoch)
    except LeaseHeld as error:  # taken since we looked
        return each.settle("refused", Verdict.failed, leased(error.holder, error.expires_at)), None
    except (Refused, BadInput, VersionMismatch) as error:
        return each.settle("refused", Verdict.failed, error.detail), None
    return each.settle("copied", _quarantine_verdict(plan)), version


async def _write(run: Run, plan: SessionPlan, target: Target | None, told: Told, epoch: int | None) -> int:
    taken = None
    if epoch is None and target is not None and target.lease is not None:
        taken, epoch = await _take(run, plan.name, told)
    request = CommitRequest(
        creds=plan.creds,
        rows=[Row(ktype, key_id.encode(), text) for ktype, key_id, text in plan.rows],
        whole=True,
        force=told.overwrite,
        lease_epoch=epoch,
        if_match=None if target is None else target.version,
        only_new=target is None,
    )
    try:
        return (await run.store.commit(run.caller, plan.name, request)).version
    finally:
        if taken is not None:
            with suppress(ServiceError):  # it says nothing of the commit, and a lease ends by itself
                await run.store.release(run.caller, plan.name, taken)


async def _take(run: Run, name: str, told: Told) -> tuple[int | None, int]:
    """The epoch that is ours to release, if this took the lease, and the epoch to write under. Raises LeaseHeld."""
    if told.takeover:
        taken = await fence.take(run.store, run.caller, name, run.holder, takeover=True)
        return None if taken.fence else taken.epoch, taken.epoch
    await end_that_of_the_dead(run.store, run.caller, name)
    granted = await run.store.lease(run.caller, name, run.holder, LEASE_S, takeover=False, epoch=None)
    return None if granted.event == "renewed" else granted.epoch, granted.epoch


async def _barred(store: AuthStore, caller: Caller, target: Target, own: str) -> bool:
    lease = target.lease
    return lease is not None and lease.bars(own) and not await is_of_the_dead(store, caller, lease)


async def _stand(store: AuthStore, caller: Caller, plan: SessionPlan, target: Target, source: str) -> Stand:
    if target.digests == plan.digests:
        return Stand.same
    if target.mirrored or await store.mirrors.origin(caller, plan.name) is not None:
        return Stand.cut_over
    if not target.digests:
        return Stand.empty
    ours = await left_so(store, caller, plan, source, (target.version, target.digest))
    return Stand.ours if ours else Stand.different


def _quarantine_verdict(plan: SessionPlan) -> Verdict:
    return Verdict.findings if plan.quarantine else Verdict.good


def _foresee(each: SessionReport, plan: SessionPlan, seen: Seen) -> SessionReport:
    if plan.blocked is not None:
        return each.settle("blocked", Verdict.findings, f"will not be moved: {plan.not_moved}")
    why = refusal(seen, Told())
    if why is not None:
        return each.settle("refused", Verdict.findings, why)
    bad = any(finding.get("severity") == "error" for finding in each.integrity or ())
    verdict = Verdict.findings if plan.quarantine or bad else Verdict.good
    if seen.stand is Stand.same:
        return each.settle("same", verdict, "nothing to write")
    would = "would replace the earlier copy" if seen.stand is Stand.ours else "would be copied"
    return each.settle("ready", verdict, would)
