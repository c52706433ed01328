"""What a commit makes of a session: judged, sealed, marked. Pure: neither waits nor touches the world but for the clock.

A commit is let through by what is known of the session (`check`) and becomes a `Change`: rows, or an entry of the journal.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from service.errors import Deleted, KeyReused, OutcomeUnknown, VersionMismatch
from service.records import (
    RECENT_KEPT,
    Applied,
    Change,
    Head,
    Identity,
    NotApplied,
    SealedRow,
    Vacant,
    Value,
    bind,
    remember,
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
    work: Work | None,
    pre_key_top: int | None = NO_PRE_KEYS,
) -> Change:
    """The change that makes a session: by a commit at version 1 after ``vacant``, without one at its own."""
    version = vacant.version + (work is not None)
    recent = b"" if work is None else remember(b"", work.key, work.fingerprint(vault), version)
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


def pre_keys_of(head: Head | None, work: Work) -> PreKeys:
    """What the commit does to the pre-keys of a session; ``head`` None: of one that is made by it."""
    return pre_keys_after(NO_PRE_KEYS if head is None or work.wipes else head.pre_key_top, work.request.rows)


def may_journal(head: Head, work: Work, pre_keys: PreKeys) -> bool:
    """Whether it can wait in the journal: it replaces nothing, and no stored row has to be looked at first."""
    if work.wipes or head.mirrored or work.weight > _JOURNAL_MOST:
        return False
    return work.request.force or pre_keys.new


def change_at_once(stand: Stand, work: Work) -> Change | None:
    """The change, when all that is remembered lets it through. Raises when it does not."""
    head, identity = stand.head, work.identity(stand.vault)
    pre_keys = pre_keys_of(head, work)
    may = may_journal(head, work, pre_keys)
    if needs_rows(head, work, identity, may=may) or check(stand, work, identity) is not None:
        return None
    return change_of(stand, work, identity or head.identity, pre_keys.top, may=may)


def needs_rows(head: Head, work: Work, identity: Identity | None, *, may: bool) -> bool:
    """Whether what waits in the journal has to become rows first: to be judged by, to be written over, or to stay small.

    ``may``: see `may_journal`.
    """
    if not head.pending or head.deleted:
        return False
    request = work.request
    if identity is not None and not (request.force or request.reset) and identity.tag != head.identity.tag:
        return True  # whether keys are stored, their rows say
    return not work.wipes and (not may or is_full(head))


def check(stand: Stand, work: Work, identity: Identity | None) -> Committed | None:
    """What was committed, when this is a replay; raises when it must not be applied."""
    head, request = stand.head, work.request
    if head.deleted:
        raise Deleted
    known = head.remembered(work.key)
    if known is not None:
        if not work.is_known_by(known.fingerprint, stand.vault):
            raise KeyReused
        # Under the epoch that it named: who lost the lease is not to learn the new owner's.
        return Committed(known.version, head.epoch if request.lease_epoch is None else request.lease_epoch)
    if request.if_match is None and work.doubted is not None and head.version - work.doubted > RECENT_KEPT:
        raise OutcomeUnknown  # its key may have been pushed out: applied again it would stand above all that came since
    if request.lease_epoch != head.epoch:
        _check_lease(stand, request)
    if request.only_new or (request.if_match is not None and request.if_match != head.version):
        raise VersionMismatch
    if identity is not None and not (request.force or request.reset):
        judge(head.identity, identity, has_keys=head.rows > 1)
    return None


def _check_lease(stand: Stand, request: CommitRequest) -> None:
    """Of a request that does not name the session's epoch."""
    if request.lease_epoch is not None:
        raise fenced(request.lease_epoch, stand.row)
    if stand.row is not None and stand.row.lease is not None and stand.row.lease.live:
        raise fenced(None, stand.row)


def change_of(stand: Stand, work: Work, identity: Identity, top: int | None, *, may: bool) -> Change:
    """The commit as it is stored: ``top`` is the session's highest pre-key id after it; ``may``: see `may_journal`."""
    head, request, vault = stand.head, work.request, stand.vault
    version = head.version + 1
    recent = remember(head.recent, work.key, work.fingerprint(vault), version)
    mask = vault.mask(bind(version, head.dek_id, recent, identity, top))
    journal: bytes | None = None
    rows: list[SealedRow] = []
    weight = share = 0
    if may and _hurries(stand, request):
        journal = vault.seal_entry(in_journal(version), work.entry)
        weight = work.weight + len(journal) - len(work.entry)
        share = vault.weigh_entry(version, journal)
        mark = share + mask - stand.masked()
    else:
        rows = work.rows(vault)
        if work.wipes:
            rows = [row for row in rows if row.sealed is not None]
        mark = _weight(rows) + mask - (0 if work.wipes else stand.masked())
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
        work.wipes,
        vault.seal_entry(in_mirror(version), work.entry) if head.mirrored else None,
        head.rows <= 1,  # creds
        journal,
        weight,
        share,
        top,
        identity == head.identity and top == head.pre_key_top,
    )


def _hurries(stand: Stand, request: CommitRequest) -> bool:
    """What is large goes into the journal, and what comes in a burst, and what follows while that waits."""
    return bool(stand.head.pending or len(request.rows) >= _JOURNAL_FROM or stand.pace.hurried(monotonic()))


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
