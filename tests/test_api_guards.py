"""Refusals that protect an identity: who it is, how far it counted, which pre-keys it gave away. Nothing is stored."""

import pytest
from api import Answer, Api, at, creds, fresh, octets, pre_key


async def refused(api: Api, session: str, body: object) -> Answer:
    """A commit that must store nothing."""
    async with api.unchanged():
        answer = await api.ask("POST", at(session, "commit"), body)
    assert answer.status >= 400
    return answer


# -- identity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (creds(2), "/creds/signedIdentityKey"),
        (creds(2, nextPreKeyId=1000), "/creds/signedIdentityKey"),
        (creds(1, paired=False), "/creds/account"),
        (creds(2, paired=False), "/creds/account"),
        (creds(1, account=None), "/creds/account"),
        ({}, "/creds/account"),
        ({"account": {}}, "/creds/signedIdentityKey"),
        (creds(signedIdentityKey=None), "/creds/signedIdentityKey"),
    ],
)
async def test_a_paired_identity_is_not_replaced(api: Api, kept: str, body: dict, pointer: str):
    for rest in ({}, {"keys": {"session": {"a": 2, "b": 1}, "pre-key": {"1": None}}}):
        answer = await refused(api, kept, {"creds": body, **rest})
        assert (answer.status, answer.slug, answer.json["pointer"]) == (409, "identity-replaced", pointer)
    async with api.unchanged():
        answer = await api.ask("PUT", at(kept, "state"), {"creds": body, "keys": {}})
        assert (answer.status, answer.slug) == (409, "identity-replaced")


@pytest.mark.parametrize("body", [{"creds": None, "keys": {}}, {"keys": {}}, {}])
async def test_a_paired_identity_is_not_wiped_by_a_state_without_creds(api: Api, kept: str, body: dict):
    async with api.unchanged():
        assert (await api.ask("PUT", at(kept, "state"), body)).slug == "identity-replaced"


async def test_an_unpaired_identity_with_keys_is_not_replaced(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(1, paired=False), "keys": {"pre-key": {"1": pre_key(1)}}})
    answer = await refused(api, session, {"creds": creds(2, paired=False)})
    assert (answer.status, answer.slug, answer.json["pointer"]) == (
        409,
        "identity-replaced",
        "/creds/signedIdentityKey",
    )


async def test_an_unpaired_identity_without_keys_starts_over(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(1, paired=False)})
    await api.commit(session, {"creds": creds(2, paired=False, nextPreKeyId=1)})
    await api.commit(session, {"creds": creds(2, nextPreKeyId=1)})  # and is paired
    assert (await api.summary(session))["paired"]


async def test_the_same_identity_in_another_spelling_is_the_same(api: Api, kept: str):
    listed = {"type": "Buffer", "data": [1] * 32}
    indexed = {str(i): 1 for i in range(32)}
    prefixed = {"type": "Buffer", "data": [5] + [1] * 32}
    for public in (listed, indexed, prefixed, octets(1)["data"], octets(1)):
        await api.commit(kept, {"creds": creds(signedIdentityKey={"public": public})})
    answer = await refused(api, kept, {"creds": creds(signedIdentityKey={"public": [1] * 32})})
    assert answer.status == 422


@pytest.mark.parametrize("how", ["force", "reset"])
async def test_force_and_reset_replace_an_identity(api: Api, kept: str, how: str):
    new = creds(2, paired=False, nextPreKeyId=1)
    done = await api.commit(kept, {"creds": new, "keys": {"session": {"b": 5}}, how: True})
    state = await api.state(kept)
    assert (done["version"], state["version"], state["creds"]) == (2, 2, new)
    old = {"session": {"a": 1}, "pre-key": {"1": pre_key(8)}} if how == "force" else {}
    assert state["keys"] == {**old, "session": {**old.get("session", {}), "b": 5}}
    assert not (await api.summary(kept))["paired"]


async def test_force_puts_a_state_over_an_identity(api: Api, kept: str):
    await api.good("PUT", at(kept, "state"), {"creds": creds(2, paired=False), "keys": {"t": {"a": 1}}, "force": True})
    state = await api.state(kept)
    assert (state["creds"], state["keys"]) == (creds(2, paired=False), {"t": {"a": 1}})


# -- counters ----------------------------------------------------------------------------------------------------------

COUNTED = {
    "nextPreKeyId": "/creds/nextPreKeyId",
    "firstUnuploadedPreKeyId": "/creds/firstUnuploadedPreKeyId",
    "accountSyncCounter": "/creds/accountSyncCounter",
    "signedPreKey": "/creds/signedPreKey/keyId",
}


def counted(name: str, value: int | None) -> dict:
    if name != "signedPreKey":
        return creds(**{name: value})
    return creds(signedPreKey={"keyId": value} if value is not None else None)


@pytest.mark.parametrize("name", COUNTED)
async def test_a_counter_never_goes_back(api: Api, name: str):
    session = fresh()
    await api.commit(session, {"creds": counted(name, 50)})
    for value in (49, 0, None):
        answer = await refused(api, session, {"creds": counted(name, value), "keys": {"t": {"a": 1}}})
        assert (answer.status, answer.slug, answer.json["pointer"]) == (409, "counter-regressed", COUNTED[name])
        async with api.unchanged():
            put = await api.ask("PUT", at(session, "state"), {"creds": counted(name, value), "keys": {}})
            assert (put.status, put.slug) == (409, "counter-regressed")
    await api.commit(session, {"creds": counted(name, 50)})
    await api.commit(session, {"creds": counted(name, 51)})
    await refused(api, session, {"creds": counted(name, 50)})
    await api.commit(session, {"creds": counted(name, 3), "force": True})
    await api.commit(session, {"creds": counted(name, 4)})
    await api.commit(session, {"creds": counted(name, 1), "reset": True})
    await refused(api, session, {"creds": counted(name, 0)})


async def test_counters_count_by_value_not_by_text(api: Api):
    session = fresh()
    await api.commit(session, raw=b'{"creds":{"account":{},"nextPreKeyId":1e2,"accountSyncCounter":10.0}}')
    answer = await refused(api, session, {"creds": {"account": {}, "nextPreKeyId": 99, "accountSyncCounter": 10}})
    assert answer.slug == "counter-regressed"
    await api.commit(session, {"creds": {"account": {}, "nextPreKeyId": 100, "accountSyncCounter": 10}})


# -- pre-keys ----------------------------------------------------------------------------------------------------------


async def test_a_pre_key_is_not_overwritten(api: Api, kept: str):
    for value in (pre_key(9), {**pre_key(8), "public": octets(77)}, {}, 0, "", [], {"private": 1}):
        answer = await refused(api, kept, {"creds": creds(), "keys": {"pre-key": {"2": pre_key(4), "1": value}}})
        assert (answer.status, answer.slug, answer.json["pointer"]) == (409, "pre-key-overwritten", "/keys/pre-key")
    await api.commit(kept, {"keys": {"pre-key": {"1": pre_key(9)}}, "force": True})
    assert await api.get(kept, {"pre-key": ["1"]}) == {"pre-key": {"1": pre_key(9)}}
    await api.commit(kept, {"creds": creds(), "keys": {"pre-key": {"1": pre_key(10)}}, "reset": True})
    assert await api.get(kept, {"pre-key": ["1"]}) == {"pre-key": {"1": pre_key(10)}}


async def test_a_pre_key_of_the_same_bytes_may_be_sent_again_however_it_is_spelled(api: Api, kept: str):
    listed = {"public": {"type": "Buffer", "data": [9] * 32}, "private": {"type": "Buffer", "data": [8] * 32}}
    indexed = {"private": {str(i): 8 for i in range(32)}, "public": {str(i): 9 for i in range(32)}}
    for value in (pre_key(8), listed, indexed, listed, pre_key(8)):
        await api.commit(kept, {"keys": {"pre-key": {"1": value, "7": pre_key(7)}}})
        assert await api.get(kept, {"pre-key": ["1"]}) == {"pre-key": {"1": value}}
    # One of two in another spelling does not let the other change.
    await refused(api, kept, {"keys": {"pre-key": {"1": listed, "7": pre_key(6)}}})


async def test_a_pre_key_may_be_deleted_and_made_again(api: Api, kept: str):
    await api.commit(kept, {"keys": {"pre-key": {"1": None}}})
    await api.commit(kept, {"keys": {"pre-key": {"1": pre_key(20)}}})
    assert await api.get(kept, {"pre-key": ["1"]}) == {"pre-key": {"1": pre_key(20)}}


async def test_other_types_may_be_overwritten(api: Api, kept: str):
    for ktype in ("session", "pre-key2", "pre_key", "Pre-key", "sender-key"):
        for value in (1, 2):
            await api.commit(kept, {"keys": {ktype: {"1": value}}})
        assert await api.get(kept, {ktype: ["1"]}) == {ktype: {"1": 2}}


async def test_a_forgiven_spelling_forgives_nothing_else(api: Api, kept: str, monkeypatch: pytest.MonkeyPatch):
    """Between the look at the stored pre-keys and the commit, another commit moves a counter on."""
    commits, listed = api.store._commits, {"type": "Buffer", "data": [8] * 32}
    forgive, waiting = commits._forgive_spelling, []

    async def forgive_slowly(*given: object) -> None:
        await forgive(*given)
        if not waiting:
            waiting.append(True)
            row = await api.sql("UPDATE sessions SET next_pre_key = 90 WHERE name = $1 RETURNING version", kept)
            assert len(row) == 1

    monkeypatch.setattr(commits, "_forgive_spelling", forgive_slowly)
    body = {"creds": creds(), "keys": {"pre-key": {"1": {**pre_key(8), "private": listed}}}}
    answer = await api.ask("POST", at(kept, "commit"), body)
    assert (waiting, answer.slug) == ([True], "counter-regressed")
