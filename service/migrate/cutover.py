"""Moves a living session: from here on it is written here.

    lease here ── copy while the old writer runs ── it stops ── copy what changed ── verify ── open ── prove

| it dies after | the old writer | the next run |
|---|---|---|
| lease, first copy | still writes there | copies again |
| it stopped, last copy | is stopped; nobody can write here before the lease ends | copies what changed, if anything |
| mirror of an earlier cutover ended | the same | copies what changed, if told; a rollback knows what the source holds |
| mirror switched on | the same | finds the same values, switches again |
| opened | is stopped; new writers write here, their entries wait for the mirror | finds the session newer, and refuses |

A cutover of a session that was cut over with a mirror first carries over what waits for it, then switches it off: it is on
again at the end only if this cutover says so, or was refused, or failed. What lives here already is replaced only by
``overwrite``, also where the source changes while the cutover runs.

A session that was given back is closed here by a rollback's fence: with ``takeover`` the cutover works under it, and leaves it
so wherever it dies, is refused or fails (`fence`).

The lease is this run's alone: another run of the same operator is another writer, and is refused. The next run ends the lease
of one that was killed where it can see that its process is gone (`leases`), else it is refused until that lease ends.

Downtime is counted from the last change seen at the source (or from being told that its writer stopped) to the release of
our lease.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from service.errors import Fenced, LeaseHeld, ServiceError
from service.migrate.copy import Told, copy_session, leased, look, refusal
from service.migrate.holding import Hold, holding
from service.migrate.leases import end_that_of_the_dead
from service.migrate.mirror import Links, carry, carry_and_compare
from service.migrate.origin import Origin
from service.migrate.plan import SessionPlan
from service.migrate.reading import LAGS, NotThere, reading
from service.migrate.report import Folder, Report, SessionReport, Verdict, begin_session
from service.migrate.runs import Run
from service.migrate.source import Source, SourceAway, SourceError
from service.migrate.target import read_target
from service.migrate.verify import verify_session

_POLL_S: Final = 0.25

Say = Callable[[str], None]
"""Tells the operator what is going on and what to do, a line at a time."""


@dataclass(frozen=True, slots=True)
class Cutover:
    """What the operator chose. ``stopped``: the old writer is stopped already; else the source must stand still for
    ``still_s`` seconds, waited for at most ``patience_s``. ``watch_s``: how long to watch both sides afterwards."""

    stopped: bool = False
    still_s: float = 5.0
    patience_s: float = 600.0
    watch_s: float = 10.0
    mirror: bool = False
    told: Told = field(default_factory=Told)


async def cutover(run: Run, source: Source, origin: Origin, chosen: Cutover, folder: Folder, say: Say) -> Report:
    """Cuts one session over. The report's verdict says whether it is open here."""
    began = time.monotonic()
    standby = await source.standby()
    if standby:
        raise SourceError("the source is a standby and may lag behind its writers: cut over from its primary")
    run.report.notes += LAGS[standby]
    plan = await _plan(source, origin)
    folder.quarantine(plan.source_name, plan.quarantine)
    each = begin_session(plan)
    version = digest = None
    if plan.blocked is not None:
        each.settle("blocked", Verdict.failed, f"not moved: {plan.not_moved}")
    else:
        await _rehearse(run, source, plan, chosen)
        try:
            await end_that_of_the_dead(run.store, run.caller, plan.name)
            async with holding(run.store, run.caller, plan.name, run.holder, takeover=chosen.told.takeover) as hold:
                each, version, digest, stopped_at = await _move(run, source, origin, chosen, plan.name, hold, say)
            if version is not None and stopped_at is not None:
                each.facts["downtime_s"] = round(time.monotonic() - stopped_at, 2)
                say(f"open here; down for {each.facts['downtime_s']} s")
                await _watch(run, source, origin, chosen, each, version, say)
        except LeaseHeld as error:
            each.settle("refused", Verdict.failed, leased(error.holder, error.expires_at))
        except Fenced:
            each.settle("refused", Verdict.failed, "its lease here was taken over meanwhile; this run opened nothing")
    each.took_s = run.report.took_s = round(time.monotonic() - began, 3)
    await run.note(each, version, digest)
    return await run.end()


async def _rehearse(run: Run, source: Source, plan: SessionPlan, chosen: Cutover) -> None:
    """Whether the source will take what is to be written back, asked before anything moves. Only a mirror has to."""
    try:
        await source.rehearse(plan.source_name, plan.creds or b"{}")
    except SourceAway:
        raise
    except SourceError as error:
        if chosen.mirror:
            why = f"a mirror could not write to the source: {error.detail}; nothing was opened here"
            raise type(error)(why) from None
        run.report.notes.append(f"a rollback could not write to the source: {error.detail}")


Moved = tuple[SessionReport, int | None, bytes | None, float | None]
"""A session's report, version and digest of what we left here, when its downtime began. None: it must not be opened."""


@dataclass(frozen=True, slots=True)
class _Before:
    """How the session stood here when the cutover began."""

    origin: bytes | None = field(repr=False)
    mirrored: bool

    @property
    def lived(self) -> bool:
        """Whether it was cut over before, and lives here."""
        return self.mirrored or self.origin is not None


async def _move(run: Run, source: Source, origin: Origin, chosen: Cutover, name: str, hold: Hold, say: Say) -> Moved:
    """Up to the point where releasing the lease opens the session."""
    before = await _stands(run, name)
    opens = False
    try:
        moved = await _bring(run, source, origin, chosen, before, hold, say)
        opens = moved[-1] is not None
        if opens:
            hold.kept = False  # nothing else ends the fence of a rollback
    finally:
        if not opens:
            await _put_back(run, name, before, hold, say)
    return moved


async def _bring(
    run: Run, source: Source, origin: Origin, chosen: Cutover, before: _Before, hold: Hold, say: Say
) -> Moved:
    """Everything here, equal, and its mirror as it was chosen."""
    if before.mirrored:
        await _end_mirror(run, source, origin, chosen, hold, say)
    plan = await _plan(source, origin)
    each, version = await copy_session(run, plan, chosen.told, hold.epoch)
    if version is None:
        return each, None, None, None
    say("copied; stop the old writer now" if not chosen.stopped else "copied")
    # What our first copy left is the source's to replace. The lease is that of our epoch, whatever name it goes by.
    told = chosen.told if before.lived else Told(overwrite=True, takeover=chosen.told.takeover)
    deadline = time.monotonic() + chosen.patience_s
    while True:
        stopped_at = time.monotonic() if chosen.stopped else await _stands_still(source, origin, chosen, deadline)
        still = await source.fingerprint(origin.session)
        plan = await _plan(source, origin)
        each, version = await copy_session(run, plan, told, hold.epoch)
        if version is None:
            return each, None, None, None
        each, target = await verify_session(run.store, run.caller, await _plan(source, origin))
        same = await source.fingerprint(origin.session) == still
        if target is not None and not each.differences and same:
            break
        if chosen.stopped or time.monotonic() > deadline:
            each.settle("changing", Verdict.failed, "the source still changes: its writer is not stopped")
            stands = (version, target.digest) if target is not None and target.version == version else (None, None)
            return each, *stands, None
    await hold.renew()  # nobody took it over
    if chosen.mirror:  # first what a source may refuse
        await source.keep(origin.session, expired=not origin.options.skip_expired)
    await run.store.mirrors.keep_origin(run.caller, plan.name, origin.encode())
    version = target.version
    if chosen.mirror:
        version = await run.store.mirrors.switch(run.caller, plan.name, on=True, epoch=hold.epoch)
    each.settle("cut-over", each.verdict, each.says)
    each.facts["mirror"] = "on" if chosen.mirror else "off"
    each.facts["fingerprint"] = still
    return each, version, target.digest, stopped_at


async def _stands(run: Run, name: str) -> _Before:
    target = await read_target(run.store, run.caller, name)
    return _Before(await run.store.mirrors.origin(run.caller, name), target is not None and target.mirrored)


async def _put_back(run: Run, name: str, before: _Before, hold: Hold, say: Say) -> None:
    """What a cutover that does not open leaves here: the mirror and the origin of before, as long as the lease is ours."""
    mirrors = run.store.mirrors
    try:
        await hold.renew()
        now = await _stands(run, name)
        if before.origin is None:
            await mirrors.forget_origin(run.caller, name)
        elif now.origin != before.origin:
            await mirrors.keep_origin(run.caller, name, before.origin)
        if before.mirrored and not now.mirrored:
            await mirrors.switch(run.caller, name, on=True, epoch=hold.epoch)
            say("the mirror of an earlier cutover is on again")
    except ServiceError as error:
        if before.mirrored:
            say(f"THE MIRROR of an earlier cutover MAY BE OFF: {error.detail}")


async def _end_mirror(run: Run, source: Source, origin: Origin, chosen: Cutover, hold: Hold, say: Say) -> None:
    """The mirror of an earlier cutover: everything is carried over, and it is off unless we are refused.

    It has to be off while we copy: what we take from the source would be written back to it.
    """
    name = (await _plan(source, origin)).name
    target = await read_target(run.store, run.caller, name)
    if target is None:
        return
    links = Links()
    try:
        await carry(run.store, run.caller, name, links, until=target.version, wait=True)
    finally:
        await links.close()
    plan = await _plan(source, origin)
    seen = await look(run.store, run.caller, plan, run.report.source, run.holder)
    if refusal(seen, chosen.told) is None:
        # Should it stay off, a rollback without it must know that the source stands as we left it.
        await run.intend_back(begin_session(plan), target.version, target.digest)
        await run.store.mirrors.switch(run.caller, name, on=False, epoch=hold.epoch)
        say("the mirror of an earlier cutover had everything carried over and is off")


async def _watch(
    run: Run, source: Source, origin: Origin, chosen: Cutover, each: SessionReport, version: int, say: Say
) -> None:
    """Proves what was opened. It is open whatever fails now, and the report has to say so."""
    try:
        await _prove(run, source, origin, chosen, each, version, say)
    except ServiceError as error:
        each.settle(each.outcome, Verdict.failed, f"OPEN HERE; watching both sides failed: {error.detail}")


async def _prove(
    run: Run, source: Source, origin: Origin, chosen: Cutover, each: SessionReport, version: int, say: Say
) -> None:
    """Watches both sides: the source must stand still but for the mirror, and what is written must arrive here."""
    if chosen.watch_s <= 0:
        return
    say(f"watching both sides for {chosen.watch_s:g} s")
    await asyncio.sleep(chosen.watch_s)
    now = await run.store.show(run.caller, each.session)
    each.facts["received"] = now.version - version
    if chosen.mirror:
        links = Links()
        try:
            each.differences = await carry_and_compare(run.store, run.caller, each.session, links)
        finally:
            await links.close()
        still = not each.differences
    else:
        still = await source.fingerprint(origin.session) == each.facts["fingerprint"]
    each.facts["source_stands_still"] = still
    if not still:
        each.settle(
            each.outcome, Verdict.failed, "THE SOURCE STILL CHANGES: stop its writer at once, two write one session"
        )
    elif not each.facts["received"]:
        verdict = Verdict.findings if each.verdict is Verdict.good else each.verdict
        each.settle(each.outcome, verdict, "open here, and nothing was written here yet")


async def _plan(source: Source, origin: Origin) -> SessionPlan:
    try:
        async with reading(source, origin.options, [origin.session]) as read:
            return await read.plan(origin.session)
    except NotThere:
        raise SourceError("the source does not have the session any more; nothing was opened here") from None


async def _stands_still(source: Source, origin: Origin, chosen: Cutover, deadline: float) -> float:
    """When the source changed last, once it has not for long enough. SourceError when it never does."""
    last, since = await source.fingerprint(origin.session), time.monotonic()
    while time.monotonic() - since < chosen.still_s:
        await asyncio.sleep(_POLL_S)
        now = await source.fingerprint(origin.session)
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() > deadline:
            raise SourceError("the source does not stand still: its writer is not stopped; nothing was opened here")
    return since
