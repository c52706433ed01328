"""A commit sent again is known by its fingerprint: by ours, and by the one that releases before the journal stored."""

from typing import Any
from uuid import UUID

import pytest
from api import Api, at, creds, fresh, key_uuid, sid_of

from service.store.request import CommitRequest, Row, Work
from service.vault import SessionVault

KEY = UUID(int=7)


def work(rows: list[Row], **more: Any) -> Work:
    return Work(CommitRequest(rows=rows, key=KEY, **more))


@pytest.fixture
def vault() -> SessionVault:
    return SessionVault("t", bytes(16), 1, bytes(range(32)))


def test_it_is_of_everything_that_is_asked(vault: SessionVault):
    rows = [Row("t", b"a", b"1"), Row("t", b"b", None)]
    seen = {
        work(rows).fingerprint(vault),
        work(rows[::-1]).fingerprint(vault),
        work([Row("t", b"a", b"2"), rows[1]]).fingerprint(vault),
        work([Row("t", b"a", None), rows[1]]).fingerprint(vault),
        work([Row("t", b"aa", b"1"), rows[1]]).fingerprint(vault),
        work([Row("u", b"a", b"1"), rows[1]]).fingerprint(vault),
        work(rows, force=True).fingerprint(vault),
        work(rows, whole=True).fingerprint(vault),
        work(rows, creds=b"{}").fingerprint(vault),
        Work(CommitRequest(rows=rows, key=UUID(int=8))).fingerprint(vault),
    }
    assert len(seen) == 10
    assert all(len(each) == 8 for each in seen)
    assert work(rows).fingerprint(vault) == work(list(rows)).fingerprint(vault)


async def test_a_commit_that_an_earlier_release_stored_is_known_when_it_is_sent_again(api: Api):
    session, key = fresh(), key_uuid()
    body = {"creds": creds(), "keys": {"t": {"a": 1}}}
    first = await api.commit(session, body, headers=key)
    stand = await api.store._reads._heads.living("default", sid_of(session), fresh=True)
    raw = UUID(key["Idempotency-Key"])
    request = CommitRequest(rows=[Row("t", b"a", b"1")], key=raw)
    old = Work(request)._fingerprint_of_rows(stand.vault)
    assert Work(request).is_known_by(old, stand.vault)
    assert not Work(CommitRequest(rows=[Row("t", b"a", b"2")], key=raw)).is_known_by(old, stand.vault)
    assert await api.commit(session, body, headers=key) == first
    other = await api.ask("POST", at(session, "commit"), {"keys": {"t": {"a": 2}}}, headers=key)
    assert (other.status, other.slug) == (422, "idempotency-key-reused")
