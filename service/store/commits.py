"""A commit from request to answer: judge, seal, apply, or say why not.

| what can happen | what follows |
|---|---|
| the process dies before the statement's answer | applied or not, whole; the client sends it again with its key |
| the connection dies, the answer is lost | the same change is run again: it applies only to the version it was made for; \
if it had applied, its key is found among the session's remembered ones |
| the server stays away past our patience | Unavailable; the client sends it again with its key |
| another process committed meanwhile | nothing applied; look again, judge again, try again (or 412 when If-Match was given); \
when others are first again and again, the session's row is held from the look to the commit |
| a lease changed hands | nothing applied; Fenced after a fresh look |
| a mirror was switched on or off meanwhile | that raised the version: nothing applied; look again |
| a remembered head was stale | refusals are only spoken after a fresh look |
| it is large, or one of a burst, or follows others that wait | it is stored as an entry of the journal (`sql.journal`), \
and carried over to rows later (`settling`); what has to see or change rows settles the journal first |
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

from msgspec.structs import replace

from protocol.pre_key import same_pair
from protocol.types import PRE_KEY, session_uuid
from service.errors import (
    Deleted,
    Fenced,
    KeyReused,
    PreKeyOverwritten,
    Refused,
    Unavailable,
    VersionMismatch,
)
from service.records import (
    Applied,
    Change,
    Head,
    Identity,
    NotApplied,
    Recent,
    SealedRow,
    Vacant,
    Value,
    bind,
    remember,
    weigh_commit,
)
from service.sql import commit as sql
from service.sql import sessions, whole
from service.sql.keys import Got, Wanted
from service.sql.lanes import Lanes
from service.sql.pool import Database
from service.store.entries import in_journal, in_mirror
from service.store.guards import NO_PRE_KEYS, PreKeys, judge, pre_keys_after
from service.store.heads import Heads, Line, Stand
from service.store.keyring import renew
from service.store.request import CommitRequest, Work
from service.store.settling import Settler, is_full
from service.vault import PRIME, SessionVault, new_data_key, weigh, wrap_context

_ATTEMPTS: Final = 50
_UNHELD: Final = 4  # attempts before a session is held
_WHOLE_WEIGHT: Final = 1 << 30  # more than a statement takes: a replacement travels alone
_JOURNAL_FROM: Final = 32  # rows
_JOURNAL_MOST: Final = 1 << 22  # what one weighs

Settle = Callable[[Stand], Awaitable[Stand | None]]
Submit = Callable[[Change, int], Awaitable[Applied | NotApplied]]
CommitLanes = Lanes[Change, Applied | NotApplied]
ReadLanes = Lanes[Wanted, Got]


class Committed(Value, frozen=True, gc=False):
    version: int
    epoch: int


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

    async def commit(self, tenant: str, name: str, request: CommitRequest) -> Committed:
        """Raises Refused and its kin, VersionMismatch, Deleted, KeyReused, BadInput, Unavailable."""
        sid = session_uuid(tenant, name)
        work = Work(_named(request))
        async with self._heads.line(sid):
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
        pre_keys = _pre_keys(stand.head, request)
        if _needs_rows(stand.head, work, identity, pre_keys):
            settled = await settle(stand)
            if settled is None:
                return None
            stand = settled
        try:
            replayed = _check(stand, work, identity)
        except (Refused, VersionMismatch, Deleted, KeyReused):
            if stand.row is not None:
                raise
            return None
        if replayed is not None:
            return replayed if stand.row is not None else None
        change = _change(stand, work, identity or stand.head.identity, pre_keys)
        try:
            outcome = await submit(change, _weight_in_lane(change))
        except BaseException:
            self._heads.forget(stand.head.sid)  # whether it applied is not known
            raise
        if isinstance(outcome, NotApplied):
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
        stand = self._heads.remembered(session_uuid(tenant, name))
        if stand is None:
            return None
        line = self._heads.line(stand.head.sid)
        if not line.enter_now():
            return None
        try:
            work = Work(_named(request))
            change = _change_at_once(stand, work)
            if change is not None:
                answer = self._lanes.enqueue(change, _weight_in_lane(change))
                return Begun(tenant, name, line, stand, work, change, answer)
        except Exception:  # noqa: S110 - `commit` meets it again, and tells it to whom it concerns
            pass
        line.leave()
        return None

    async def end(self, begun: "Begun") -> Committed:
        """Raises what `commit` does; when it did not apply, it is tried in the long way, still in its turn."""
        sid = begun.stand.head.sid
        try:
            outcome = await begun.answer
            if isinstance(outcome, NotApplied):
                self._heads.forget(sid)
                return await self._until_done(begun.tenant, begun.name, sid, begun.work)
            self._remember(begun.tenant, begun.work.request, begun.stand, begun.change, outcome)
        except BaseException:
            self._heads.forget(sid)  # whether it applied is not known
            raise
        finally:
            begun.line.leave()
        return Committed(outcome.version, outcome.epoch)

    def abandon(self, begun: "Begun") -> None:
        """Instead of `end`, when nobody waits for it any more."""
        begun.answer.cancel()  # or an error that nobody hears would be told of as one that was forgotten
        self._heads.forget(begun.stand.head.sid)
        begun.line.leave()

    def _remember(self, tenant: str, request: CommitRequest, stand: Stand, change: Change, done: Applied) -> None:
        head = stand.head.after(change, done)
        self._heads.remember(head, stand.vault, change.mask, stand.pace.after(monotonic()))
        if change.journal is not None:
            share, weight = change.journal_share, change.journal_weight
            self._heads.journals.added(stand.head, request.creds, request.rows, share, weight)
            self._settler.note(tenant, head)

    async def _create(self, tenant: str, name: str, sid: UUID, vacant: Vacant, work: Work) -> Committed | None:
        request = work.request
        if request.lease_epoch is not None:
            raise Fenced("there is no such session, so there is no lease on it")
        if request.if_match is not None:
            raise VersionMismatch
        dek_id, data_key = new_data_key()
        vault = SessionVault(tenant, sid.bytes, dek_id, data_key)
        identity, top = work.identity(vault) or Identity(), _pre_keys(None, request).top
        change = first_change(sid, vacant, vault, work.rows(vault), identity, _entry(work, vault), top)
        wrapped = self._heads.masters.wrap(data_key, wrap_context(tenant, sid.bytes, dek_id))
        async with self._database.connection() as connection:
            made = await whole.create(connection, change, tenant=tenant, name=name, epoch=vacant.epoch, wrapped=wrapped)
            if made is None:
                await renew(connection, self._heads.masters)
                return None
        self._heads.remember(_first_head(change, made["epoch"], wrapped), vault, change.mask)
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


def first_change(
    sid: UUID,
    vacant: Vacant,
    vault: SessionVault,
    rows: list[SealedRow],
    identity: Identity,
    entry: Recent | None,
    pre_key_top: int | None = NO_PRE_KEYS,
) -> Change:
    """The change that makes a session: with an entry (a commit) at version 1 after ``vacant``, without at its own."""
    version = vacant.version + (entry is not None)
    recent = b"" if entry is None else remember(b"", replace(entry, version=version))
    kept = [row for row in rows if row.sealed is not None]
    mask = vault.mask(bind(version, vault.dek_id, recent, identity, pre_key_top))
    mark = (_weight(kept) + mask) % PRIME
    return Change(sid, version, vault.dek_id, None, mark, kept, True, recent, identity, mask, pre_key_top=pre_key_top)


def _first_head(change: Change, epoch: int, wrapped: tuple[str, bytes]) -> Head:
    """The head of a session just made by a first change."""
    return Head(
        sid=change.sid,
        version=change.expected,
        epoch=epoch,
        master_key_id=wrapped[0],
        dek_id=change.dek_id,
        wrapped_key=wrapped[1],
        rows=len(change.rows),
        mark=change.mark_delta,
        recent=change.recent,
        identity=change.identity,
        deleted=False,
        pre_key_top=change.pre_key_top,
    )


def _pre_keys(head: Head | None, request: CommitRequest) -> PreKeys:
    """What the commit does to the pre-keys of a session; ``head`` None: of one that is made by it."""
    return pre_keys_after(NO_PRE_KEYS if head is None or request.wipes else head.pre_key_top, request.rows)


def _may_journal(head: Head, work: Work, pre_keys: PreKeys) -> bool:
    request = work.request
    if request.wipes or head.mirrored or _weigh(work, len(work.entry)) > _JOURNAL_MOST:
        return False
    return request.force or pre_keys.new


def _journals(stand: Stand, work: Work, pre_keys: PreKeys) -> bool:
    """What is large goes into the journal, and what comes in a burst, and what follows while that waits."""
    wanted = stand.head.pending or len(work.request.rows) >= _JOURNAL_FROM or stand.pace.hurried(monotonic())
    return bool(wanted) and _may_journal(stand.head, work, pre_keys)


def _weigh(work: Work, size: int) -> int:
    return weigh_commit(size, len(work.request.rows) + (work.request.creds is not None))


def _named(request: CommitRequest) -> CommitRequest:
    """With a key, ours where it came without, to find out what became of a lost answer."""
    return request if request.key is not None else replace(request, key=uuid4())


def _change_at_once(stand: Stand, work: Work) -> Change | None:
    """The change, when all that is remembered lets it through. Raises when it does not."""
    identity, pre_keys = work.identity(stand.vault), _pre_keys(stand.head, work.request)
    if _needs_rows(stand.head, work, identity, pre_keys) or _check(stand, work, identity) is not None:
        return None
    return _change(stand, work, identity or stand.head.identity, pre_keys)


def _needs_rows(head: Head, work: Work, identity: Identity | None, pre_keys: PreKeys) -> bool:
    """Whether what waits in the journal has to become rows first: to be judged by, to be written over, or to stay small."""
    request = work.request
    if not head.pending or head.deleted:
        return False
    if identity is not None and not (request.force or request.reset) and identity.tag != head.identity.tag:
        return True  # whether keys are stored, their rows say
    return not request.wipes and (is_full(head) or not _may_journal(head, work, pre_keys))


def _check(stand: Stand, work: Work, identity: Identity | None) -> Committed | None:
    """What was committed, when this is a replay; raises when it must not be applied."""
    head, request = stand.head, work.request
    if head.deleted:
        raise Deleted
    known = head.remembered(request.key) if request.key is not None else None
    if known is not None:
        if not work.is_known_by(known.fingerprint, stand.vault):
            raise KeyReused
        return Committed(known.version, head.epoch)
    _check_lease(stand, request)
    if request.only_new or (request.if_match is not None and request.if_match != head.version):
        raise VersionMismatch
    if identity is not None and not (request.force or request.reset):
        judge(head.identity, identity, has_keys=head.rows > 1)
    return None


def _check_lease(stand: Stand, request: CommitRequest) -> None:
    if request.lease_epoch is not None:
        if request.lease_epoch != stand.head.epoch:
            raise Fenced
    elif stand.row is not None and stand.row.lease is not None and stand.row.lease.live:
        raise Fenced


def _change(stand: Stand, work: Work, identity: Identity, pre_keys: PreKeys) -> Change:
    head, request = stand.head, work.request
    version = head.version + 1
    recent = remember(head.recent, _entry(work, stand.vault, version))
    mask = stand.vault.mask(bind(version, head.dek_id, recent, identity, pre_keys.top))
    weight = share = 0
    if _journals(stand, work, pre_keys):
        journal = stand.vault.seal_entry(in_journal(version), work.entry)
        weight = _weigh(work, len(journal))
        share = stand.vault.weigh_entry(version, journal)
        mark, rows = share + mask - stand.masked(), []
    else:
        journal, rows = None, work.rows(stand.vault)
        if request.wipes:
            rows = [row for row in rows if row.sealed is not None]
        mark = _weight(rows) + mask - (0 if request.wipes else stand.masked())
    return Change(
        head.sid,
        head.version,
        head.dek_id,
        request.lease_epoch,
        mark % PRIME,
        rows,
        request.force or work.forgiven == head.version,
        recent,
        identity,
        mask,
        request.wipes,
        stand.vault.seal_entry(in_mirror(version), work.entry) if head.mirrored else None,
        head.rows <= 1,  # creds
        journal,
        weight,
        share,
        pre_keys.top,
    )


def _entry(work: Work, vault: SessionVault, version: int = 0) -> Recent:
    assert work.request.key is not None  # noqa: S101 - commit() gave one
    return Recent(work.request.key, work.fingerprint(vault), version)


def _weight(rows: Sequence[SealedRow]) -> int:
    return sum(weigh(row.weights, row.digest) for row in rows if row.sealed is not None)


def _weight_in_lane(change: Change) -> int:
    """In rows: what is large should not make others wait, nor fill a statement alone."""
    if change.journal is not None:
        return 1 + (len(change.journal) >> 10)
    return _WHOLE_WEIGHT if change.replace else len(change.rows)
