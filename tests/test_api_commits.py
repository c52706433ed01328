"""One atomic, idempotent commit; many in one request."""

import asyncio
import uuid
from contextlib import AsyncExitStack

from api import Api, at, creds, fresh, key_uuid, pre_key, serve

from service.records import RECENT_KEPT

# -- idempotency -------------------------------------------------------------------------------------------------------


async def test_a_commit_sent_twice_applies_once(api: Api):
    session, key = fresh(), key_uuid()
    body = {"creds": creds(), "keys": {"t": {"a": 1, "b": None}}}
    first = await api.commit(session, body, headers=key)
    async with api.unchanged():
        for headers in (key, {**key, "If-Match": '"0"'}, {**key, "If-Match": '"77"'}):
            assert await api.commit(session, body, headers=headers) == first
    async with serve(api.url, token="y" * 32) as other, api.unchanged():
        assert await other.commit(session, body, headers=key) == first


async def test_a_replay_changes_nothing_after_newer_commits(api: Api):
    session, key = fresh(), key_uuid()
    await api.commit(session, {"keys": {"t": {"a": 0}}})
    old = {"keys": {"t": {"a": 1, "b": 1}}}
    assert (await api.commit(session, old, headers={**key, "If-Match": '"1"'}))["version"] == 2
    for n in range(2, 6):
        await api.commit(session, {"keys": {"t": {"a": n, "b": None}}}, headers=key_uuid())
    async with api.unchanged():
        assert (await api.commit(session, old, headers={**key, "If-Match": '"1"'}))["version"] == 2
        assert (await api.commit(session, old, headers=key))["version"] == 2
    assert (await api.state(session))["keys"] == {"t": {"a": 5}}


async def test_the_last_sixteen_keys_are_remembered(api: Api):
    session = fresh()
    keys = [key_uuid() for _ in range(17)]
    for n, key in enumerate(keys):
        assert (await api.commit(session, {"keys": {"t": {"a": n}}}, headers=key))["version"] == n + 1
    async with api.unchanged():
        for n, key in list(enumerate(keys))[1:]:
            assert (await api.commit(session, {"keys": {"t": {"a": n}}}, headers=key))["version"] == n + 1
    assert (await api.commit(session, {"keys": {"t": {"a": 0}}}, headers=keys[0]))["version"] == 18


async def test_a_replay_outlives_its_lease(api: Api):
    session, key = fresh(), key_uuid()
    epoch = await api.lease(session, "one")
    sent = {**key, "Lease-Epoch": str(epoch)}
    first = await api.commit(session, {"keys": {"t": {"a": 1}}}, headers=sent)
    await api.lease(session, "two", takeover=True)
    async with api.unchanged():
        again = await api.commit(session, {"keys": {"t": {"a": 1}}}, headers=sent)
    assert again["version"] == first["version"]


async def test_the_same_key_in_two_sessions_is_two_commits(api: Api):
    key = key_uuid()
    for session in (fresh(), fresh()):
        assert (await api.commit(session, {"keys": {"t": {"a": 1}}}, headers=key))["version"] == 1


async def test_a_state_sent_twice_applies_once(api: Api):
    session, key = fresh(), key_uuid()
    body = {"creds": creds(), "keys": {"t": {"a": 1}}}
    for _ in range(2):
        assert await api.good("PUT", at(session, "state"), body, headers=key) == {"version": 1, "epoch": 0}
    await api.commit(session, {"keys": {"t": {"b": 1}}})
    assert (await api.good("PUT", at(session, "state"), body, headers=key))["version"] == 1
    assert (await api.state(session))["keys"] == {"t": {"a": 1, "b": 1}}


async def test_replays_at_the_same_time_apply_once(api: Api):
    session, key = fresh(), key_uuid()
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(serve(api.url, token="z" * 32)) for _ in range(2)]
        asks = [one.commit(session, {"keys": {"t": {"a": 1}}}, headers=key) for one in (api, *others) for _ in range(8)]
        assert await asyncio.gather(*asks) == [{"version": 1, "epoch": 0}] * 24


async def test_a_refused_commit_may_be_sent_again_with_its_key(api: Api):
    session, key = fresh(), key_uuid()
    await api.commit(session, {"keys": {"pre-key": {"1": pre_key(1)}}})
    body = {"keys": {"pre-key": {"1": pre_key(2)}}}
    assert (await api.ask("POST", at(session, "commit"), body, headers=key)).slug == "pre-key-overwritten"
    await api.commit(session, {"keys": {"pre-key": {"1": None}}})
    assert (await api.commit(session, body, headers=key))["version"] == 3


# -- many at once ------------------------------------------------------------------------------------------------------


async def test_commits_of_many_sessions_each_stand_alone(api: Api):
    good, paired, leased, gone, made = (fresh() for _ in range(5))
    await api.commit(paired, {"creds": creds()})
    await api.lease(leased)
    await api.commit(gone, {})
    await api.good("DELETE", at(gone))
    results = await api.batch(
        {"session": good, "creds": creds(), "keys": {"t": {"a": 1}}},
        {"session": paired, "creds": creds(2)},
        {"session": leased, "keys": {"t": {"a": 1}}},
        {"session": gone, "keys": {"t": {"a": 1}}},
        {"session": "not a name"},
        {"session": made, "keys": {"t": {"": 1}}},
        {"session": made, "creds": []},
        {"session": made, "if_match": 4},
        {"session": made, "creds": {"nextPreKeyId": "x"}},
        {"session": leased, "lease_epoch": 1, "keys": {"t": {"a": 2}}},
        {"session": made, "keys": {"t": {"b": 2}}},
    )
    assert [result.get("version") for result in results] == [1, *[None] * 8, 1, 1]
    problems = [result["problem"] for result in results if "problem" in result]
    assert [(each["status"], each["type"].rsplit(":", 1)[1]) for each in problems] == [
        (409, "identity-replaced"),
        (409, "fenced"),
        (410, "deleted"),
        (422, "bad-input"),
        (422, "bad-input"),
        (422, "bad-input"),
        (412, "version-mismatch"),
        (422, "bad-input"),
    ]
    assert [each.get("pointer") for each in problems] == [
        "/creds/signedIdentityKey", None, None, None, "/keys", "/creds", None, "/creds/nextPreKeyId",
    ]  # fmt: skip
    assert (await api.state(made))["keys"] == {"t": {"b": 2}}
    assert (await api.state(leased))["keys"] == {"t": {"a": 2}}
    assert (await api.state(paired))["version"] == 1


async def test_commits_of_one_session_apply_in_order(api: Api):
    one, two = fresh(), fresh()
    commits = [{"session": (one, two)[n % 2], "keys": {"t": {"a": n, f"k{n}": n}}} for n in range(60)]
    results = await api.batch(*commits)
    assert [result["version"] for result in results] == [n // 2 + 1 for n in range(60)]
    assert (await api.get(one, {"t": ["a"]}), await api.get(two, {"t": ["a"]})) == ({"t": {"a": 58}}, {"t": {"a": 59}})
    steps = [{"session": one, "if_match": 30 + n, "keys": {"t": {"a": n}}} for n in range(5)]
    assert [result["version"] for result in await api.batch(*steps)] == [31, 32, 33, 34, 35]


async def test_a_batch_sent_twice_applies_once(api: Api):
    commits = [{"session": fresh(), "keys": {"t": {"a": n}}, "idempotency_key": str(uuid.uuid4())} for n in range(20)]
    first = await api.batch(*commits)
    async with api.unchanged():
        assert await api.batch(*commits) == first
        reused = [{**each, "keys": {"t": {"a": "x"}}} for each in commits]
        assert {result["problem"]["status"] for result in await api.batch(*reused)} == {422}


async def test_an_empty_batch_and_a_full_one(api: Api):
    assert await api.batch() == []
    session = fresh()
    answer = await api.ask("POST", "/v1/commits", {"commits": [{"session": session}] * 4097})
    assert (answer.status, answer.json["pointer"]) == (400, "/commits")
    assert (await api.ask("GET", at(session))).slug == "no-session"


async def test_a_batch_is_as_exact_as_a_commit(api: Api):
    session = fresh()
    raw = '{"commits":[{"session":"s","creds":{"n" : "\\ud83d"},"keys":{"t":{"a": 1e21,"\\u0062":"\\u0000"}}}]}'
    raw = raw.replace('"s"', f'"{session}"')
    await api.good("POST", "/v1/commits", raw=raw.encode())
    state = await api.ask("GET", at(session, "state"))
    assert b'"creds":{"n" : "\\ud83d"}' in state.text
    assert b'"a":1e21' in state.text
    assert b'"b":"\\u0000"' in state.text


async def test_huge_numbers_of_a_batch_are_refused_and_nothing_else_is(api: Api):
    session, other = fresh(), fresh()
    await api.commit(session, {})
    results = await api.batch(
        {"session": session, "if_match": 2**70},
        {"session": session, "lease_epoch": 2**70},
        {"session": other},
    )
    assert [result.get("problem", {}).get("status") for result in results] == [412, 409, None]


async def test_a_batch_holds_no_more_keyed_commits_of_a_session_than_are_remembered(api: Api):
    session, other = fresh(), fresh()
    commits = [
        {"session": session, "keys": {"t": {"a": n}}, "idempotency_key": str(uuid.uuid4())}
        for n in range(RECENT_KEPT + 1)
    ]
    commits.append({"session": other, "keys": {"t": {"a": 1}}, "idempotency_key": str(uuid.uuid4())})
    first = await api.batch(*commits)
    assert [result.get("version") for result in first] == [*range(1, RECENT_KEPT + 1), None, 1]
    assert first[RECENT_KEPT]["problem"]["type"].endswith(":bad-input")
    assert await api.batch(*commits) == first, "sent again it changes nothing"
    assert (await api.state(session))["keys"] == {"t": {"a": RECENT_KEPT - 1}}
    # Without keys nothing can be sent again: as many as fit.
    more = await api.batch(*({"session": session, "keys": {"t": {"a": n}}} for n in range(40)))
    assert [result["version"] for result in more] == [*range(RECENT_KEPT + 1, RECENT_KEPT + 41)]


async def test_a_replay_tells_a_former_owner_no_other_epoch(api: Api):
    session, key = fresh(), key_uuid()
    epoch = await api.lease(session, "one")
    first = await api.commit(session, {"keys": {"t": {"a": 1}}}, headers={**key, "Lease-Epoch": str(epoch)})
    await api.lease(session, "two", takeover=True)
    again = await api.commit(session, {"keys": {"t": {"a": 1}}}, headers={**key, "Lease-Epoch": str(epoch)})
    assert again == first
