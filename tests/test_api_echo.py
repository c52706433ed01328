"""What comes out is what went in, byte for byte, on every way out; and what is deleted is gone."""

import gzip
import json
import random

import pytest
from api import Api, at, creds, fresh, members_of, serve, zipped

# JSON texts as they are sent, kept to the byte.
TEXTS = [
    '{"b":1,"a":2,"c":{"z":1,"y":2}}',
    '{ "spaced" : [ 1 ,\t2 ,\n3 ] }',
    "1e21",
    "1E+2",
    "-0",
    "-0.0",
    "1.10",
    "0.1e-7",
    "123456789012345678901234567890",
    "1e999",
    '"\\ud83d"',
    '"\\uDE00\\ud83d"',
    '"\\ud83d\\ude00"',
    '"\\\\ud83d"',
    '"\\\\\\ud83d\\\\"',
    '"\\u0000"',
    '"\\u0041\\/\\b"',
    '"\U0001f600 é \u2028\u2029 \ufeff \x7f"',
    '"\uf8ff\\uf8ff"',
    '{"type":"Buffer","data":""}',
    '{"type":"Buffer","data":"AAEC"}',
    '{"type":"Buffer","data":[0,1,2]}',
    '{"0":0,"1":255}',
    '{"a":1,"a":2}',
    '{"\\ud83d":"\\udc00","constructor":null,"__proto__":{}}',
    '""',
    "0",
    "false",
    "true",
    "[]",
    "{}",
    "[null]",
    '"null"',
]
IDS = [
    "constructor",
    "__proto__",
    "toString",
    "hasOwnProperty",
    "",
    "4915551234567@s.whatsapp.net",
    "4915551234567:12@s.whatsapp.net",
    "120363000000000000@g.us::4915551234567::0",
    "AAAAA+/=",
    "a/b:c",
    '"quoted" \\ \n \x7f',
    "\U0001f600",
    "\ufeff\u2028",
    "null",
    " ",
]


def body_of(members: dict[str, str], ktype: str = "session", creds_text: str | None = None) -> bytes:
    rows = ",".join(f"{json.dumps(key_id)}:{text}" for key_id, text in members.items())
    before = f'"creds":{creds_text},' if creds_text else ""
    return f'{{{before}"keys":{{{json.dumps(ktype)}:{{{rows}}}}}}}'.encode()


async def test_every_text_comes_out_as_it_went_in_on_every_way_out(api: Api):
    session = fresh()
    sent = {f"k{n}": text for n, text in enumerate(TEXTS)}
    creds_text = '{ "z": "\\ud83d", "a" : 1e21,"account":{"\\u0000":[]} , "b":"\U0001f600"}'
    await api.commit(session, raw=body_of(sent, creds_text=creds_text))
    expected = {key: text.encode() for key, text in sent.items()}

    got = await api.ask("POST", at(session, "keys/get"), {"session": [*sent, "missing"], "other": ["k1"]})
    assert members_of(got.text, "session") == expected
    assert set(members_of(got.text)) == {"session"}
    state = await api.ask("GET", at(session, "state"))
    assert members_of(state.text, "keys", "session") == expected
    assert members_of(state.text)["creds"] == creds_text.encode()
    page = await api.ask("GET", at(session, "keys/session?values=true&limit=1000"))
    assert members_of(page.text, "values") == expected
    assert (await api.ask("GET", at(session, "creds"))).text == creds_text.encode()


async def test_a_state_put_elsewhere_is_the_same_state(api: Api):
    session, copy = fresh(), fresh()
    sent = {f"k{n}": text for n, text in enumerate(TEXTS)}
    await api.commit(session, raw=body_of(sent, creds_text='{ "a":\t"\\ud83d" }'))
    await api.commit(session, raw=body_of({"1": '"x"'}, "pre-key"))
    state = await api.ask("GET", at(session, "state"))
    await api.commit(copy, {"keys": {"session": {"k1": 1, "gone": 1}, "old": {"a": 1}}})
    done = await api.good("PUT", at(copy, "state"), raw=state.text)
    again = await api.ask("GET", at(copy, "state"))
    assert done == {"version": 2, "epoch": 0}
    for path in (("keys", "session"), ("keys", "pre-key"), ("keys",)):
        there, here = members_of(again.text, *path), members_of(state.text, *path)
        assert (there == here) if path[1:] else (set(there) == set(here))
    assert members_of(again.text)["creds"] == members_of(state.text)["creds"] == b'{ "a":\t"\\ud83d" }'


async def test_every_id_is_an_id_like_any_other(api: Api):
    session, ids = fresh(), [key_id for key_id in IDS if key_id]
    await api.commit(session, {"keys": {}})
    assert await api.get(session, {"constructor": ids, "__proto__": ids}) == {}
    sent = {ktype: {key_id: [ktype, key_id] for key_id in ids} for ktype in ("session", "constructor", "__proto__")}
    await api.commit(session, {"keys": sent})
    assert await api.get(session, {ktype: [*ids, "other"] for ktype in sent}) == sent
    assert (await api.state(session))["keys"] == sent
    for ktype, members in sent.items():
        assert (await api.good("GET", at(session, f"keys/{ktype}?values=1")))["values"] == members
    await api.commit(session, {"keys": {"constructor": {"__proto__": None}}})
    del sent["constructor"]["__proto__"]
    assert (await api.state(session))["keys"] == sent


@pytest.mark.parametrize("value", ["", 0, False, [], {}, "null", 0.0])
async def test_only_null_deletes(api: Api, value: object):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1, "b": 1}}})
    await api.commit(session, {"keys": {"t": {"a": value}}})
    assert await api.get(session, {"t": ["a"]}) == {"t": {"a": value}}
    await api.commit(session, {"keys": {"t": {"a": None}}})
    assert await api.get(session, {"t": ["a", "b"]}) == {"t": {"b": 1}}


async def test_null_with_white_space_deletes(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    await api.commit(session, raw=b'{"keys":{"t":{"a":\n null\t}}}')
    assert await api.get(session, {"t": ["a"]}) == {}


async def test_set_and_delete_together(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"session": {"a": 1}, "pre-key": {"1": None}}})
    assert await api.get(session, {"session": ["a"], "pre-key": ["1"]}) == {"session": {"a": 1}}
    await api.commit(session, {"keys": {"session": {"a": None, "b": 2}, "pre-key": {"1": 1}}})
    assert (await api.state(session))["keys"] == {"session": {"b": 2}, "pre-key": {"1": 1}}


async def test_deleting_what_is_not_there_is_a_commit(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": None}}})
    assert (await api.commit(session, {"keys": {"t": {"a": None, "b": None}, "u": {"c": None}}}))["version"] == 2
    state = await api.state(session)
    assert (state["version"], state["keys"], state["creds"]) == (2, {}, None)


@pytest.mark.parametrize("body", [{}, {"keys": {}}, {"keys": {"t": {}}}, {"keys": {"t": {}, "u": {}}}])
async def test_an_empty_commit_makes_a_session_and_counts(api: Api, body: object):
    session = fresh()
    for version in (1, 2):
        assert await api.commit(session, body) == {"version": version, "epoch": 0}
    empty = {"session": session, "version": 2, "epoch": 0, "keys": {}, "creds": None}
    assert await api.state(session) == empty
    # What was read can be written as it is, over another session too.
    copy = fresh()
    await api.good("PUT", at(copy, "state"), empty)
    assert await api.state(copy) == {**empty, "session": copy, "version": 1}
    summary = await api.summary(session)
    assert (summary["keys"], summary["paired"], summary["lease"]) == ({}, False, None)


async def test_reset_wipes_all_keys_in_the_same_commit(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"session": {"a": 1}, "t": {"x": 1, "y": 2}}})
    body = {"creds": creds(2), "keys": {"t": {"y": 3, "z": None}}, "reset": True}
    assert (await api.commit(session, body))["version"] == 2
    state = await api.state(session)
    assert (state["creds"], state["keys"]) == (creds(2), {"t": {"y": 3}})
    await api.commit(session, {"keys": {"t": {"y": 4}}})
    assert (await api.state(session))["keys"] == {"t": {"y": 4}}


async def test_the_same_ids_in_two_sessions_are_apart(api: Api):
    one, two = fresh(), fresh()
    for n, session in enumerate((one, two)):
        await api.commit(session, {"creds": creds(n), "keys": {"session": {"a": n}}})
    await api.commit(one, {"keys": {"session": {"a": None}}})
    assert (await api.state(two))["keys"] == {"session": {"a": 1}}
    assert (await api.state(one))["keys"] == {}


async def test_an_id_asked_for_twice_is_answered_once(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    got = await api.ask("POST", at(session, "keys/get"), {"t": ["a", "a", "b", "b"]})
    assert got.text == b'{"t":{"a":1}}'


async def test_the_last_of_equal_members_counts(api: Api):
    session = fresh()
    await api.commit(session, raw=b'{"keys":{"t":{"a":1,"\\u0061":2}}}')
    assert await api.get(session, {"t": ["a"]}) == {"t": {"a": 2}}


# -- the way over the wire ---------------------------------------------------------------------------------------------


async def test_gzip_both_ways(api: Api):
    session, text = fresh(), json.dumps({"keys": {"t": {"a": "é" * 5000}}}).encode()
    await api.commit(session, raw=zipped(text), headers={"Content-Encoding": "GZIP"})
    url = api.client.make_url(at(session, "state"))
    for accepted, coding in ((None, None), ("identity", None), ("gzip", "gzip"), ("br, gzip;q=0.5", "gzip")):
        sent = {"Authorization": f"Bearer {api.token}", **({"Accept-Encoding": accepted} if accepted else {})}
        skip = [] if accepted else ["Accept-Encoding"]
        request = api.client.session.get(url, headers=sent, skip_auto_headers=skip)
        async with request as response:
            assert response.headers.get("Content-Encoding") == coding
            assert (await response.json())["keys"] == {"t": {"a": "é" * 5000}}


async def test_gzip_on_every_call_with_a_body(api: Api):
    session, coded = fresh(), {"Content-Encoding": "gzip"}
    for method, path, body in (
        ("PUT", at(session, "state"), {"keys": {"t": {"a": 1}}}),
        ("POST", at(session, "commit"), {"keys": {"t": {"b": 1}}}),
        ("POST", "/v1/commits", {"commits": [{"session": session}]}),
        ("POST", at(session, "keys/get"), {"t": ["a"]}),
        ("POST", at(session, "lease"), {"holder": "h", "ttl_s": 5}),
    ):
        await api.good(method, path, raw=zipped(json.dumps(body).encode()), headers=coded)


async def test_small_answers_are_not_compressed(api: Api):
    session = fresh()
    await api.commit(session, {})
    answer = await api.ask("GET", at(session, "state"), headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("megabytes", [2, 10])
async def test_large_bodies(own_api: Api, megabytes: int):
    text = '{"data":"' + "\\ud83d is half an emoji" * (megabytes * 45_000) + '"}'
    assert len(text) > megabytes * 1_000_000
    session = fresh()
    await own_api.commit(session, raw=body_of({"one": text}))
    got = await own_api.ask("POST", at(session, "keys/get"), {"session": ["one"]})
    assert members_of(got.text, "session") == {"one": text.encode()}
    half = {f"k{n}": json.dumps("y" * 1000) for n in range(megabytes * 500)}
    await own_api.commit(
        session, raw=gzip.compress(body_of({**half, "two": text}), 1), headers={"Content-Encoding": "gzip"}
    )
    state = await own_api.ask("GET", at(session, "state"))
    assert members_of(state.text, "keys", "session") == {
        key: value.encode() for key, value in {**half, "two": text, "one": text}.items()
    }


async def test_a_session_too_large_for_one_piece_is_streamed_whole(own_api: Api, database_url: str):
    session, random_ = fresh(), random.Random(7)
    sent = {f"t{t}": {f"id-{n}": random_.random() for n in range(2500)} for t in range(4)}
    await own_api.good("PUT", at(session, "state"), {"creds": creds(), "keys": sent})
    answer = await own_api.ask("GET", at(session, "state"))
    assert (answer.json["keys"], answer.json["creds"]) == (sent, creds())
    assert answer.headers["ETag"] == '"1"'
    packed = await own_api.ask("GET", at(session, "state"), headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.text == answer.text
    async with serve(database_url) as stranger:  # which has not met the session, and meets it whole
        assert (await stranger.of(own_api.token).ask("GET", at(session, "state"))).status == 401
        assert (await stranger.ask("GET", at(session, "state"))).json["keys"] == sent
    await own_api.commit(session, {"creds": creds(), "keys": {"t0": {"x": 1}}, "reset": True})
    assert (await own_api.state(session))["keys"] == {"t0": {"x": 1}}


async def test_a_stream_whose_reader_goes_away_leaves_the_store_well(own_api: Api):
    session = fresh()
    sent = {"t": {f"id-{n}": "x" * 1000 for n in range(9000)}}
    await own_api.good("PUT", at(session, "state"), {"keys": sent})
    headers = {"Authorization": f"Bearer {own_api.token}"}
    for _ in range(12):  # more than there are connections
        async with own_api.client.request("GET", at(session, "state"), headers=headers) as response:
            await response.content.read(1000)
            response.close()
    assert len((await own_api.state(session))["keys"]["t"]) == 9000


async def test_pages_hold_every_key_once_also_while_others_write(api: Api):
    session = fresh()
    sent = {f"id-{n}": n for n in range(250)}
    await api.commit(session, {"keys": {"t": sent, "other": dict.fromkeys(sent, "x")}})
    for values in (False, True):
        cursor, seen, pages = None, [], 0
        while True:
            query = f"limit=40&values={str(values).lower()}" + (f"&cursor={cursor}" if cursor else "")
            page = await api.good("GET", at(session, f"keys/t?{query}"))
            seen += page["values"].items() if values else page["ids"]
            pages, cursor = pages + 1, page["next"]
            await api.commit(session, {"keys": {"t": {f"new-{values}-{pages}": 0, f"id-{pages}": pages}}})
            if cursor is None:
                break
        found = [key if isinstance(key, str) else key[0] for key in seen]
        assert len(found) == len(set(found))
        assert set(sent) <= set(found)
        assert not values or all(dict(seen)[key] == n for key, n in sent.items())
    assert await api.good("GET", at(session, "keys/none")) == {"ids": [], "next": None}
    assert await api.good("GET", at(session, "keys/none?values=true")) == {"values": {}, "next": None}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
async def test_the_last_page_says_so(api: Api, count: int):
    session = fresh()
    await api.commit(session, {"keys": {"t": {str(n): n for n in range(count)}}})
    first = await api.good("GET", at(session, "keys/t?limit=2"))
    assert (len(first["ids"]), first["next"] is None) == (min(count, 2), count <= 2)
    if first["next"]:
        second = await api.good("GET", at(session, f"keys/t?limit=2&cursor={first['next']}"))
        assert (len(second["ids"]), second["next"]) == (count - 2, None)


async def test_etags_are_versions(api: Api):
    session = fresh()
    for version in (1, 2, 3):
        await api.commit(session, {"creds": creds()})
        for call in ("creds", "state"):
            assert (await api.ask("GET", at(session, call))).headers["ETag"] == f'"{version}"'
    etag = (await api.ask("GET", at(session, "state"))).headers["ETag"]
    await api.commit(session, {}, headers={"If-Match": etag})
