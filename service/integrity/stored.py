"""One session's stored rows and journal against its data key, their digests, its mark and its columns; what opens is judged
by the rules: of each key the last word, which is the journal's where it has one.

Goes on after a row that does not open. Such a row is named by its type and keyed hash, since its id is inside.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from protocol import creds as creds_of
from protocol.checks import StateCheck
from protocol.errors import BadValue
from protocol.rules import CREDS, Finding
from protocol.types import session_uuid
from service.errors import Corrupt
from service.records import Head, Identity, JournalEntry, SessionRow, StoredRow
from service.store.entries import Entry, in_journal
from service.store.journal import CREDS as CREDS_NAME
from service.store.journal import Name
from service.vault import CREDS_TYPE, PRIME, SessionVault, data_key_number, weigh

_NO_CREDS: Final = Identity()


class StoredCheck:
    """Judges one snapshot: `journal` and `creds` first, then `rows` until there are no more, then `finish`."""

    def __init__(self, row: SessionRow, seen: int | None, vault: SessionVault) -> None:
        self._row = row
        self._head: Head = row.head
        self._seen = seen
        self._vault = vault
        self._state = StateCheck()
        self._sum = vault.mask(row.head.bound())
        self._creds_kh = vault.find(CREDS_TYPE, b"")
        self._creds_stored = self._creds_opened = False
        self._rows = self._outdone = 0
        self._gaps = row.head.pending > 0
        self._waiting: dict[Name, bytes | None] = {}

    @property
    def highest_pre_key(self) -> int:
        return self._state.highest_pre_key

    @property
    def checked(self) -> int:
        """Keys, creds among them, as they are after what waits."""
        return self._rows - self._outdone + sum(value is not None for value in self._waiting.values())

    def journal(self, entries: Sequence[JournalEntry]) -> Iterator[Finding]:
        """What waits, before all else."""
        head = self._head
        self._gaps = [entry.version for entry in entries] != list(range(head.settled + 1, head.version + 1))
        for entry in entries:
            self._sum += self._vault.weigh_entry(entry.version, entry.sealed)
            try:
                opened = Entry.decode(self._vault.open_entry(in_journal(entry.version), entry.sealed))
            except Corrupt:
                yield Finding("entry-unreadable", "", detail=f"of version {entry.version}")
                continue
            self._waiting.update({(ktype, key_id): value for ktype, key_id, value in opened.rows})
            if opened.creds is not None:
                self._waiting[CREDS_NAME] = opened.creds

    def creds(self, stored: StoredRow | None) -> Iterator[Finding]:
        """The creds, before the rows that are judged by them; None when no row stands at their place."""
        waiting = self._waiting.get(CREDS_NAME)
        if waiting is not None:
            self._creds_stored = self._creds_opened = True
            yield from self._columns(waiting)
            yield from self._state.creds(waiting)
            return
        if stored is None:
            if self._head.identity != _NO_CREDS:
                yield Finding("columns-disagree", CREDS, detail="columns of creds, and no creds")
            return
        self._creds_stored = True
        try:
            text = self._open(stored)[1]
        except Corrupt:
            yield self._unreadable(stored)
            return
        self._creds_opened = True
        yield from self._columns(text)
        yield from self._state.creds(text)

    def rows(self, stored: Sequence[StoredRow]) -> Iterator[Finding]:
        """The next rows; creds among them are only counted."""
        self._rows += len(stored)
        for weights, row in zip(self._vault.weights(row.kh for row in stored), stored, strict=True):
            self._sum += weigh(weights, row.digest)
            if row.kh == self._creds_kh:
                self._outdone += CREDS_NAME in self._waiting
                continue
            try:
                key_id, text = self._open(row)
            except Corrupt:
                yield self._unreadable(row)
                continue
            if (row.ktype, key_id) in self._waiting:
                self._outdone += 1
            else:
                yield from self._state.row(row.ktype, key_id.decode(errors="replace"), text)

    def finish(self) -> Iterator[Finding]:
        """What all rows together show."""
        head = self._head
        for (ktype, key_id), value in self._waiting.items():
            if ktype and value is not None:
                yield from self._state.row(ktype, key_id.decode(errors="replace"), value)
        if self._sum % PRIME != head.mark or self._rows != head.rows or self._gaps:
            yield Finding("set-unproven", "", detail=f"{head.rows} rows were committed, {self._rows} are there")
        top = head.pre_key_top
        if top is not None and self._state.highest_pre_key > max(top, 0):  # 0 also says that there are none
            yield Finding("columns-disagree", CREDS, detail="pre_key_top")
        if self._seen is not None and self._seen > head.version:
            yield Finding("version-regressed", "", detail=f"version {head.version} now, {self._seen} before")
        if session_uuid(self._row.tenant, self._row.name) != head.sid:
            yield Finding("session-misplaced", "")
        yield from self._state.finish(creds_lost=self._creds_stored and not self._creds_opened)

    def _open(self, row: StoredRow) -> tuple[bytes, bytes]:
        """``(id, text)``. A row that opens is bound to its place and digest; both are computed anew all the same."""
        key_id, text = self._vault.open(row.ktype, row.kh, row.digest, row.sealed)
        if self._vault.find(row.ktype, key_id) != row.kh or self._vault.digest(row.ktype, key_id, text) != row.digest:
            raise Corrupt(row.ktype, row.kh.hex())
        return key_id, text

    def _unreadable(self, row: StoredRow) -> Finding:
        number = data_key_number(row.sealed)
        foreign = number is not None and number != self._head.dek_id
        rule = "row-foreign-key" if foreign else "row-unreadable"
        if row.kh == self._creds_kh:
            return Finding(rule, CREDS)
        return Finding(rule, row.ktype or CREDS, row.kh.hex(), "named by its keyed hash")

    def _columns(self, text: bytes) -> Iterator[Finding]:
        try:
            view = creds_of.view(text)
        except (BadValue, ValueError):
            return  # told by the rules of creds
        tag = None if view.identity is None else self._vault.tag_identity(view.identity)
        for name, column, sealed in (
            ("identity", self._head.identity.tag, tag),
            ("paired", self._head.identity.paired, view.paired),
            *zip(creds_of.COUNTERS, self._head.identity.counters, view.counters, strict=True),
        ):
            if column != sealed:
                yield Finding("columns-disagree", CREDS, detail=name)
