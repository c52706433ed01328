"""Leases, lists, and the way out of the store and back: take, renew, take over, delete, restore, purge."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from api import Api, at, creds, fresh, key_uuid, serve, sid_of

from service.records import SessionRow, Vacant
from service.sql import sessions as sql
from service.sql.pool import Connection


def with_epoch(epoch: int) -> dict[str, str]:
    return {"Lease-Epoch": str(epoch)}


async def expire(api: Api, session: str) -> None:
    """The lease's time is over, without waiting for it."""
    await api.sql("UPDATE sessions SET lease_expires = now() - interval '1 s' WHERE sid = $1", sid_of(session))


async def test_a_lease_of_an_unknown_name_makes_an_empty_session(api: Api):
    session = fresh()
    before = datetime.now(UTC)
    granted = await api.good("POST", at(session, "lease"), {"holder": "one", "ttl_s": 30})
    assert (granted["session"], granted["epoch"]) == (session, 1)
    left = datetime.fromisoformat(granted["expires_at"]) - before
    assert timedelta(seconds=29) < left < timedelta(seconds=32)
    assert await api.state(session) == {
        "session": session,
        "version": 0,
        "epoch": 1,
        "keys": {},
        "creds": None,
    }
    summary = await api.summary(session)
    assert (summary["lease"], summary["version"]) == ({"holder": "one", "expires_at": granted["expires_at"]}, 0)
    answer = await api.ask("POST", at(session, "lease"), {"holder": "two", "ttl_s": 30})
    assert answer.slug == "leased"
    assert answer.json["expires_at"] == granted["expires_at"]


async def test_of_newcomers_one_begins(api: Api):
    session = fresh()
    asks = [api.ask("POST", at(session, "lease"), {"holder": f"h{n}", "ttl_s": 30}) for n in range(12)]
    answers = await asyncio.gather(*asks)
    assert sorted(answer.status for answer in answers) == [200] + [423] * 11
    winner = next(n for n, answer in enumerate(answers) if answer.status == 200)
    assert {answer.json["holder"] for answer in answers if answer.status == 423} == {f"h{winner}"}


async def test_renewing_keeps_the_epoch_and_moves_the_end(api: Api):
    session = fresh()
    body = {"holder": "one", "ttl_s": 30}
    first = await api.good("POST", at(session, "lease"), body)
    for headers in ({}, with_epoch(first["epoch"])):
        again = await api.good("POST", at(session, "lease"), {**body, "ttl_s": 60}, headers=headers)
        assert again["epoch"] == first["epoch"]
        assert again["expires_at"] > first["expires_at"]
    assert await api.commit(session, {}, headers=with_epoch(first["epoch"])) == {"version": 1, "epoch": 1}


async def test_an_expired_lease_is_renewed_by_its_holder_and_taken_by_another(api: Api):
    session = fresh()
    first = await api.lease(session, "one")
    await expire(api, session)
    assert (await api.summary(session))["lease"] is None
    assert await api.lease(session, "one") == first
    await expire(api, session)
    assert await api.lease(session, "two") == first + 1
    assert (
        await api.ask("POST", at(session, "lease"), {"holder": "one", "ttl_s": 5}, headers=with_epoch(first))
    ).slug == ("fenced")


async def test_a_write_with_its_epoch_outlives_the_lease_until_another_takes_it(api: Api):
    session = fresh()
    epoch = await api.lease(session, "one")
    await expire(api, session)
    assert await api.commit(session, {}, headers=with_epoch(epoch)) == {"version": 1, "epoch": epoch}
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(epoch + 1))).slug == "fenced"
    await api.lease(session, "two")
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(epoch))).slug == "fenced"


@pytest.mark.parametrize("how", ["commit", "batch", "state"])
async def test_a_write_without_an_epoch_over_an_expired_lease_fences_its_owner(api: Api, how: str):
    session = fresh()
    epoch = await api.lease(session, "one")
    await api.commit(session, {"creds": creds()}, headers=with_epoch(epoch))
    await expire(api, session)
    if how == "commit":
        done = await api.commit(session, {"keys": {"t": {"a": 1}}})
    elif how == "batch":
        done = (await api.good("POST", "/v1/commits", {"commits": [{"session": session}]}))["results"][0]
    else:
        done = await api.good("PUT", at(session, "state"), {"creds": creds(), "keys": {}})
    assert done == {"version": 2, "epoch": epoch + 1}
    async with api.unchanged():
        for body in ({}, {"keys": {"t": {"a": 2}}}):
            assert (await api.ask("POST", at(session, "commit"), body, headers=with_epoch(epoch))).slug == "fenced"
        renew = await api.ask("POST", at(session, "lease"), {"holder": "one", "ttl_s": 5}, headers=with_epoch(epoch))
        assert renew.slug == "fenced"
    assert await api.lease(session, "one") == epoch + 2


async def test_a_takeover_is_told_to_everybody(api: Api):
    session = fresh()
    epochs = [await api.lease(session, holder, takeover=True) for holder in ("one", "two", "one", "one")]
    assert epochs == [1, 2, 3, 4]
    for epoch in epochs[:-1]:
        assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(epoch))).slug == "fenced"
    await api.commit(session, {}, headers=with_epoch(4))


async def test_a_takeover_of_an_epoch_ends_that_lease_of_ones_own_and_no_other(api: Api):
    session = fresh()
    taking = {"holder": "one", "ttl_s": 30, "takeover": True}
    first = await api.lease(session, "one")
    again = await api.good("POST", at(session, "lease"), taking, headers=with_epoch(first))
    assert again["epoch"] == first + 1
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(first))).slug == "fenced"
    await api.commit(session, {}, headers=with_epoch(first + 1))
    async with api.unchanged():
        assert (await api.ask("POST", at(session, "lease"), taking, headers=with_epoch(first))).slug == "fenced"
        named_two = {**taking, "holder": "two"}
        assert (await api.ask("POST", at(session, "lease"), named_two, headers=with_epoch(first + 1))).slug == "fenced"
    await api.ask("DELETE", at(session, "lease"), headers=with_epoch(first + 1))
    async with api.unchanged():
        assert (await api.ask("POST", at(session, "lease"), taking, headers=with_epoch(first + 1))).slug == "fenced"
    assert await api.lease(session, "two") == first + 2


async def test_a_takeover_of_anothers_epoch_takes_the_session_from_that_owner_and_from_none_after(api: Api):
    session = fresh()
    first = await api.lease(session, "one")
    held = await api.ask("POST", at(session, "lease"), {"holder": "two", "ttl_s": 30})
    assert (held.slug, held.json["epoch"]) == ("leased", first)
    taking = {"holder": "two", "ttl_s": 30, "takeover_epoch": first}
    assert (await api.good("POST", at(session, "lease"), taking))["epoch"] == first + 1
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(first))).slug == "fenced"
    again = await api.good("POST", at(session, "lease"), taking)
    assert again["epoch"] == first + 1, "asked again it is a renewal"
    await api.ask("DELETE", at(session, "lease"), headers=with_epoch(first + 1))
    later = await api.lease(session, "three")
    async with api.unchanged():
        late = await api.ask("POST", at(session, "lease"), taking)
    assert (late.slug, late.json["holder"], late.json["epoch"]) == ("leased", "three", later)
    await api.commit(session, {}, headers=with_epoch(later))
    assert await api.lease(session, "three", takeover_epoch=later) == later + 1, "of a lease of one's own too"


async def test_a_takeover_of_an_epoch_takes_what_is_free_like_any_other_ask(api: Api):
    new, expired = fresh(), fresh()
    assert await api.lease(new, "one", takeover_epoch=7) == 1
    first = await api.lease(expired, "one")
    await expire(api, expired)
    assert await api.lease(expired, "two", takeover_epoch=first + 5) == first + 1
    async with api.unchanged():
        for wrong in (-1, 1.5, "1", True, 2**63):
            body = {"holder": "two", "ttl_s": 5, "takeover_epoch": wrong}
            assert (await api.ask("POST", at(new, "lease"), body)).slug == "bad-body"


async def test_of_takeovers_of_one_epoch_one_comes_first(api: Api):
    session = fresh()
    first = await api.lease(session, "one")
    bodies = [{"holder": f"h{n}", "ttl_s": 30, "takeover_epoch": first} for n in range(8)]
    answers = await asyncio.gather(*(api.ask("POST", at(session, "lease"), body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200] + [423] * 7
    assert (await api.summary(session))["epoch"] == first + 1


@pytest.mark.parametrize(
    ("holder", "takeover", "status"), [("two", True, 200), ("one", False, 200), ("two", False, 423)]
)
async def test_a_lease_of_a_session_made_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch, holder: str, takeover: bool, status: int
):
    """Another owner makes the session between the two looks of a request that found none."""
    session, find = fresh(), sql.find

    async def made_just_before(connection: Connection, sid: UUID) -> SessionRow | Vacant:
        monkeypatch.setattr(sql, "find", find)
        await api.lease(session, "one")
        return await find(connection, sid)

    monkeypatch.setattr(sql, "find", made_just_before)
    wanted = {"holder": holder, "ttl_s": 5, "takeover": takeover}
    assert (await api.ask("POST", at(session, "lease"), wanted)).status == status


async def test_a_delete_beside_the_making(api: Api, monkeypatch: pytest.MonkeyPatch):
    session, find = fresh(), sql.find

    async def made_just_before(connection: Connection, sid: UUID) -> SessionRow | Vacant:
        monkeypatch.setattr(sql, "find", find)
        await api.commit(session, {})
        return await find(connection, sid)

    monkeypatch.setattr(sql, "find", made_just_before)
    assert (await api.ask("DELETE", at(session))).slug == "no-session"
    assert (await api.summary(session))["version"] == 1


async def test_what_happens_to_leases_is_counted(api: Api):
    async def counted() -> dict[str, float]:
        text = (await api.ask("GET", "/metrics")).text.decode()
        found = re.findall(r'^authstore_lease_events_total\{event="(\w+)"\} (\S+)$', text, re.M)
        return {event: float(count) for event, count in found}

    session, before = fresh("counted"), await counted()
    first = await api.lease(session, "one")  # granted: made
    await api.lease(session, "one")
    await api.good("POST", at(session, "lease"), {"holder": "one", "ttl_s": 5}, headers=with_epoch(first))
    for _ in range(3):
        assert (await api.ask("POST", at(session, "lease"), {"holder": "two", "ttl_s": 5})).slug == "leased"
    await api.lease(session, "two", takeover=True)
    stale = await api.ask("POST", at(session, "lease"), {"holder": "one", "ttl_s": 5}, headers=with_epoch(first))
    assert stale.slug == "fenced"
    await expire(api, session)
    third = await api.lease(session, "three")  # granted: nobody's
    await api.ask("DELETE", at(session, "lease"), headers=with_epoch(third))
    await api.lease(session, "three")  # granted
    grown = {event: count - before.get(event, 0) for event, count in (await counted()).items()}
    assert grown == {"granted": 3, "renewed": 2, "refused": 4, "taken_over": 1, "released": 1}


async def test_what_is_said_of_a_fence_is_true(api: Api):
    """Whether the session is leased now, and what of the request does not go with that."""
    session = fresh()
    first = await api.lease(session, "one")

    async def said(method: str, call: str, body: Any, epoch: int | None) -> str:
        headers = {} if epoch is None else with_epoch(epoch)
        answer = await api.ask(method, at(session, call) if call else at(session), body, headers=headers)
        assert (answer.status, answer.slug) == (409, "fenced")
        return str(answer.json["detail"])

    leased, none, another, over, other_holder = (
        "The session is leased, and this request carries no epoch.",
        "The session has no lease, and this request carries an epoch that is not its last.",
        "The session is leased, and this request carries another epoch than the lease's.",
        "The lease of this epoch has ended.",
        "The lease of this epoch is another holder's.",
    )
    mine = {"holder": "one", "ttl_s": 5}
    assert await said("POST", "commit", {}, None) == leased
    assert await said("PUT", "state", {"keys": {}}, None) == leased
    for epoch in (first - 1, first + 1):
        assert await said("POST", "commit", {}, epoch) == another
        assert await said("DELETE", "lease", None, epoch) == another
        assert await said("DELETE", "", None, epoch) == another
        assert await said("POST", "lease", mine, epoch) == another
    assert await said("POST", "lease", {"holder": "two", "ttl_s": 5}, first) == other_holder
    assert (await api.ask("DELETE", at(session, "lease"), headers=with_epoch(first))).status == 204
    assert await said("POST", "lease", mine, first) == over
    for epoch in (first - 1, first + 1):
        assert await said("POST", "commit", {}, epoch) == none
        assert await said("DELETE", "", None, epoch) == none
    gone = await api.ask("POST", at(fresh(), "commit"), {}, headers=with_epoch(3))
    assert gone.json["detail"] == "There is no such session, so there is no lease on it."
    gone = await api.ask("POST", at(fresh(), "lease"), mine, headers=with_epoch(3))
    assert gone.json["detail"] == "There is no such session, so there is no lease on it."


async def test_release(api: Api):
    session = fresh()
    epoch = await api.lease(session, "one")
    answer = await api.ask("DELETE", at(session, "lease"), headers=with_epoch(epoch))
    assert (answer.status, answer.text) == (204, b"")
    assert (await api.summary(session))["lease"] is None
    await api.commit(session, {})
    assert await api.lease(session, "two") == epoch + 1
    for name, slug in ((session, "fenced"), (fresh(), "no-session")):
        answer = await api.ask("DELETE", at(name, "lease"), headers=with_epoch(epoch))
        assert answer.slug == slug
    assert (await api.summary(session))["lease"]["holder"] == "two"


async def test_a_lease_changes_no_version_and_no_row(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"t": {"a": 1}}})
    epoch = await api.lease(session, "one")
    await api.ask("DELETE", at(session, "lease"), headers=with_epoch(epoch))
    state = await api.state(session)
    assert (state["version"], state["epoch"], state["keys"]) == (1, 1, {"t": {"a": 1}})


# -- lists and summaries -----------------------------------------------------------------------------------------------


async def test_lists_are_paged_by_name(own_api: Api):
    names = sorted(
        [f"{word}{n}" for word in ("a", "a:", "ab", "B", "z") for n in range(5)] + ["a", "+1", "-", "~"[:0] + "_"]
    )
    for name in names:
        await own_api.commit(name, {"keys": {"t": {"a": 1}}})
    gone = names.pop(3)
    await own_api.good("DELETE", at(gone))
    for limit in (1, 4, 100):
        for prefix in ("", "a", "a:", "ab", "z4", "q"):
            found, cursor = [], None
            while True:
                query = f"limit={limit}&prefix={prefix.replace('+', '%2B')}" + (
                    f"&cursor={cursor.replace('+', '%2B')}" if cursor else ""
                )
                page = await own_api.good("GET", f"/v1/sessions?{query}")
                found += [summary["session"] for summary in page["sessions"]]
                assert len(page["sessions"]) <= limit
                cursor = page["next"]
                if cursor is None:
                    break
            assert found == [name for name in names if name.startswith(prefix)], (limit, prefix)
    shown = (await own_api.good("GET", f"/v1/sessions?prefix={names[0].replace('+', '%2B')}"))["sessions"][0]
    assert shown == await own_api.summary(names[0])


async def test_a_summary_counts(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"session": {"a": 1, "b": 22}, "t": {"x": "long" * 100}}})
    summary = await api.summary(session)
    assert set(summary) == {"session", "version", "epoch", "lease", "paired", "keys", "created_at", "updated_at"}
    assert (summary["session"], summary["version"], summary["epoch"], summary["paired"]) == (session, 1, 0, True)
    assert {ktype: seen["count"] for ktype, seen in summary["keys"].items()} == {"session": 2, "t": 1}
    assert summary["keys"]["t"]["bytes"] > 400
    assert datetime.fromisoformat(summary["created_at"]).tzinfo is not None
    await api.commit(session, {"keys": {"session": {"a": None}, "t": {"x": None}}})
    later = await api.summary(session)
    assert {ktype: seen["count"] for ktype, seen in later["keys"].items()} == {"session": 1}
    assert later["updated_at"] > summary["updated_at"] >= summary["created_at"] == later["created_at"]


# -- delete, restore, purge --------------------------------------------------------------------------------------------


async def test_delete_and_restore(api: Api):
    session = fresh()
    body = {"creds": creds(), "keys": {"session": {"a": 1}}}
    await api.commit(session, body)
    epoch = await api.lease(session, "one")
    removed = await api.good("DELETE", at(session))
    assert (removed["session"], removed["version"], removed["rows"]) == (session, 1, 2)
    until = datetime.fromisoformat(removed["restorable_until"])
    assert timedelta(days=6, hours=23) < until - datetime.now(UTC) < timedelta(days=7, minutes=1)
    assert (await api.ask("GET", at(session, "creds"))).slug == "deleted"
    assert (await api.ask("DELETE", at(session))).slug == "deleted"

    summary = await api.good("POST", at(session, "restore"))
    assert (summary["version"], summary["epoch"], summary["lease"], summary["paired"]) == (1, epoch + 1, None, True)
    state = await api.state(session)
    assert (state["creds"], state["keys"]) == (creds(), {"session": {"a": 1}})
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(epoch))).slug == "fenced"
    assert (await api.commit(session, {}))["version"] == 2
    assert (await api.good("POST", at(session, "restore")))["version"] == 2  # nothing to undo


async def test_delete_under_a_lease_takes_its_epoch_when_given(api: Api):
    session = fresh()
    epoch = await api.lease(session, "one")
    async with api.unchanged():
        assert (await api.ask("DELETE", at(session), headers=with_epoch(epoch + 1))).slug == "fenced"
    await api.good("DELETE", at(session), headers=with_epoch(epoch))


async def test_restore_of_what_never_was_is_404(api: Api):
    assert (await api.ask("POST", at(fresh(), "restore"))).slug == "no-session"


async def test_purge_leaves_nothing_and_the_name_goes_on_where_it_stood(api: Api):
    session, key = fresh(), key_uuid()
    for n in range(3):
        await api.commit(session, {"creds": creds(), "keys": {"session": {"a": n, f"b{n}": n}}})
    first = {"keys": {"session": {"z": 1}}}
    await api.commit(session, first, headers=key)
    epoch = await api.lease(session, "one")
    removed = await api.good("DELETE", at(session) + "?purge=true")
    assert (removed["version"], removed["rows"], removed["restorable_until"]) == (4, 6, None)
    for table in ("sessions", "session_keys"):
        assert (await api.sql(f"SELECT count(*) FROM {table} WHERE sid = $1", sid_of(session)))[0][0] == 0
    for method, call in (("GET", ""), ("GET", "state"), ("POST", "restore"), ("DELETE", "")):
        assert (await api.ask(method, at(session, call))).slug == "no-session"

    # A former owner matches neither version nor epoch of the session made anew.
    async with api.unchanged():
        for headers in ({"If-Match": '"4"'}, with_epoch(epoch), with_epoch(epoch + 1)):
            assert (await api.ask("POST", at(session, "commit"), {}, headers=headers)).status in {409, 412}
    made = await api.commit(session, {"creds": creds(2), "keys": {"session": {"c": 1}}})
    assert made["version"] == 5
    assert made["epoch"] > epoch
    assert (await api.state(session))["keys"] == {"session": {"c": 1}}
    assert (await api.ask("POST", at(session, "commit"), {}, headers=with_epoch(epoch))).slug == "fenced"
    assert await api.lease(session, "one") > made["epoch"]
    # Also its remembered keys went.
    assert (await api.commit(session, first, headers={**key, **with_epoch(made["epoch"] + 1)}))["version"] == 6


async def test_a_lease_after_a_purge_goes_on_too(api: Api):
    session = fresh()
    epoch = await api.lease(session, "one")
    await api.commit(session, {}, headers=with_epoch(epoch))
    await api.good("DELETE", at(session) + "?purge=1")
    assert await api.lease(session, "two") > epoch + 1
    assert (await api.state(session))["version"] >= 1
    await api.good("DELETE", at(session) + "?purge=1")
    again = await api.commit(session, {})
    assert again["version"] > 1


async def test_a_deleted_session_can_be_purged(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    await api.good("DELETE", at(session))
    removed = await api.good("DELETE", at(session) + "?purge=true")
    assert (removed["rows"], removed["restorable_until"]) == (1, None)
    assert (await api.ask("GET", at(session))).slug == "no-session"


async def test_a_former_owner_does_not_purge_what_its_successor_deleted(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    former = await api.lease(session, "one")
    owner = await api.lease(session, "two", takeover=True)
    await api.good("DELETE", at(session), headers=with_epoch(owner))
    async with api.unchanged():
        assert (await api.ask("DELETE", at(session) + "?purge=true", headers=with_epoch(former))).slug == "fenced"
    assert (await api.good("POST", at(session, "restore")))["version"] == 1
    await api.good("DELETE", at(session))
    # Whoever owned it last may; also again, since deleting raised the epoch.
    last = (await api.sql("SELECT epoch FROM sessions WHERE sid = $1", sid_of(session)))[0][0] - 1
    removed = await api.good("DELETE", at(session) + "?purge=true", headers=with_epoch(last))
    assert removed["restorable_until"] is None


async def test_a_session_restored_during_its_purge_is_purged_all_the_same(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    session, purge, restored = fresh(), sql.purge, []
    await own_api.commit(session, {"keys": {"t": {"a": 1}}})

    async def late(connection: Any, sid: Any, window: timedelta) -> int | None:
        if not restored:
            restored.append(await sql.restore(connection, sid, timedelta(days=7)))
        return await purge(connection, sid, window)

    monkeypatch.setattr(sql, "purge", late)
    removed = await own_api.good("DELETE", at(session) + "?purge=true")
    assert restored == [True]
    assert removed["restorable_until"] is None
    assert (await own_api.ask("GET", at(session))).slug == "no-session"


async def test_the_window_ends(own_api: Api):
    session, kept = fresh(), fresh()
    for name in (session, kept):
        await own_api.commit(name, {"creds": creds(), "keys": {"t": {"a": 1}}})
        await own_api.good("DELETE", at(name))
    await own_api.sql("UPDATE sessions SET deleted_at = now() - interval '7 days 1 s' WHERE sid = $1", sid_of(session))
    assert (await own_api.ask("POST", at(session, "restore"))).slug == "no-session"
    assert await own_api.store.purge_expired() == 1
    assert (await own_api.ask("GET", at(session))).slug == "no-session"
    assert (await own_api.sql("SELECT count(*) FROM session_keys WHERE sid = $1", sid_of(session)))[0][0] == 0
    assert (await own_api.good("POST", at(kept, "restore")))["version"] == 1
    assert (await own_api.commit(session, {}))["version"] == 2


async def test_another_process_hears_of_a_delete_a_purge_and_a_session_made_anew(shared_url: str, api: Api):
    session = fresh()
    async with serve(shared_url, token="x" * 32) as other:
        await other.commit(session, {"creds": creds(), "keys": {"t": {"a": 1}}})
        await api.commit(session, {"keys": {"t": {"b": 1}}})
        await api.good("DELETE", at(session))
        assert (await other.ask("POST", at(session, "commit"), {})).slug == "deleted"
        assert (await other.ask("POST", at(session, "keys/get"), {"t": ["a"]})).status == 410
        await api.good("POST", at(session, "restore"))
        assert await other.get(session, {"t": ["a", "b"]}) == {"t": {"a": 1, "b": 1}}
        await api.good("DELETE", at(session) + "?purge=1")
        assert (await other.ask("POST", at(session, "keys/get"), {"t": ["a"]})).status == 404
        assert (await other.ask("GET", at(session, "state"))).status == 404
        await api.commit(session, {"creds": creds(2), "keys": {"t": {"a": 7}}})
        assert await other.get(session, {"t": ["a", "b"]}) == {"t": {"a": 7}}
        assert (await other.commit(session, {"keys": {"t": {"c": 8}}}))["version"] == 4
        assert (await api.state(session))["keys"] == (await other.state(session))["keys"] == {"t": {"a": 7, "c": 8}}


async def test_a_prefix_may_be_what_no_name_is(own_api: Api):
    names = [".a", "..b", "...", "c."]
    for name in names:
        await own_api.commit(name, {})
    for prefix in (".", "..", "...", "c."):
        found = await own_api.good("GET", f"/v1/sessions?prefix={prefix}")
        expected = sorted(name for name in names if name.startswith(prefix))
        assert sorted(each["session"] for each in found["sessions"]) == expected
    assert (await own_api.ask("GET", "/v1/sessions?prefix=" + "." * 129)).status == 422
