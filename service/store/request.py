"""A commit as it was asked for, and what is made of it once, however often it is tried."""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from typing_extensions import override

from protocol import creds
from protocol.errors import BadValue
from service.errors import BadInput
from service.records import Identity, SealedRow, Value, weigh_commit
from service.store.entries import Entry
from service.vault import CREDS_TYPE, SessionVault

_DIGEST: Final = struct.Struct(">qq")
_LARGE_CREDS: Final = 1 << 17
"""From here on to read them would keep the loop from its other work. Real ones have 4 to 40 KB."""


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

    @property
    def reads_long(self) -> bool:
        """Its creds are read aside."""
        return self.creds is not None and len(self.creds) >= _LARGE_CREDS

    @property
    def wipes(self) -> bool:
        """Nothing of what was there before stays."""
        return self.reset or self.whole


class Work:
    """A commit on its way. ``forgiven``: the version whose pre-keys it only spells anew. ``doubted``: the version it was
    first sent for when the answer was lost.

    ``key``: by which it is remembered (16 bytes), ours where it came without, to find out what became of a lost answer.
    ``entry``: the commit as a journal or a mirror keeps it, not yet sealed; ``weight``: what it is to a journal so
    (`records.weigh_commit`). Raises BadInput for creds that are none.
    """

    __slots__ = ("_rows", "_view", "doubted", "entry", "forgiven", "key", "request", "weight", "wipes")

    def __init__(self, request: CommitRequest) -> None:
        self.request = request
        self.forgiven: int | None = None
        self.doubted: int | None = None
        self.key = (request.key or uuid4()).bytes
        self.wipes = request.wipes
        self.entry = Entry(self.wipes, request.creds, request.rows).encode()
        self.weight = weigh_commit(len(self.entry), len(request.rows) + (request.creds is not None))
        self._view = _view(request)
        self._rows: dict[int, list[SealedRow]] = {}

    def __repr__(self) -> str:
        return "<Work>"

    def identity(self, vault: SessionVault) -> Identity | None:
        """What the session's row will hold of the creds; None when they stay as they are."""
        view = self._view
        if view is None:
            return Identity() if self.request.whole else None
        return Identity(
            None if view.identity is None else vault.tag_identity(view.identity), view.paired, view.counters
        )

    def fingerprint(self, vault: SessionVault) -> bytes:
        """Of the commit's meaning: its text, and what it may override."""
        return vault.fingerprint(self.key, self._flags() + self.entry)

    def is_known_by(self, fingerprint: bytes, vault: SessionVault) -> bool:
        """Whether a remembered commit was this one."""
        return fingerprint == self.fingerprint(vault) or fingerprint == self._fingerprint_of_rows(vault)

    def _fingerprint_of_rows(self, vault: SessionVault) -> bytes:
        """As releases before the journal made it: a commit sent again after an upgrade is still known."""
        rows = self.rows(vault)
        return vault.fingerprint_of_rows(
            self._flags()
            + b"".join([row.kh + (b"-" if row.sealed is None else _DIGEST.pack(*row.digest)) for row in rows])
        )

    def rows(self, vault: SessionVault) -> list[SealedRow]:
        """Sealed once a data key."""
        found = self._rows.get(vault.dek_id)
        if found is None:
            plain: list[tuple[str, bytes, bytes | None]] = list(self.request.rows)
            if self.request.creds is not None:
                plain.append((CREDS_TYPE, b"", self.request.creds))
            found = self._rows[vault.dek_id] = vault.seal_all(plain)
        return found

    def _flags(self) -> bytes:
        request = self.request
        return bytes((request.reset, request.force, request.whole))


def _view(request: CommitRequest) -> creds.CredsView | None:
    if request.creds is None:
        if request.reset:
            raise BadInput("reset comes with the new creds", pointer="/reset")
        return None
    try:
        return creds.view(request.creds)
    except BadValue as error:
        raise BadInput(str(error), pointer="/creds" + error.pointer) from None
