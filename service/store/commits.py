"""A commit from request to answer: judge, seal, apply, or say why not.

| what can happen | what follows |
|---|---|
| the process dies before the statement's answer | applied or not, whole; the client sends it again with its key |
| the connection dies, the answer is lost | the same change is run again: it applies only to the version it was made for; \
if it had applied, its key is found among the session's remembered ones |
| the server stays away past our patience | Unavailable; the client sends it again with its key |
| so many newer ones came since that its key would be forgotten | OutcomeUnknown: applied again it would undo them |
| another process committed meanwhile | nothing applied; look again, judge again, try again (or 412 when If-Match was given); \
when others are first again and again, the session's row is held from the look to the commit |
| a lease changed hands | nothing applied; Fenced after a fresh look |
| a mirror was switched on or off meanwhile | that raised the version: nothing applied; look again |
| a remembered head was stale | refusals are only spoken after a fresh look |
| it is large, or one of a burst, or follows others that wait | it is stored as an entry of the journal (`sql.journal`), \
and carried over to rows later (`settling`); what has to see or change rows settles the journal first |
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from time import monotonic
from typing import Final
from uuid import UUID

from protocol.pre_key import same_pair
from protocol.types import PRE_KEY
from service.errors import (
    Deleted,
    KeyReused,
    PreKeyOverwritten,
    Refused,
    Unavailable,
    VersionMismatch,
)
from service.records import (
    Applied,
    Change,
    Identity,
    NotApplied,
    Vacant,
    Value,
)
from service.sql import commit as sql
from service.sql import sessions, whole
from service.sql.keys import Got, Wanted
from service.sql.lanes import Lanes
from service.sql.pool import Database
from service.sql.sids import sid_of
from service.store.changes import (
    Committed,
    change_at_once,
    change_of,
    check,
    first_change,
    first_head,
    may_journal,
    needs_rows,
    pre_keys_of,
    weight_in_lane,
)
from service.store.guards import fenced
from service.store.heads import Heads, Line, Stand
from service.store.keyring import renew
from service.store.request import CommitRequest, Work
from service.store.settling import Settler
from service.vault import SessionVault, new_data_key, wrap_context

_ATTEMPTS: Final = 50
_UNHELD: Final = 4  # attempts before a session is held

Settle = Callable[[Stand], Awaitable[Stand | None]]
Submit = Callable[[Change, int], Awaitable[Applied | NotApplied]]
CommitLanes = Lanes[Change, Applied | NotApplied]
ReadLanes = Lanes[Wanted, Got]


class Begun(Value, frozen=True, gc=False):
    """A commit under way that has no task of its own: see `Commits.begin`."""

    tenant: str
    name: str
    line: Line
    stand: Stand
    work: Work
    change: Change
    answer: "asyncio.Future[Applied | NotApplied]"


class Commits:
    """Applies commits of any session, those of one session in the order they came."""

    def __init__(
        self, database: Database, heads: Heads, lanes: CommitLanes, reads: ReadLanes, settler: Settler
    ) -> None:
        self._settler = settler
        self._database = database
        self._heads = heads
        self._lanes = lanes
        self._reads = reads

    async def commit(self, tenant: str, name: str, request: CommitRequest, unless: Collection[str] = ()) -> Committed:
        """Raises Refused and its kin, VersionMismatch, Deleted, KeyReused, BadInput, Unavailable.

        ``unless``: sessions that are to be left alone when the turn comes, since a commit before this one is in doubt.
        """
        sid = sid_of(tenant, name)
        work = None if request.reads_long else Work(request)
        async with self._heads.line(sid):
            if name in unless:
                raise Unavailable("whether a commit before it was stored is not known; send both again")
            if work is None:  # not before its turn: those behind it could overtake it
                work = await asyncio.to_thread(Work, request)
            return await self._until_done(tenant, name, sid, work)

    async def _until_done(self, tenant: str, name: str, sid: UUID, work: Work) -> Committed:
        """For who has the session's turn."""
        for attempt in range(_ATTEMPTS):
            if attempt >= _UNHELD and attempt % 2:
                done = await self._attempt_held(tenant, sid, work)
            else:
                stand = self._heads.remembered(sid) or await self._heads.look(tenant, sid)
                if isinstance(stand, Vacant):
                    done = await self._create(tenant, name, sid, stand, work)
                else:
                    remember_it = partial(self._remember, tenant, work.request)
                    done = await self._attempt(stand, work, self._lanes.submit, self._settler.settle, remember_it)
            if done is not None:
                return done
            self._heads.forget(sid)
        raise Unavailable("the session is being written by others; try again")

    async def _attempt_held(self, tenant: str, sid: UUID, work: Work) -> Committed | None:
        """One try with the session's row held, so that nobody is first. None also when there is no session."""
        done: list[tuple[Stand, Change, Applied]] = []
        try:
            async with self._database.connection() as connection, connection.transaction():
                row = await sessions.hold(connection, sid)
                if row is None:
                    return None

                async def submit(change: Change, _: int) -> Applied | NotApplied:
                    return (await sql.commit_all(connection, [change]))[0]

                settle = partial(self._settler.settle, connection=connection)
                stand = self._heads.learn(tenant, row)
                answer = await self._attempt(stand, work, submit, settle, lambda *applied: done.append(applied))
        except BaseException:
            self._heads.forget(sid)  # what was remembered within may not have been committed
            raise
        for applied in done:  # now it is durable
            self._remember(tenant, work.request, *applied)
        return answer

    async def _attempt(
        self,
        stand: Stand,
        work: Work,
        submit: Submit,
        settle: Settle,
        applied: Callable[[Stand, Change, Applied], None],
    ) -> Committed | None:
        """One try; None means: look again. ``applied`` hears of what was stored."""
        request, identity = work.request, work.identity(stand.vault)
        pre_keys = pre_keys_of(stand.head, work)
        may = may_journal(stand.head, work, pre_keys)
        if needs_rows(stand.head, work, identity, may=may):
            settled = await settle(stand)
            if settled is None:
                return None
            stand = settled
        try:
            replayed = check(stand, work, identity)
        except (Refused, VersionMismatch, Deleted, KeyReused):
            if stand.row is not None:
                raise
            return None
        if replayed is not None:
            return replayed if stand.row is not None else None
        change = change_of(stand, work, identity or stand.head.identity, pre_keys.top, may=may)
        try:
            outcome = await submit(change, weight_in_lane(change))
        except BaseException:
            self._heads.forget(stand.head.sid)  # whether it applied is not known
            raise
        if isinstance(outcome, NotApplied):
            _doubt(work, change, outcome)
            if outcome.clash and stand.row is not None:
                await self._forgive_spelling(stand, request)
                work.forgiven = stand.head.version
            return None
        applied(stand, change, outcome)
        return Committed(outcome.version, outcome.epoch)

    def begin(self, tenant: str, name: str, request: CommitRequest) -> "Begun | None":
        """A commit on its way to the database, if nothing keeps it from going at once; to be followed by `end`.

        None when there is something to wait for, to look up or to refuse: `commit` does that. Until its end the session's
        turn is this commit's.
        """
        stand = self._heads.remembered(sid_of(tenant, name))
        if stand is None or request.reads_long:
            return None
        line = self._heads.line(stand.head.sid)
        if not line.enter_now():
            return None
        try:
            work = Work(request)
            change = change_at_once(stand, work)
            if change is not None:
                answer = self._lanes.enqueue(change, weight_in_lane(change))
                return Begun(tenant, name, line, stand, work, change, answer)
        except Exception:  # noqa: S110 - `commit` meets it again, and tells it to whom it concerns
            pass
        line.leave()
        return None

    async def end(self, begun: "Begun") -> Committed:
        """Raises what `commit` does; when it did not apply, it is tried in the long way, still in its turn."""
        try:
            outcome = await begun.answer
            if not isinstance(outcome, NotApplied):
                return self._stored(begun, outcome)
            _doubt(begun.work, begun.change, outcome)
            sid = begun.stand.head.sid
            self._heads.forget(sid)
            return await self._until_done(begun.tenant, begun.name, sid, begun.work)
        except BaseException:
            self._heads.forget(begun.stand.head.sid)  # whether it applied is not known
            raise
        finally:
            begun.line.leave()

    def end_now(self, begun: "Begun") -> Committed | None:
        """`end` where the answer is there and it applied, as for most that left with others; None: `end` is to follow."""
        answer = begun.answer
        if not answer.done() or answer.cancelled() or answer.exception() is not None:
            return None
        outcome = answer.result()
        if isinstance(outcome, NotApplied):
            return None
        try:
            done = self._stored(begun, outcome)
        except Exception:
            return None  # `end` meets it again, and tells it to whom it concerns
        begun.line.leave()
        return done

    def _stored(self, begun: "Begun", outcome: Applied) -> Committed:
        self._remember(begun.tenant, begun.work.request, begun.stand, begun.change, outcome)
        return Committed(outcome.version, outcome.epoch)

    def abandon(self, begun: "Begun") -> None:
        """Instead of `end`, when nobody waits for it any more."""
        begun.answer.cancel()  # or an error that nobody hears would be told of as one that was forgotten
        self._heads.forget(begun.stand.head.sid)
        begun.line.leave()

    def _remember(self, tenant: str, request: CommitRequest, stand: Stand, change: Change, done: Applied) -> None:
        now, head = monotonic(), stand.head.after(change, done)
        self._heads.remember(head, stand.vault, change.mask, stand.pace.after(now))
        if change.journal is not None:
            share, weight = change.journal_share, change.journal_weight
            self._heads.journals.added(stand.head, request.creds, request.rows, share, weight)
            self._settler.note(tenant, head, now)

    async def _create(self, tenant: str, name: str, sid: UUID, vacant: Vacant, work: Work) -> Committed | None:
        request = work.request
        if request.lease_epoch is not None:
            raise fenced(request.lease_epoch, vacant)
        if request.if_match is not None:
            raise VersionMismatch
        dek_id, data_key = new_data_key()
        vault = SessionVault(tenant, sid.bytes, dek_id, data_key)
        identity, top = work.identity(vault) or Identity(), pre_keys_of(None, work).top
        change = first_change(sid, vacant, vault, work.rows(vault), identity, work, top)
        wrapped = self._heads.masters.wrap(data_key, wrap_context(tenant, sid.bytes, dek_id))
        async with self._database.connection() as connection:
            made = await whole.create(connection, change, tenant=tenant, name=name, epoch=vacant.epoch, wrapped=wrapped)
            if made is None:
                await renew(connection, self._heads.masters)
                return None
        self._heads.remember(first_head(change, made["epoch"], wrapped), vault, change.mask)
        return Committed(made["version"], made["epoch"])

    async def _forgive_spelling(self, stand: Stand, request: CommitRequest) -> None:
        """PreKeyOverwritten unless every stored pre-key holds the same pair, spelled another way."""
        rows = [row for row in request.rows if row.ktype == PRE_KEY and row.value is not None]
        khs = [stand.vault.find(row.ktype, row.key_id) for row in rows]
        got = await self._reads.submit(Wanted(stand.head.sid, khs), len(khs))
        for place, stored in got.rows.items():
            _, text = stand.vault.open(stored.ktype, stored.kh, stored.digest, stored.sealed)
            value = rows[place].value
            if text != value and (value is None or not same_pair(text, value)):
                raise PreKeyOverwritten(pointer=f"/keys/{PRE_KEY}")


def _doubt(work: Work, change: Change, outcome: NotApplied) -> None:
    if outcome.doubtful and work.doubted is None:
        work.doubted = change.expected
