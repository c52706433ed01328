"""Gives a session back to the store it came from, with everything that was committed here since.

    look ── fence ── flush the mirror, or find what differs ── write it back ── verify the source against us ── hand over

What can be said without the session's lease is said first, so that a rollback that is refused ends nobody's. Fencing takes the
lease over, so that no write here can follow what was carried back. At the end that very lease is kept in the rollback's
name, in the statement that also ends the mirror and notes the run (`Mirrors.hand_over`): whoever opens the session here hears
who has it now, and a cutover with ``--takeover`` brings it back. Where it was taken over meanwhile, or the session's version
moved, nothing is handed over. A rollback that fails releases the fence: the session stays here, and nothing was lost.

What was given back is not given back again: the old store lives on, and what is here is older, until somebody commits here.
Only where the old store has lost the session, ``overwrite`` writes it once more.

Rows of the source are found by the names they have here: what was committed here counts, also where a first copy would have
left it behind.

Without a mirror the source must stand as a run of ours left it, or somebody wrote there since; ``overwrite`` says that
what is here wins. Killed at any point it is begun again: what was written back is known by its digest.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from service.migrate.fence import rollback_name, standing
from service.migrate.holding import Hold, holding
from service.migrate.mirror import Links, carried, carry
from service.migrate.origin import Origin
from service.migrate.plan import CREDS_NAME, Blocked, SessionPlan, plan_session
from service.migrate.reading import NotThere, reading
from service.migrate.report import Report, SessionReport, Verdict, differences
from service.migrate.runs import Given, Run, given_back, known_digest
from service.migrate.source import Found, Source, Write
from service.migrate.target import Target, read_target
from service.store import AuthStore, Caller

_UNREADABLE: Final = (Blocked.torn_creds, Blocked.no_creds, Blocked.bad_creds)


@dataclass(frozen=True, slots=True)
class Rollback:
    """What the operator chose. ``overwrite``: what is here wins over what others wrote at the source since."""

    overwrite: bool = False


async def rollback(run: Run, source: Source, origin: Origin, name: str, chosen: Rollback) -> Report:
    """Rolls one session back. The report's verdict says whether the old store has it."""
    began = time.monotonic()
    each = SessionReport(name, origin.session)
    target = await _look(run, source, origin, chosen, each)
    if not each.outcome:
        owner = rollback_name(source.kind)
        async with holding(run.store, run.caller, name, owner, takeover=True) as hold:
            target = await _here(run, each)
            if target is not None:
                await _give_back(run, source, origin, chosen, target, each)
                await _close(run, hold, target, each)
    each.took_s = run.report.took_s = round(time.monotonic() - began, 3)
    await run.note(each, None if target is None else target.version, None if target is None else target.digest)
    return await run.end()


async def remembered_as_given(store: AuthStore, caller: Caller, name: str) -> Given | None:
    """That the session was given back and nothing was committed here since; None also when it is not here."""
    target = await read_target(store, caller, name)
    return None if target is None else await given_back(store, caller, name, target.version, target.digest)


async def give_back_again(run: Run, name: str, given: Given, chosen: Rollback) -> Report:
    """The rollback of a session that was given back, where nobody says what its source is. Nothing is done."""
    each = SessionReport(name, name)
    target = await _here(run, each)
    if target is not None and chosen.overwrite:
        each.settle(
            "refused", Verdict.failed, f"{given.says}; where the source lost it, --from says which source to write"
        )
    elif target is not None and await standing(run.store, run.caller, name) is None:
        each.settle("refused", Verdict.failed, f"{given.says}, and its lease here was ended: --from closes it again")
    elif target is not None:
        each.settle("given-back", Verdict.good, given.says)
    await run.note(each, None if target is None else target.version, None if target is None else target.digest)
    return await run.end()


async def _here(run: Run, each: SessionReport) -> Target | None:
    target = await read_target(run.store, run.caller, each.session)
    if target is None or not target.digests:
        each.settle("absent", Verdict.failed, "there is nothing here to give back")
        return None
    each.keys = len(target.digests) - (CREDS_NAME in target.digests)
    return target


async def _look(run: Run, source: Source, origin: Origin, chosen: Rollback, each: SessionReport) -> Target | None:
    """What is here. Settles the report when nothing is to be done, before anybody's lease is ended for it."""
    target = await _here(run, each)
    if target is None:
        return None
    links = Links()
    try:
        if not target.mirrored:
            await _judge(run, source, origin, chosen, target, each)
        else:
            async with carried(run.store, run.caller, each.session, links) as brought:
                target = target if brought is None else brought[0]
                await _judge(run, source, origin, chosen, target, each)
    finally:
        await links.close()
    if each.outcome == "given-back" and await standing(run.store, run.caller, each.session) is None:
        each.settle("", Verdict.good)  # it is to be closed here again
    return target


async def _judge(
    run: Run, source: Source, origin: Origin, chosen: Rollback, target: Target, each: SessionReport
) -> SessionPlan:
    """The source as it is. Settles the report where what is here is not to be written over it."""
    plan = await _plan(source, origin, target)
    found = differences(plan.digests, target.digests)
    given = await given_back(run.store, run.caller, each.session, target.version, target.digest)
    why = None
    if given is not None and plan.found:
        if plan.blocked in _UNREADABLE:
            each.settle("blocked", Verdict.failed, f"{given.says}; the source cannot be read ({plan.blocked})")
        elif not found or not chosen.overwrite:
            each.settle("given-back", Verdict.good, given.says)
        else:
            why = f"{given.says}, and the old store would be set back by it"
    elif found and not chosen.overwrite:
        why = await _written_by_others(run, source, origin, plan, target, given)
    if why is not None:
        each.differences = found
        each.settle("refused", Verdict.failed, why)
    return plan


async def _written_by_others(
    run: Run, source: Source, origin: Origin, plan: SessionPlan, target: Target, given: Given | None
) -> str | None:
    """Why only --overwrite may write there. With a mirror nothing may differ; without one the source must hold what a run
    of ours left there.

    That is what a first copy took, or (when a rollback died) what was written back.
    """
    if not plan.found:
        says = "" if given is None else f"{given.says}; but "
        return f"{says}the source does not have the session; --overwrite writes all of it there"
    if not target.mirrored:
        if await known_digest(run.store, run.caller, plan.name, plan.digest):
            return None
        first = await _plan(source, origin)
        if await known_digest(run.store, run.caller, plan.name, first.digest):
            return None
    return "the source was written by others since the cutover; --overwrite writes what is here over it"


async def _give_back(
    run: Run, source: Source, origin: Origin, chosen: Rollback, target: Target, each: SessionReport
) -> None:
    if target.mirrored:
        links = Links()
        try:
            each.facts["entries"] = await carry(
                run.store, run.caller, each.session, links, until=target.version, wait=True
            )
        finally:
            await links.close()
    plan = await _judge(run, source, origin, chosen, target, each)
    if each.outcome:
        return
    await run.intend_back(each, target.version, target.digest)
    if found := differences(plan.digests, target.digests):
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


async def _write_back(source: Source, origin: Origin, plan: SessionPlan, target: Target) -> None:
    writes = [
        Write(ktype, key_id, text)
        for (ktype, key_id), text in target.texts.items()
        if (ktype, key_id) != CREDS_NAME and plan.digests.get((ktype, key_id)) != target.digests[ktype, key_id]
    ]
    writes += [Write(*name, None) for name in plan.keys if name not in target.digests and name != CREDS_NAME]
    creds = target.creds if plan.digests.get(CREDS_NAME) != target.digests.get(CREDS_NAME) else None
    await source.write(origin.session, creds, writes, whole=not plan.found)


async def _close(run: Run, hold: Hold, target: Target, each: SessionReport) -> None:
    """Keeps the lease for the old store, unless the session is no longer as it was carried back."""
    if each.outcome == "given-back":
        await hold.fence()
    if each.outcome != "rolled-back":
        return
    version = await hold.hand_over(target.version, run.id)  # whoever read our epoch can write under it
    if version is not None:
        target.version = version
        return
    each.settle(
        "not-handed-over",
        Verdict.failed,
        "the session was written here meanwhile, or its lease was taken over: it stays here; roll back again",
    )


async def _plan(source: Source, origin: Origin, target: Target | None = None) -> SessionPlan:
    """What the source has of the session; without a row where it does not have it."""
    ours = () if target is None else target.digests
    try:
        async with reading(source, origin.options, [origin.session]) as read:
            return await read.plan(origin.session, ours)
    except NotThere:
        return plan_session(origin.session, Found(), origin.options, datetime.now(UTC), ours)
