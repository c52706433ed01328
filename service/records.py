"""The shapes that pass between store, vault and sql. Values only: no behaviour that touches the world."""

import struct
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct
from typing_extensions import override

from protocol.creds import Counters

RECENT_KEPT: Final = 16
"""How many of a session's last commits are remembered by their Idempotency-Key. They do not expire."""

_RECENT: Final = struct.Struct(">16s8sq")
_RECENT_BEFORE: Final = _RECENT.size * (RECENT_KEPT - 1)
_BOUND: Final = struct.Struct(">qI?16sqqqq")
_TOP: Final = struct.Struct(">q")
_NONE: Final = -1
_KEY_WEIGHT: Final = 256


class Hidden:
    """A shape that holds values, ids or names: it shows none of them, in no way."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Value(Hidden, Struct, frozen=True, gc=False):
    """Made by the thousand, in a third of the time that a dataclass takes."""


class SealedRow(Value, frozen=True, gc=False):
    """One row as the database keeps it. ``sealed`` None means: delete it. ``weights`` are secret and are not stored."""

    kh: bytes
    ktype: str
    sealed: bytes | None
    digest: tuple[int, int]
    weights: tuple[int, int]


class StoredRow(Value, frozen=True, gc=False):
    """One row as it was read."""

    kh: bytes
    ktype: str
    digest: tuple[int, int]
    sealed: bytes


class JournalEntry(Value, frozen=True, gc=False):
    """One commit of the journal as it was read."""

    version: int
    sealed: bytes


class Opened(Value, frozen=True, gc=False):
    """One key as it came out: ``value`` is the JSON text as it was sent."""

    ktype: str
    key_id: bytes
    value: bytes


class Identity(Value, frozen=True, gc=False):
    """What the session row holds of its creds: a keyed hash of the identity key, pairing, counters (see protocol.creds)."""

    tag: bytes | None = None
    paired: bool = False
    counters: Counters = (None, None, None, None)


class Recent(Value, frozen=True, gc=False):
    """A remembered commit, but for its key, by which it was found."""

    fingerprint: bytes
    version: int


class Head(Value, frozen=True, gc=False):
    """A session's row without its lease: all that a commit changes and the mark binds. Valid for one version.

    ``rows`` counts stored rows, creds among them. ``mirrored``: every commit also leaves an entry for the mirror.
    ``pending``: how many of the last commits lie in the journal, not yet in rows, and ``journal_weight`` what they weigh
    (`weigh_commit`); ``pre_key_top``: no stored pre-key has an id above this number, None where that is not known.
    """

    sid: UUID
    version: int
    epoch: int
    master_key_id: str
    dek_id: int
    wrapped_key: bytes
    rows: int
    mark: int
    recent: bytes
    identity: Identity
    deleted: bool
    mirrored: bool = False
    pending: int = 0
    journal_weight: int = 0
    pre_key_top: int | None = None

    @property
    def settled(self) -> int:
        """The version that the rows show."""
        return self.version - self.pending

    def bound(self) -> bytes:
        """What the session's mark binds beside the rows."""
        return bind(self.version, self.dek_id, self.recent, self.identity, self.pre_key_top)

    def after(self, change: "Change", done: "Applied") -> "Head":
        """The head that a commit left, but for its mark, which only the database knows."""
        journaled = change.journal is not None
        return Head(
            self.sid,
            done.version,
            done.epoch,
            self.master_key_id,
            self.dek_id,
            self.wrapped_key,
            done.rows,
            self.mark,
            change.recent,
            change.identity,
            self.deleted,
            self.mirrored,
            self.pending + 1 if journaled else 0,
            self.journal_weight + change.journal_weight if journaled else 0,
            change.pre_key_top,
        )

    def remembered(self, key: bytes) -> Recent | None:
        """The remembered commit of this Idempotency-Key (16 bytes)."""
        if key not in self.recent:  # as it mostly is not
            return None
        for at in range(0, len(self.recent), _RECENT.size):
            if self.recent.startswith(key, at):
                _, fingerprint, version = _RECENT.unpack_from(self.recent, at)
                return Recent(fingerprint, version)
        return None


def bind(version: int, dek_id: int, recent: bytes, identity: Identity, pre_key_top: int | None) -> bytes:
    """The text under the mask of a mark. Without a known top it is that of releases which had none."""
    counters: tuple[int | None, ...] = identity.counters
    if None in counters:
        counters = tuple(_NONE if n is None else n for n in counters)
    top = b"" if pre_key_top is None else _TOP.pack(pre_key_top)
    return _BOUND.pack(version, dek_id, identity.paired, identity.tag or b"", *counters) + recent + top


def weigh_commit(sealed: int, keys: int) -> int:
    """What a commit is to its journal: its bytes, and for each key what spreading it costs, as so many bytes."""
    return sealed + _KEY_WEIGHT * keys


def remember(recent: bytes, key: bytes, fingerprint: bytes, version: int) -> bytes:
    """The remembered commits with one more, the oldest dropped."""
    return recent[-_RECENT_BEFORE:] + _RECENT.pack(key, fingerprint, version)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may write. ``live`` is as of the moment it was read."""

    holder: str
    expires_at: datetime
    live: bool

    @property
    def ends(self) -> str:
        """RFC 3339, UTC."""
        return self.expires_at.isoformat().replace("+00:00", "Z")

    def bars(self, holder: str) -> bool:
        """Whether it keeps this one from taking the session without a takeover."""
        return self.live and self.holder != holder


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What is asked of a session's lease.

    ``takeover`` ends whatever lease there is and begins another, ``takeover_epoch`` does so while the session's epoch is
    this one; with ``epoch`` either ends only the lease of that epoch, of the same holder.
    """

    holder: str = field(repr=False)
    ttl_s: float
    takeover: bool
    takeover_epoch: int | None
    epoch: int | None

    def takes_over(self, epoch: int) -> bool:
        """Whether a session of this epoch is taken from whoever holds it."""
        return self.takeover or self.takeover_epoch == epoch


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease taken or renewed. ``event``: how, as far as can be told without a lock."""

    epoch: int
    expires_at: datetime
    event: Literal["granted", "renewed", "taken_over"]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session's row as it was read just now."""

    head: Head
    tenant: str
    name: str = field(repr=False)
    lease: Lease | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Vacant:
    """No such session; one made now starts from here (0, or where a purged one of this uuid stood)."""

    version: int = 0
    epoch: int = 0


class Change(Value, frozen=True, gc=False):
    """One commit, sealed and ready: applies exactly when the session stands at ``expected``.

    ``mask``: of the head that it leaves. ``entry``: the same commit sealed for the mirror, stored with it; None while the
    session has no mirror. ``keyless``: the session stores no keys yet, so that those that come are new. ``journal``: the
    commit as its journal keeps it, instead of ``rows``, ``journal_weight`` what it weighs there and ``journal_share`` what
    it has of the mark; None for one that is stored as rows. ``same_identity``: identity and ``pre_key_top`` are those that
    the session's row holds already.
    """

    sid: UUID
    expected: int
    dek_id: int
    lease_epoch: int | None
    mark_delta: int
    rows: list[SealedRow]
    overwrite: bool
    recent: bytes
    identity: Identity
    mask: int
    replace: bool = False
    entry: bytes | None = None
    keyless: bool = False
    journal: bytes | None = None
    journal_weight: int = 0
    journal_share: int = 0
    pre_key_top: int | None = None
    same_identity: bool = False


class Settling(Value, frozen=True, gc=False):
    """A session's waiting commits, ready to become rows: applies exactly when the rows show ``settled``.

    ``count`` and ``weight`` of the entries; ``mark_delta``: the rows' shares of the mark less the entries'. ``rows`` are put,
    those of ``gone`` (``kh``, each with its weights) deleted: a burst of messages uses up a pre-key each. ``keyless``: the
    session has no rows of keys yet, so that all that come are new.
    """

    sid: UUID
    settled: int
    dek_id: int
    count: int
    weight: int
    mark_delta: int
    rows: list[SealedRow]
    gone: list[bytes]
    gone_weights: list[tuple[int, int]]
    keyless: bool


class Applied(Value, frozen=True, gc=False):
    """Stored, and durable."""

    version: int
    epoch: int
    rows: int


class NotApplied(Value, frozen=True, gc=False):
    """The session did not stand as expected, or (``clash``) a stored pre-key has other bytes. Nothing was stored.

    ``doubtful``: but the same change had been sent before, over a connection that was lost, and may have applied then.
    """

    clash: bool
    doubtful: bool = False
