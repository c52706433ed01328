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
"""

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from msgspec.structs import replace
from typing_extensions import override

from protocol import creds
from protocol.errors import BadValue
from protocol.pre_key import same_pair
from protocol.types import PRE_KEY, session_uuid
from service.errors import (
    BadInput,
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
)
from service.sql import commit as sql
from service.sql import sessions, whole
from service.sql.keys import Got, Wanted
from service.sql.lanes import Lanes
from service.sql.pool import Database
from service.store.entries import MirrorEntry, purpose
from service.store.guards import judge
from service.store.heads import Heads, Stand
from service.store.keyring import renew
from service.vault import CREDS_TYPE, PRIME, SessionVault, new_data_key, weigh, wrap_context

_ATTEMPTS: Final = 50
_UNHELD: Final = 4  # attempts before a session is held
_WHOLE_WEIGHT: Final = 1 << 30  # more than a statement takes: a replacement travels alone
_DIGEST: Final = struct.Struct(">qq")

Submit = Callable[[Change, int], Awaitable[Applied | NotApplied]]
CommitLanes = Lanes[Change, Applied | NotApplied]
ReadLanes = Lanes[Wanted, Got]


class Row(NamedTuple):
    """One key as it was sent; ``value`` is its JSON text, None deletes."""

    ktype: str
    key_id: bytes
    value: bytes | None

    @override
    def __repr__(self) -> str:
        return "<Row>"


class CommitRequest(Value, frozen=True, gc=False):
    """A commit as it was sent, names checked. ``whole``: replaces everything, under the guards (``reset`` is without).
    ``only_new``: VersionMismatch when the session is there already.
    """

    creds: bytes | None = None
    rows: Sequence[Row] = ()
    reset: bool = False
    force: bool = False
    whole: bool = False
    lease_epoch: int | None = None
    if_match: int | None = None
    only_new: bool = False
    key: UUID | None = None


class Committed(Value, frozen=True, gc=False):
    version: int
    epoch: int


class _Sealed(Value, frozen=True, gc=False):
    """The request under one vault: reused when the same commit is tried again."""

    rows: list[SealedRow]
    identity: Identity | None
    fingerprint: bytes


class _Work:
    """A commit on its way. ``forgiven``: the version whose pre-keys it only spells anew."""

    def __init__(self, request: CommitRequest, view: creds.CredsView | None) -> None:
        self.request = request
        self.forgiven: int | None = None
        self._view = view
        self._sealed: dict[int, _Sealed] = {}

    def sealed(self, vault: SessionVault) -> _Sealed:
        """Sealed once a data key, however often it is tried."""
        if vault.dek_id not in self._sealed:
            self._sealed[vault.dek_id] = _seal(vault, self.request, self._view)
        return self._sealed[vault.dek_id]


class Commits:
    """Applies commits of any session, those of one session in the order they came."""

    def __init__(self, database: Database, heads: Heads, lanes: CommitLanes, reads: ReadLanes) -> None:
        self._database = database
        self._heads = heads
        self._lanes = lanes
        self._reads = reads

    async def commit(self, tenant: str, name: str, request: CommitRequest) -> Committed:
        """Raises Refused and its kin, VersionMismatch, Deleted, KeyReused, BadInput, Unavailable."""
        sid = session_uuid(tenant, name)
        if request.key is None:
            request = replace(request, key=uuid4())  # ours, to find out what became of a lost answer
        view = _view(request)
        async with self._heads.line(sid):
            work = _Work(request, view)
            for attempt in range(_ATTEMPTS):
                if attempt >= _UNHELD and attempt % 2:
                    done = await self._attempt_held(tenant, sid, work)
                else:
                    stand = self._heads.remembered(sid) or await self._heads.look(tenant, sid)
                    if isinstance(stand, Vacant):
                        done = await self._create(tenant, name, sid, stand, request, view)
                    else:
                        done = await self._attempt(stand, work, self._lanes.submit)
                if done is not None:
                    return done
                self._heads.forget(sid)
        raise Unavailable("the session is being written by others; try again")

    async def _attempt_held(self, tenant: str, sid: UUID, work: _Work) -> Committed | None:
        """One try with the session's row held, so that nobody is first. None also when there is no session."""
        try:
            async with self._database.connection() as connection, connection.transaction():
                row = await sessions.hold(connection, sid)
                if row is None:
                    return None

                async def submit(change: Change, _: int) -> Applied | NotApplied:
                    return (await sql.commit_all(connection, [change]))[0]

                return await self._attempt(self._heads.learn(tenant, row), work, submit)
        except BaseException:
            self._heads.forget(sid)  # what was remembered within may not have been committed
            raise

    async def _attempt(self, stand: Stand, work: _Work, submit: Submit) -> Committed | None:
        """One try; None means: look again."""
        request, sealed = work.request, work.sealed(stand.vault)
        try:
            replayed = _check(stand, request, sealed)
        except (Refused, VersionMismatch, Deleted, KeyReused):
            if stand.row is not None:
                raise
            return None
        if replayed is not None:
            return replayed if stand.row is not None else None
        change = _change(stand, request, sealed, overwrite=request.force or work.forgiven == stand.head.version)
        try:
            outcome = await submit(change, _WHOLE_WEIGHT if change.replace else len(change.rows))
        except BaseException:
            self._heads.forget(stand.head.sid)  # whether it applied is not known
            raise
        if isinstance(outcome, NotApplied):
            if outcome.clash and stand.row is not None:
                await self._forgive_spelling(stand, request)
                work.forgiven = stand.head.version
            return None
        self._heads.remember(stand.head.after(change, outcome), stand.vault, change.mask)
        return Committed(outcome.version, outcome.epoch)

    async def _create(
        self, tenant: str, name: str, sid: UUID, vacant: Vacant, request: CommitRequest, view: creds.CredsView | None
    ) -> Committed | None:
        if request.lease_epoch is not None:
            raise Fenced("there is no such session, so there is no lease on it")
        if request.if_match is not None:
            raise VersionMismatch
        dek_id, data_key = new_data_key()
        vault = SessionVault(tenant, sid.bytes, dek_id, data_key)
        sealed = _seal(vault, request, view)
        change = first_change(sid, vacant, vault, sealed.rows, sealed.identity or Identity(), _entry(request, sealed))
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
    sid: UUID, vacant: Vacant, vault: SessionVault, rows: list[SealedRow], identity: Identity, entry: Recent | None
) -> Change:
    """The change that makes a session: with an entry (a commit) at version 1 after ``vacant``, without at its own."""
    version = vacant.version + (entry is not None)
    recent = b"" if entry is None else remember(b"", replace(entry, version=version))
    kept = [row for row in rows if row.sealed is not None]
    mask = vault.mask(bind(version, vault.dek_id, recent, identity))
    mark = (_weight(kept) + mask) % PRIME
    return Change(sid, version, vault.dek_id, None, mark, kept, True, recent, identity, mask)


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
    )


def _view(request: CommitRequest) -> creds.CredsView | None:
    if request.creds is None:
        if request.reset:
            raise BadInput("reset comes with the new creds", pointer="/reset")
        return None
    try:
        return creds.view(request.creds)
    except BadValue as error:
        raise BadInput(str(error), pointer="/creds" + error.pointer) from None


def _seal(vault: SessionVault, request: CommitRequest, view: creds.CredsView | None) -> _Sealed:
    plain: list[tuple[str, bytes, bytes | None]] = list(request.rows)
    if request.creds is not None:
        plain.append((CREDS_TYPE, b"", request.creds))
    identity = None
    if view is not None:
        tag = None if view.identity is None else vault.tag_identity(view.identity)
        identity = Identity(tag, view.paired, view.counters)
    elif request.whole:
        identity = Identity()
    rows = vault.seal_all(plain)
    return _Sealed(rows, identity, vault.fingerprint(_meaning(request, rows)))


def _meaning(request: CommitRequest, rows: Sequence[SealedRow]) -> bytes:
    flags = bytes((request.reset, request.force, request.whole))
    return flags + b"".join([row.kh + (b"-" if row.sealed is None else _DIGEST.pack(*row.digest)) for row in rows])


def _check(stand: Stand, request: CommitRequest, sealed: _Sealed) -> Committed | None:
    """What was committed, when this is a replay; raises when it must not be applied."""
    head = stand.head
    if head.deleted:
        raise Deleted
    known = head.remembered(request.key) if request.key is not None else None
    if known is not None:
        if known.fingerprint != sealed.fingerprint:
            raise KeyReused
        return Committed(known.version, head.epoch)
    _check_lease(stand, request)
    if request.only_new or (request.if_match is not None and request.if_match != head.version):
        raise VersionMismatch
    if sealed.identity is not None and not (request.force or request.reset):
        judge(head.identity, sealed.identity, has_keys=head.rows > 1)
    return None


def _check_lease(stand: Stand, request: CommitRequest) -> None:
    if request.lease_epoch is not None:
        if request.lease_epoch != stand.head.epoch:
            raise Fenced
    elif stand.row is not None and stand.row.lease is not None and stand.row.lease.live:
        raise Fenced


def _change(stand: Stand, request: CommitRequest, sealed: _Sealed, *, overwrite: bool) -> Change:
    head = stand.head
    wipe = request.reset or request.whole
    identity = sealed.identity or head.identity
    recent = remember(head.recent, _entry(request, sealed, head.version + 1))
    rows = [row for row in sealed.rows if row.sealed is not None] if wipe else sealed.rows
    mask = stand.vault.mask(bind(head.version + 1, head.dek_id, recent, identity))
    mark = _weight(rows) + mask
    if not wipe:
        mark -= stand.masked()
    return Change(
        head.sid,
        head.version,
        head.dek_id,
        request.lease_epoch,
        mark % PRIME,
        rows,
        overwrite,
        recent,
        identity,
        mask,
        wipe,
        _mirror_entry(stand, request, wipe=wipe) if head.mirrored else None,
        head.rows <= 1,  # creds
    )


def _mirror_entry(stand: Stand, request: CommitRequest, *, wipe: bool) -> bytes:
    version = stand.head.version + 1
    rows = [(row.ktype, row.key_id, row.value) for row in request.rows]
    return stand.vault.seal_entry(purpose(version), MirrorEntry(wipe, request.creds, rows).encode())


def _entry(request: CommitRequest, sealed: _Sealed, version: int = 0) -> Recent:
    assert request.key is not None  # noqa: S101 - commit() gave one
    return Recent(request.key, sealed.fingerprint, version)


def _weight(rows: Sequence[SealedRow]) -> int:
    return sum(weigh(row.weights, row.digest) for row in rows if row.sealed is not None)
