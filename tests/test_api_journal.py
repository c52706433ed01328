"""Large commits wait in the journal before they are rows: nobody can tell, whenever they become rows and whoever reads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from api import Api, at, creds, fresh, key_uuid, pre_key, serve, sid_of

from service.store import Caller, heads, settling
from service.store.journal import Journals

LARGE = 40
ME = Caller("default", "admin")
Settle = Callable[[str], Awaitable[None]]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing becomes rows by itself."""
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: False)


@pytest.fixture(params=["waiting", "forgotten", "settled"])
async def settle(api: Api, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settle:
    """What becomes of a journal before it is read: it waits, it has to be read anew, it has become rows."""

    async def nothing(_: str) -> None:
        pass

    async def rows(session: str) -> None:
        await api.store.settle(ME, session)
        assert await waiting(api, session) == 0

    if request.param == "forgotten":
        monkeypatch.setattr(Journals, "keep", lambda *_: None)
    return rows if request.param == "settled" else nothing


def many(count: int = LARGE, stamp: int = 0, first: int = 0) -> dict[str, Any]:
    return {f"{n}": {"n": n, "stamp": stamp} for n in range(first, first + count)}


async def waiting(api: Api, session: str) -> int:
    found = await api.sql(
        "SELECT s.pending, count(j.*) AS entries, coalesce(sum(octet_length(j.sealed)), 0) AS bytes, s.journal_weight"
        " FROM sessions s LEFT JOIN session_journal j USING (sid) WHERE s.sid = $1 GROUP BY s.sid",
        sid_of(session),
    )
    assert found[0]["pending"] == found[0]["entries"]
    # Bytes, and 256 for each key.
    weight, size = found[0]["journal_weight"], found[0]["bytes"]
    assert weight == size == 0 or (weight > size and (weight - size) % 256 == 0)
    return int(found[0]["pending"])


async def pages(api: Api, session: str, ktype: str, limit: int) -> dict[str, Any]:
    """All pages of a type put together."""
    found: dict[str, Any] = {}
    cursor = ""
    while True:
        page = await api.good(
            "GET", at(session, f"keys/{quote(ktype, safe='')}") + f"?values=true&limit={limit}{cursor}"
        )
        assert len(page["values"]) <= limit
        assert not found.keys() & page["values"].keys(), "a key came twice"
        found |= page["values"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


async def is_read_as(api: Api, session: str, version: int, keys: dict[str, dict[str, Any]], creds_: Any) -> None:
    """By every call that reads."""
    state = await api.state(session)
    assert (state["version"], state["keys"], state["creds"]) == (version, keys, creds_)
    asked = {ktype: [*members, "absent"] for ktype, members in keys.items()}
    assert await api.get(session, asked) == keys
    answer = await api.ask("GET", at(session, "creds"))
    assert (answer.json, answer.headers["ETag"]) == (creds_, f'"{version}"')
    for ktype, members in keys.items():
        for limit in (1000, 7):
            assert await pages(api, session, ktype, limit) == members
    shown = (await api.summary(session))["keys"]
    assert {ktype: each["count"] for ktype, each in shown.items()} == {
        ktype: len(members) for ktype, members in keys.items()
    }
    assert shown == next(each for each in (await api.good("GET", f"/v1/sessions?prefix={session}"))["sessions"])["keys"]
    report = await api.good("GET", at(session, "integrity"))
    assert report["checked"] == sum(map(len, keys.values())) + 1
    assert {each["rule"] for each in report["findings"]} & {
        "set-unproven",
        "entry-unreadable",
        "row-unreadable",
    } == set()


async def test_a_large_commit_is_read_as_it_was_sent(api: Api, settle: Settle):
    session = fresh()
    await api.commit(session, {"creds": creds()})
    await api.commit(session, {"creds": creds(nextPreKeyId=99), "keys": {"t": many(), "u/v": many(stamp=1)}})
    assert await waiting(api, session) == 1
    await settle(session)
    await is_read_as(api, session, 2, {"t": many(), "u/v": many(stamp=1)}, creds(nextPreKeyId=99))


async def test_what_follows_waits_behind_it_and_has_the_last_word(api: Api, settle: Settle):
    session = fresh()
    stored = {"t": {**many(60), "gone": 1, "old": 1}, "kept": {"a": 1}}
    await api.commit(session, {"creds": creds(), "keys": stored})
    assert await waiting(api, session) == 0, "what makes a session is rows"
    await api.commit(session, {"keys": {"t": many(LARGE, 1, 30), "new": many()}})
    await api.commit(session, {"keys": {"t": {"gone": None, "31": None, "never": None}, "new": {"0": None}}})
    await api.commit(session, {"creds": creds(registered=True), "keys": {"t": {"31": 7, "old": 2}}})
    assert await waiting(api, session) == 3
    await settle(session)
    expected = {
        "t": {**many(30), **many(LARGE, 1, 30), "31": 7, "old": 2},
        "kept": {"a": 1},
        "new": {key: value for key, value in many().items() if key != "0"},
    }
    await is_read_as(api, session, 4, expected, creds(registered=True))
    await api.store.settle(ME, session)
    await api.commit(session, {"keys": {"t": {"after": 1}}})
    assert await waiting(api, session) == 0
    expected["t"]["after"] = 1
    await is_read_as(api, session, 5, expected, creds(registered=True))


async def test_everything_may_go_while_it_waits(api: Api, settle: Settle):
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"t": {"a": 1}}})
    await api.commit(session, {"keys": {"t": many()}})
    await api.commit(session, {"keys": {"t": {**dict.fromkeys(many()), "a": None}}})
    await settle(session)
    await is_read_as(api, session, 3, {}, creds())


async def test_rows_are_those_of_a_commit_that_never_waited(api: Api):
    """The same keys, stored both ways, count and weigh the same."""
    names = fresh(), fresh()
    body = {"creds": creds(), "keys": {"t": many(), "pre-key": {str(n): pre_key(n) for n in range(1, 40)}}}
    await api.commit(names[0], body)
    await api.commit(names[1], {"creds": creds()})
    await api.commit(names[1], body)
    shown = [await api.summary(name) for name in names]
    assert shown[0]["keys"] == shown[1]["keys"], "as it waits"
    await api.store.settle(ME, names[1])
    assert (await api.summary(names[1]))["keys"] == shown[0]["keys"], "as rows"
    counts = [
        (await api.sql("SELECT row_count FROM sessions WHERE sid = $1", sid_of(name)))[0]["row_count"] for name in names
    ]
    assert counts[0] == counts[1] == LARGE + 39 + 1


async def test_streamed_states_are_put_together_too(api: Api, settle: Settle):
    session = fresh()
    stored = {f"type-{n}": {str(m): m for m in range(1100)} for n in range(4)}
    await api.commit(session, {"creds": creds(), "keys": stored})
    changed = {**{f"type-{n}": {"5": None, "new": n, "6": "six"} for n in range(0, 4, 2)}, "aaa": many(), "zzz": many()}
    await api.commit(session, {"creds": creds(registered=True), "keys": changed})
    await settle(session)
    for n in range(0, 4, 2):
        stored[f"type-{n}"] |= {"new": n, "6": "six"}
        del stored[f"type-{n}"]["5"]
    answer = await api.ask("GET", at(session, "state"))
    assert (answer.json["keys"], answer.json["creds"]) == (
        {**stored, "aaa": many(), "zzz": many()},
        creds(registered=True),
    )
    assert answer.text.count(b'"type-0":{') == 1, "a type stands in one piece"


async def test_another_process_reads_and_settles_it(shared_url: str, api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds()})
    for stamp in range(3):
        await api.commit(session, {"keys": {"t": many(stamp=stamp)}})
    async with serve(shared_url, token=api.token) as other:
        await is_read_as(other, session, 4, {"t": many(stamp=2)}, creds())
        await other.store.settle(ME, session)
        assert await waiting(api, session) == 0
        await other.commit(session, {"keys": {"t": {"0": "other"}}})
    # This process still remembers the journal; it must not believe it.
    await is_read_as(api, session, 5, {"t": {**many(stamp=2), "0": "other"}}, creds())
    await api.commit(session, {"keys": {"t": {"0": "mine"}}})
    assert (await api.get(session, {"t": ["0"]})) == {"t": {"0": "mine"}}


async def test_two_that_settle_at_once_settle_once(shared_url: str, api: Api):
    async with serve(shared_url, token=api.token) as other:
        for _ in range(10):
            session = fresh()
            await api.commit(session, {"creds": creds()})
            await api.commit(session, {"keys": {"t": many()}})
            await asyncio.gather(
                *(each.store.settle(ME, session) for each in (api, other)),
                api.commit(session, {"keys": {"t": {"0": "x"}}}),
            )
            state = await other.state(session)  # which proves the mark
            assert (state["version"], state["keys"]) == (3, {"t": {**many(), "0": "x"}})


# -- guards ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def login(api: Api, settle: Settle) -> AsyncIterator[str]:
    """A paired session whose pre-keys came in one commit."""
    session = fresh()
    await api.commit(session, {"creds": creds(nextPreKeyId=1, firstUnuploadedPreKeyId=1)})
    await api.commit(
        session,
        {"creds": creds(nextPreKeyId=101), "keys": {"pre-key": {str(n): pre_key(n) for n in range(1, 101)}}},
        headers=key_uuid(),
    )
    assert await waiting(api, session) == 1
    await settle(session)
    return session


async def test_a_pre_key_that_waits_is_not_overwritten(api: Api, login: str):
    for body in ({"pre-key": {"7": pre_key(9)}}, {"pre-key": {str(n): pre_key(n + 1) for n in range(60, 160)}}):
        answer = await api.ask("POST", at(login, "commit"), {"keys": body})
        assert (answer.status, answer.slug) == (409, "pre-key-overwritten")
    await api.commit(login, {"keys": {"pre-key": {"7": pre_key(7)}}})
    await api.commit(login, {"keys": {"pre-key": {"8": None}}})
    await api.commit(login, {"keys": {"pre-key": {"8": pre_key(99)}}})
    await api.commit(login, {"keys": {"pre-key": {"9": pre_key(98)}}, "force": True})
    kept = (await api.get(login, {"pre-key": ["7", "8", "9"]}))["pre-key"]
    assert kept == {"7": pre_key(7), "8": pre_key(99), "9": pre_key(98)}


@pytest.mark.parametrize("name", ["07", "+8", " 9", "1e3", "x", "99999999999999999999", "٧"])
async def test_a_pre_key_by_another_name_is_looked_for(api: Api, login: str, name: str):
    await api.commit(login, {"keys": {"pre-key": {name: pre_key(1)}}})
    more = {str(n): pre_key(n % 200) for n in range(300, 340)}
    await api.commit(login, {"keys": {"pre-key": more}})
    async with api.unchanged():
        for body in ({name: pre_key(2)}, {**{str(n): pre_key(n % 200) for n in range(400, 440)}, name: pre_key(2)}):
            answer = await api.ask("POST", at(login, "commit"), {"keys": {"pre-key": body}})
            assert (answer.status, answer.slug) == (409, "pre-key-overwritten")
    assert (await api.get(login, {"pre-key": [name]}))["pre-key"] == {name: pre_key(1)}


async def test_identities_and_counters_are_guarded_while_it_waits(api: Api, login: str):
    for body, slug in (
        (creds(2, nextPreKeyId=101), "identity-replaced"),
        (creds(paired=False, nextPreKeyId=101), "identity-replaced"),
        (creds(nextPreKeyId=100), "counter-regressed"),
    ):
        answer = await api.ask("POST", at(login, "commit"), {"creds": body, "keys": {"t": many()}})
        assert (answer.status, answer.slug) == (409, slug)
    assert (await api.state(login))["version"] == 2


async def test_an_unpaired_identity_is_kept_when_keys_wait(api: Api, settle: Settle):
    session = fresh()
    await api.commit(session, {"creds": creds(paired=False)})
    await api.commit(session, {"keys": {"t": many()}})
    await settle(session)
    answer = await api.ask("POST", at(session, "commit"), {"creds": creds(2, paired=False)})
    assert (answer.status, answer.slug) == (409, "identity-replaced")
    whole = await api.ask("PUT", at(session, "state"), {"creds": creds(2, paired=False)})
    assert (whole.status, whole.slug) == (409, "identity-replaced")
    await api.commit(session, {"keys": {"t": dict.fromkeys(many())}})
    await settle(session)
    await api.commit(session, {"creds": creds(2, paired=False)})  # nothing is lost with it any more


async def test_versions_leases_and_keys_hold_while_it_waits(api: Api, settle: Settle):
    session, key = fresh(), key_uuid()
    epoch = await api.lease(session)
    own = {"Lease-Epoch": str(epoch)}
    await api.commit(session, {"creds": creds()}, headers=own)
    body = {"keys": {"t": many()}}
    first = await api.commit(session, body, headers={**own, **key})
    await settle(session)
    assert await api.commit(session, body, headers={**own, **key}) == first
    reused = await api.ask("POST", at(session, "commit"), {"keys": {"t": many(stamp=1)}}, headers={**own, **key})
    assert (reused.status, reused.slug) == (422, "idempotency-key-reused")
    for headers, slug in (({}, "fenced"), ({"Lease-Epoch": str(epoch + 1)}, "fenced")):
        answer = await api.ask("POST", at(session, "commit"), body, headers=headers)
        assert (answer.status, answer.slug) == (409, slug)
    late = await api.ask("POST", at(session, "commit"), body, headers={**own, "If-Match": '"1"'})
    assert (late.status, late.slug) == (412, "version-mismatch")
    taken = await api.lease(session, "two", takeover=True)
    answer = await api.ask("POST", at(session, "commit"), body, headers=own)
    assert (answer.status, answer.slug) == (409, "fenced")
    await api.commit(session, {"keys": {"t": {"0": "two"}}}, headers={"Lease-Epoch": str(taken)})
    assert (await api.state(session))["keys"] == {"t": {**many(), "0": "two"}}


# -- the whole session -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["put", "reset"])
async def test_a_replacement_leaves_nothing_waiting(api: Api, settle: Settle, how: str):
    session = fresh()
    await api.commit(session, {"creds": creds()})
    await api.commit(session, {"keys": {"t": many()}})
    await settle(session)
    body = {"creds": creds(), "keys": {"u": {"a": 1}}}
    if how == "put":
        await api.good("PUT", at(session, "state"), body)
    else:
        await api.commit(session, {**body, "reset": True})
    assert await waiting(api, session) == 0
    await is_read_as(api, session, 3, {"u": {"a": 1}}, creds())


async def test_a_deleted_session_comes_back_with_what_waited(api: Api, settle: Settle):
    session = fresh()
    await api.commit(session, {"creds": creds()})
    await api.commit(session, {"keys": {"t": many()}})
    await settle(session)
    removed = await api.good("DELETE", at(session))
    assert removed["rows"] == LARGE + 1
    await api.store.settle(ME, session)
    assert (await api.ask("GET", at(session, "state"))).slug == "deleted"
    await api.good("POST", at(session, "restore"))
    await is_read_as(api, session, 2, {"t": many()}, creds())
    await api.good("DELETE", at(session) + "?purge=true")
    assert await api.sql("SELECT 1 FROM session_journal WHERE sid = $1", sid_of(session)) == []
    await api.commit(session, {"creds": creds(2)})
    assert (await api.state(session))["keys"] == {}


# -- becoming rows -----------------------------------------------------------------------------------------------------


async def test_a_service_that_stops_as_something_is_to_be_settled_stops(own_api: Api):
    """Both in one turn of the loop: what waits for either must not take the one for the other."""
    settler = own_api.store.settler
    running = asyncio.create_task(settler.run())
    await asyncio.sleep(0.05)
    settler._some.set()
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=5)
    running.cancel()
    assert ended


async def test_it_becomes_rows_by_itself(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    session = fresh()
    await own_api.commit(session, {"creds": creds()})
    await own_api.commit(session, {"keys": {"t": many()}})
    async with asyncio.timeout(10):
        while await waiting(own_api, session):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await own_api.sql("SELECT count(*) FROM session_keys"))[0][0] == LARGE + 1
    await is_read_as(own_api, session, 2, {"t": many()}, creds())


async def test_what_a_process_left_behind_becomes_rows(database_url: str, monkeypatch: pytest.MonkeyPatch):
    async with serve(database_url) as gone:
        for n in range(3):
            await gone.commit(f"s{n}", {"creds": creds()})
            await gone.commit(f"s{n}", {"keys": {"t": many()}})
    monkeypatch.undo()
    monkeypatch.setattr(settling, "_LEFT_BEHIND_S", 0.2)
    async with serve(database_url) as api, asyncio.timeout(10):
        while (await api.sql("SELECT count(*) FROM session_journal"))[0][0]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for n in range(3):
            await is_read_as(api, f"s{n}", 2, {"t": many()}, creds())


async def test_one_that_cannot_settle_keeps_nobody_waiting(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    bad, good = fresh(), fresh()
    for session in (bad, good):
        await own_api.commit(session, {"creds": creds()})
    await own_api.sql("ALTER TABLE session_keys ADD CHECK (ktype <> 'refused')")
    await own_api.commit(bad, {"keys": {"refused": many()}})
    await own_api.commit(good, {"keys": {"t": many()}})
    async with asyncio.timeout(10):
        while await waiting(own_api, good):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await waiting(own_api, bad) == 1
    assert (await own_api.state(bad))["keys"] == {"refused": many()}
    await own_api.commit(bad, {"keys": {"refused": {"0": None}}})
    assert "0" not in (await own_api.state(bad))["keys"]["refused"]


async def test_a_full_journal_becomes_rows_before_the_next_commit(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settling, "_FULL", (3, 1 << 24))
    session = fresh()
    await api.commit(session, {"creds": creds()})
    seen = []
    for stamp in range(8):
        await api.commit(session, {"keys": {"t": many(stamp=stamp)}})
        seen.append(await waiting(api, session))
    assert seen == [1, 2, 3, 1, 2, 3, 1, 2]
    await is_read_as(api, session, 9, {"t": many(stamp=7)}, creds())


async def test_a_burst_of_small_commits_waits_and_is_read_like_any_other(
    api: Api, settle: Settle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heads, "_AT_ONCE_S", 60.0)  # however slow the machine is
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"pre-key": {f"{n}": pre_key(n) for n in range(30)}}})
    for n in range(30):
        await api.commit(session, {"keys": {"session": {"peer.0": {"n": n}}, "pre-key": {f"{n}": None}}})
    assert await waiting(api, session) == 30 - heads._BURST - 1
    await settle(session)
    await is_read_as(api, session, 31, {"session": {"peer.0": {"n": 29}}}, creds())


async def test_a_session_that_is_written_now_and_then_has_rows_at_once(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "_AT_ONCE_S", 0.0)  # each comes too late to be part of a burst
    session = fresh()
    await api.commit(session, {"creds": creds()})
    for n in range(2 * heads._BURST):
        await api.commit(session, {"keys": {"t": {"a": n}}})
    assert await waiting(api, session) == 0


async def test_a_burst_ends_when_it_has_become_rows_and_was_quiet(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "_AT_ONCE_S", 60.0)
    session = fresh()
    await api.commit(session, {"creds": creds()})
    for n in range(2 * heads._BURST):
        await api.commit(session, {"keys": {"t": {"a": n}}})
    assert await waiting(api, session) > 0
    await api.store.settle(ME, session)
    monkeypatch.setattr(heads, "_AT_ONCE_S", 0.0)  # as if time had passed
    await api.commit(session, {"keys": {"t": {"a": "last"}}})
    assert await waiting(api, session) == 0
    assert await api.get(session, {"t": ["a"]}) == {"t": {"a": "last"}}


async def test_room_is_made_where_settled_entries_lay(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    """Autovacuum looks once a minute; a long burst would leave the table grown by all that it settled meanwhile."""
    monkeypatch.setattr(settling, "_TIDY", 1)
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: True)
    session = fresh()
    await own_api.commit(session, {"creds": creds()})
    await own_api.commit(session, {"keys": {"t": many()}})
    vacuums = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'session_journal'"
    async with asyncio.timeout(20):
        while not (await own_api.sql(vacuums))[0][0]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await waiting(own_api, session) == 0
    assert await own_api.get(session, {"t": ["0"]}) == {"t": {"0": many()["0"]}}
