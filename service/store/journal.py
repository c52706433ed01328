"""What waits in a session's journal, opened: how it changes what the rows say, and what is remembered of it.

A read takes rows and journal together: the last word on a key is the newest entry that names it, or else its row. Entries
are believed only as a whole: the versions from the one that the rows show to the session's, without a gap, each sealed
for its place. That none was swapped for an older one, or is missing with its session's row, is for the mark to prove.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from service.errors import WHOLE_SET, Corrupt
from service.records import Head, JournalEntry, Opened, weigh_commit
from service.store.entries import Entry, in_journal
from service.vault import CREDS_TYPE, SessionVault, sealed_size

_REMEMBERED_BYTES: Final = 1 << 26
_LARGEST: Final = 1 << 23

Name = tuple[str, bytes]
Rows = Sequence[tuple[str, bytes, bytes | None]]
Counts = Mapping[str, tuple[int, int]]
CREDS: Final[Name] = (CREDS_TYPE, b"")
JOURNAL: Final = "journal"
"""What a damaged entry is named by."""


class Pending:
    """The commits of a session that its rows do not show: those from the one after ``settled`` up to ``version``.

    ``values``: JSON text by type and id (creds: the empty ones), None where a key is deleted. ``share``: what the entries
    have of the mark; ``weight``: what they are to settle (`records.weigh_commit`).
    """

    __slots__ = ("_added", "_values", "count", "settled", "share", "weight")

    def __init__(self, settled: int) -> None:
        self.settled = settled
        self._values: dict[Name, bytes | None] = {}
        self._added: list[tuple[bytes | None, Rows]] = []
        self.count = 0
        self.share = 0
        self.weight = 0

    def __repr__(self) -> str:
        return f"<Pending {self.count}>"

    @property
    def version(self) -> int:
        return self.settled + self.count

    @property
    def values(self) -> dict[Name, bytes | None]:
        # Put together when somebody looks: whoever commits waits for his answer.
        for creds, rows in self._added:
            for ktype, key_id, value in rows:
                self._values[ktype, key_id] = value
            if creds is not None:
                self._values[CREDS] = creds
        self._added.clear()
        return self._values

    def add(self, creds: bytes | None, rows: Rows, share: int, weight: int) -> None:
        """The session's next commit."""
        self._added.append((creds, rows))
        self.count += 1
        self.share += share
        self.weight += weight

    def by_type(self) -> dict[str, dict[bytes, bytes | None]]:
        """The same values by type, for whoever takes them out one by one."""
        found: dict[str, dict[bytes, bytes | None]] = {}
        for (ktype, key_id), value in self.values.items():
            found.setdefault(ktype, {})[key_id] = value
        return found


def open_journal(head: Head, vault: SessionVault, entries: Sequence[JournalEntry]) -> Pending:
    """Entries as they were read with their session. Corrupt when one does not open, is missing or too many."""
    if [entry.version for entry in entries] != list(range(head.settled + 1, head.version + 1)):
        raise Corrupt(WHOLE_SET, None)
    pending = Pending(head.settled)
    for entry in entries:
        try:
            opened = Entry.decode(vault.open_entry(in_journal(entry.version), entry.sealed))
        except Corrupt:
            raise Corrupt(JOURNAL, None) from None
        keys = len(opened.rows) + (opened.creds is not None)
        share, weight = vault.weigh_entry(entry.version, entry.sealed), weigh_commit(len(entry.sealed), keys)
        pending.add(opened.creds, opened.rows, share, weight)
    return pending


class Merged:
    """Rows as they come, in chunks ordered by type, with what waits in the journal put in: each type stays in one piece."""

    def __init__(self, pending: Pending | None) -> None:
        self._left = {} if pending is None else pending.by_type()
        self._ktype: str | None = None

    def chunk(self, opened: list[Opened]) -> list[Opened]:
        """The next rows as they are meant."""
        return list(self._through(opened)) if self._left else opened

    def rest(self) -> list[Opened]:
        """What comes behind the last row."""
        ends = [] if self._ktype is None else list(self._end(self._ktype))
        return ends + [key for ktype in list(self._left) for key in self._end(ktype)]

    def _through(self, opened: list[Opened]) -> Iterator[Opened]:
        for key in opened:
            if key.ktype != self._ktype:
                if self._ktype is not None:
                    yield from self._end(self._ktype)
                self._ktype = key.ktype
            of_type = self._left.get(key.ktype)
            if of_type is None or key.key_id not in of_type:
                yield key
                continue
            value = of_type.pop(key.key_id)
            if value is not None:
                yield Opened(key.ktype, key.key_id, value)

    def _end(self, ktype: str) -> Iterator[Opened]:
        for key_id, value in self._left.pop(ktype, {}).items():
            if value is not None:
                yield Opened(ktype, key_id, value)


class Journals:
    """What is remembered of journals, up to 64 MiB of weight in all. Forgetting is always safe: they can be read again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[UUID, Pending] = OrderedDict()
        self._size = 0

    def of(self, head: Head) -> Pending | None:
        """Of this very version; None when it is not remembered."""
        if not head.pending:
            return Pending(head.version)
        found = self._kept.get(head.sid)
        if found is None or found.count != head.pending or found.version != head.version:
            return None
        self._kept.move_to_end(head.sid)
        return found

    def keep(self, sid: UUID, pending: Pending) -> None:
        self.forget(sid)
        if pending.count:
            self._kept[sid] = pending
            self._size += pending.weight
            self._trim(sid, pending)

    def _trim(self, sid: UUID, grown: Pending) -> None:
        if grown.weight > _LARGEST:
            self.forget(sid)
        while self._size > _REMEMBERED_BYTES:
            self._size -= self._kept.popitem(last=False)[1].weight

    def added(self, head: Head, creds: bytes | None, rows: Rows, share: int, weight: int) -> None:
        """A commit was journaled: ``head`` is the one before it."""
        pending = self.of(head)
        if pending is None:
            self.forget(head.sid)  # a commit is missing in what is remembered
            return
        pending.add(creds, rows, share, weight)
        if pending.count == 1:
            self.keep(head.sid, pending)
            return
        self._size += weight
        if pending.weight > _LARGEST or self._size > _REMEMBERED_BYTES:
            self._trim(head.sid, pending)

    def forget(self, sid: UUID) -> None:
        pending = self._kept.pop(sid, None)
        if pending is not None:
            self._size -= pending.weight


def counted(keys: Counts, pending: Pending, stored: Mapping[Name, int]) -> Counts:
    """Rows counted, ``type -> (count, stored bytes)``, as they will be when what waits has become rows.

    ``stored``: how large the rows are that it will replace.
    """
    found = {ktype: [count, size] for ktype, (count, size) in keys.items()}
    for name, value in pending.values.items():
        if name == CREDS:
            continue
        of_type = found.setdefault(name[0], [0, 0])
        if name in stored:
            of_type[0] -= 1
            of_type[1] -= stored[name]
        if value is not None:
            of_type[0] += 1
            of_type[1] += sealed_size(name[1], value)
    return {ktype: (count, size) for ktype, (count, size) in found.items() if count}
