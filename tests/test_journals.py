"""What is remembered of journals: `service.store.journal.Journals` by itself."""

import random
from uuid import UUID

import pytest

from service.records import Head, Identity
from service.store import journal
from service.store.journal import Journals, Pending


def head(n: int, version: int, pending: int) -> Head:
    return Head(UUID(int=n), version, 0, "", 1, b"", 1, 0, b"", Identity(), deleted=False, pending=pending)


def test_however_they_come_and_go_what_is_kept_is_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that drifts would let journals fill the memory, or remember none."""
    monkeypatch.setattr(journal, "_REMEMBERED_BYTES", 2000)
    monkeypatch.setattr(journal, "_LARGEST", 900)
    rng, journals = random.Random(6), Journals()
    versions, waiting = [0] * 8, [0] * 8
    most = 0
    for _ in range(5000):
        n = rng.randrange(8)
        what = rng.random()
        if what < 0.8:
            journals.added(head(n, versions[n], waiting[n]), None, [], 1, rng.randrange(1, 300))
            versions[n], waiting[n] = versions[n] + 1, waiting[n] + 1
        elif what < 0.9:
            journals.forget(UUID(int=n))
            waiting[n] = 0
        else:
            read = Pending(versions[n] - waiting[n])
            for _ in range(waiting[n]):
                read.add(None, [], 1, rng.randrange(1, 300))
            journals.keep(UUID(int=n), read)
        kept = [found for m in range(8) if waiting[m] and (found := journals.of(head(m, versions[m], waiting[m])))]
        assert journals._size == sum(found.weight for found in kept) <= 2000
        assert all(found.weight <= 900 for found in kept)
        most = max(most, len(kept))
    assert most > 2


def test_a_gap_is_not_papered_over() -> None:
    journals = Journals()
    journals.added(head(1, 5, 0), None, [("t", b"a", b"1")], 1, 10)
    kept = journals.of(head(1, 6, 1))
    assert kept is not None
    assert kept.values == {("t", b"a"): b"1"}
    journals.added(head(1, 7, 2), None, [("t", b"a", b"3")], 1, 10)  # another process made the commit between
    assert journals.of(head(1, 8, 3)) is None
    assert journals.of(head(1, 6, 1)) is None
