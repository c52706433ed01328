"""Gives a session back to the store it came from, with everything that was committed here since.

    fence ── flush the mirror, or find what differs ── write it back ── verify the source against us ── hand over

Fencing takes the lease over, so that no write here can follow what was carried back. At the end that very lease is kept in
the rollback's name: whoever opens the session here hears who has it now, and a cutover with ``--takeover`` brings it back.
Where it was taken over meanwhile, or the session's version moved, nothing is handed over. A rollback that fails releases the
fence: the session stays here, and nothing was lost.

Rows of the source are found by the names they have here: what was committed here counts, also where a first copy would have
left it behind.

Without a mirror the source must stand as a run of ours left it, or somebody wrote there since; ``overwrite`` says that
what is here wins. Killed at any point it is begun again: what was written back is known by its digest.
"""

import time
from dataclasses import dataclass
from typing import Final

from service.errors import Fenced
from service.migrate.holding import Hold, holding
from service.migrate.mirror import Links, carry
from service.migrate.origin import Origin
from service.migrate.plan import CREDS_NAME, Blocked, SessionPlan
from service.migrate.reading import reading
from service.migrate.report import Report, SessionReport, Verdict, differences
from service.migrate.runs import Run, known_digest
from service.migrate.source import Source, Write
from service.migrate.target import Target, read_target

_HANDED_OVER_S: Final = 10 * 365 * 86400.0
_UNREADABLE: Final = (Blocked.torn_creds, Blocked.no_creds, Blocked.bad_creds)


@dataclass(frozen=True, slots=True)
class Rollback:
    """What the operator chose. ``overwrite``: what is here wins over what others wrote at the source since."""

    overwrite: bool = False


async def rollback(run: Run, source: Source, origin: Origin, name: str, chosen: Rollback) -> Report:
    """Rolls one session back. The report's verdict says whether the old store has it."""
    began = time.monotonic()
    each = SessionReport(name, origin.session)
    async with holding(run.store, run.caller, name, f"rollback to {source.kind}", takeover=True) as hold:
        target = await read_target(run.store, run.caller, name)
        if target is None or not target.digests:
            each.settle("absent", Verdict.failed, "there is nothing here to give back")
        else:
            await _give_back(run, source, origin, chosen, target, each)
            if each.verdict is Verdict.good:
                await _hand_over(run, hold, target, each)
    each.took_s = run.report.took_s = round(time.monotonic() - began, 3)
    await run.note(each, None if target is None else target.version, None if target is None else target.digest)
    return await run.end()


async def _give_back(
    run: Run, source: Source, origin: Origin, chosen: Rollback, target: Target, each: SessionReport
) -> None:
    each.keys = len(target.digests) - (CREDS_NAME in target.digests)
    if target.mirrored:
        links = Links()
        try:
            each.facts["entries"] = await carry(
                run.store, run.caller, each.session, links, until=target.version, wait=True
            )
        finally:
            await links.close()
    plan = await _plan(source, origin, target)
    found = differences(plan.digests, target.digests)
    if found:
        if not chosen.overwrite and await _written_by_others(run, source, origin, plan, target):
            each.differences = found
            each.settle(
                "refused",
                Verdict.failed,
                "the source was written by others since the cutover; --overwrite writes what is here over it",
            )
            return
        await run.intend_back(each, target.version, target.digest)
        await _write_back(source, origin, plan, target)
        each.facts["written_back"] = len(found)
    await source.keep(origin.session, expired=not origin.options.skip_expired)
    plan = await _plan(source, origin, target)
    each.differences = differences(plan.digests, target.digests)
    if plan.blocked in _UNREADABLE:
        each.settle(
            "blocked", Verdict.failed, f"the source cannot be read back ({plan.blocked}); the session stays here"
        )
    elif each.differences:
        each.settle("different", Verdict.failed, f"{len(each.differences)} values differ; the session stays here")
    else:
        each.settle("rolled-back", Verdict.good)


async def _written_by_others(run: Run, source: Source, origin: Origin, plan: SessionPlan, target: Target) -> bool:
    """With a mirror nothing may differ; without one the source must hold what a run of ours left there.

    That is what a first copy took, or (when a rollback died) what was written back.
    """
    if target.mirrored:
        return True
    if await known_digest(run.store, run.caller, plan.name, plan.digest):
        return False
    first = await _plan(source, origin)
    return not await known_digest(run.store, run.caller, plan.name, first.digest)


async def _write_back(source: Source, origin: Origin, plan: SessionPlan, target: Target) -> None:
    writes = [
        Write(ktype, key_id, text)
        for (ktype, key_id), text in target.texts.items()
        if (ktype, key_id) != CREDS_NAME and plan.digests.get((ktype, key_id)) != target.digests[ktype, key_id]
    ]
    writes += [Write(*name, None) for name in plan.keys if name not in target.digests and name != CREDS_NAME]
    creds = target.creds if plan.digests.get(CREDS_NAME) != target.digests.get(CREDS_NAME) else None
    await source.write(origin.session, creds, writes)


async def _hand_over(run: Run, hold: Hold, target: Target, each: SessionReport) -> None:
    """Keeps the lease for the old store, unless the session is no longer as it was carried back."""
    version = await _kept(run, hold, target, each.session)
    if version is None:
        each.settle(
            "not-handed-over",
            Verdict.failed,
            "the session was written here meanwhile, or its lease was taken over: it stays here; roll back again",
        )
        return
    target.version, hold.kept = version, True
    await run.store.mirrors.forget_origin(run.caller, each.session)


async def _kept(run: Run, hold: Hold, target: Target, name: str) -> int | None:
    """The version at which the old store has it. None: the lease was not ours all the time, or the version moved."""
    try:
        await hold.prolong(_HANDED_OVER_S)
        if (await run.store.show(run.caller, name)).version != target.version:
            return None  # whoever read our epoch can write under it
        if target.mirrored:
            return await run.store.mirrors.switch(run.caller, name, on=False, epoch=hold.epoch)
    except Fenced:
        return None
    return target.version


async def _plan(source: Source, origin: Origin, target: Target | None = None) -> SessionPlan:
    async with reading(source, origin.options, [origin.session]) as read:
        return await read.plan(origin.session, () if target is None else target.digests)
