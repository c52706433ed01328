"""What a commit makes of a session: judged, sealed, marked. Pure: neither waits nor touches the world but for the clock.

A commit is let through by what is known of the session (`check`) and becomes a `Change`: rows, or an entry of the journal.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

from msgspec.structs import replace

from service.errors import Deleted, KeyReused, OutcomeUnknown, VersionMismatch
from service.records import (
    RECENT_KEPT,
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
from service.store.entries import in_journal, in_mirror
from service.store.guards import NO_PRE_KEYS, PreKeys, fenced, judge, pre_keys_after
from service.store.heads import Stand
from service.store.request import CommitRequest, Work
from service.store.settling import is_full
from service.vault import PRIME, SessionVault, weigh

_WHOLE_WEIGHT: Final = 1 << 30  # more than a statement takes: a replacement travels alone
_JOURNAL_FROM: Final = 32  # rows
_JOURNAL_MOST: Final = 1 << 22  # what one weighs


class Committed(Value, frozen=True, gc=False):
    version: int
    epoch: int


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


def first_head(change: Change, epoch: int, wrapped: tuple[str, bytes]) -> Head:
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


def pre_keys_of(head: Head | None, request: CommitRequest) -> PreKeys:
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


def with_key(request: CommitRequest) -> CommitRequest:
    """With a key, ours where it came without, to find out what became of a lost answer."""
    return request if request.key is not None else replace(request, key=uuid4())


def change_at_once(stand: Stand, work: Work) -> Change | None:
    """The change, when all that is remembered lets it through. Raises when it does not."""
    identity, pre_keys = work.identity(stand.vault), pre_keys_of(stand.head, work.request)
    if needs_rows(stand.head, work, identity, pre_keys) or check(stand, work, identity) is not None:
        return None
    return change_of(stand, work, identity or stand.head.identity, pre_keys)


def needs_rows(head: Head, work: Work, identity: Identity | None, pre_keys: PreKeys) -> bool:
    """Whether what waits in the journal has to become rows first: to be judged by, to be written over, or to stay small."""
    request = work.request
    if not head.pending or head.deleted:
        return False
    if identity is not None and not (request.force or request.reset) and identity.tag != head.identity.tag:
        return True  # whether keys are stored, their rows say
    return not request.wipes and (is_full(head) or not _may_journal(head, work, pre_keys))


def check(stand: Stand, work: Work, identity: Identity | None) -> Committed | None:
    """What was committed, when this is a replay; raises when it must not be applied."""
    head, request = stand.head, work.request
    if head.deleted:
        raise Deleted
    known = head.remembered(request.key) if request.key is not None else None
    if known is not None:
        if not work.is_known_by(known.fingerprint, stand.vault):
            raise KeyReused
        # Under the epoch that it named: who lost the lease is not to learn the new owner's.
        return Committed(known.version, head.epoch if request.lease_epoch is None else request.lease_epoch)
    if request.if_match is None and work.doubted is not None and head.version - work.doubted > RECENT_KEPT:
        raise OutcomeUnknown  # its key may have been pushed out: applied again it would stand above all that came since
    _check_lease(stand, request)
    if request.only_new or (request.if_match is not None and request.if_match != head.version):
        raise VersionMismatch
    if identity is not None and not (request.force or request.reset):
        judge(head.identity, identity, has_keys=head.rows > 1)
    return None


def _check_lease(stand: Stand, request: CommitRequest) -> None:
    if request.lease_epoch is not None:
        if request.lease_epoch != stand.head.epoch:
            raise fenced(request.lease_epoch, stand.row)
    elif stand.row is not None and stand.row.lease is not None and stand.row.lease.live:
        raise fenced(None, stand.row)


def change_of(stand: Stand, work: Work, identity: Identity, pre_keys: PreKeys) -> Change:
    head, request = stand.head, work.request
    version = head.version + 1
    recent = remember(head.recent, entry_of(work, stand.vault, version))
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
        identity == head.identity and pre_keys.top == head.pre_key_top,
    )


def entry_of(work: Work, vault: SessionVault, version: int = 0) -> Recent:
    assert work.request.key is not None  # noqa: S101 - commit() gave one
    return Recent(work.request.key, work.fingerprint(vault), version)


def _weight(rows: Sequence[SealedRow]) -> int:
    return sum(weigh(row.weights, row.digest) for row in rows if row.sealed is not None)


def doubtful(outcome: Applied | NotApplied) -> Applied | NotApplied:
    """What to make of an outcome when an earlier answer to the same change was lost."""
    return replace(outcome, doubtful=True) if isinstance(outcome, NotApplied) else outcome


def weight_in_lane(change: Change) -> int:
    """In rows: what is large should not make others wait, nor fill a statement alone."""
    if change.journal is not None:
        return 1 + (len(change.journal) >> 10)
    return _WHOLE_WEIGHT if change.replace else len(change.rows)
