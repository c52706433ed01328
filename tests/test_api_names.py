"""Names of sessions, types and ids, and what stands in queries: refused (422) or taken as they are, never cleaned up."""

import pytest
from api import Api, at, creds, fresh

BAD_NAMES = ["a b", "a/b", "a\\b", "é", "a\0b", "a\n", "a" * 129, "%", "{a}", "a?", "a#b", "\u202ea", "a" * 10_000]
BAD_TYPES = ["", "t" * 65, "a\0b", "\ud800", "a\udfff", "\ud83d"]
BAD_IDS = ["", "a" * 513, "é" * 257, "\0", "a\0b", "\ud800", "\udc00a", "x\ud83d"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
async def test_a_bad_session_name_is_422_on_every_call(api: Api, name: str):
    calls = [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "restore"),
        ("GET", "creds"),
        ("POST", "keys/get"),
        ("GET", "keys/session"),
        ("POST", "commit"),
        ("GET", "state"),
        ("PUT", "state"),
        ("POST", "lease"),
        ("GET", "integrity"),
    ]
    async with api.unchanged():
        if len(name) < 5000:
            for method, call in calls:
                answer = await api.ask(method, at(name, call), {} if method in {"POST", "PUT"} else None)
                assert (answer.status, answer.slug) == (422, "bad-input"), (method, call)
                assert name not in answer.text.decode() or name in "%"
        else:
            assert (await api.ask("POST", at(name, "commit"), {})).status in {400, 422}
        results = (await api.good("POST", "/v1/commits", {"commits": [{"session": name}, {"session": ""}]}))["results"]
        assert [result["problem"]["status"] for result in results] == [422, 422]


@pytest.mark.parametrize("query", ["prefix=a%20b", "prefix=%25", "cursor=%00", "cursor=%C3%A9", "cursor=%ED%A0%80"])
async def test_a_list_takes_names_only(api: Api, query: str):
    assert (await api.ask("GET", f"/v1/sessions?{query}")).slug == "bad-input"


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5", "9" * 40, "%D9%A1"])
async def test_a_limit_is_1_to_1000(api: Api, kept: str, limit: str):
    assert (await api.ask("GET", f"/v1/sessions?limit={limit}")).slug == "bad-input"
    assert (await api.ask("GET", at(kept, f"keys/session?limit={limit}"))).slug == "bad-input"


@pytest.mark.parametrize("query", ["cursor=x", "cursor=", "cursor=00", "cursor=" + "0" * 34, "values=maybe", "values="])
async def test_a_page_takes_its_own_cursors_only(api: Api, kept: str, query: str):
    assert (await api.ask("GET", at(kept, f"keys/session?{query}"))).slug == "bad-input"


@pytest.mark.parametrize("ktype", BAD_TYPES, ids=ascii)
async def test_a_bad_type_is_422(api: Api, kept: str, ktype: str):
    async with api.unchanged():
        for session in (kept, fresh()):
            body = {"creds": creds(), "keys": {"session": {"a": 2}, ktype: {"a": 1}}}
            for method, call in (("POST", "commit"), ("PUT", "state")):
                answer = await api.ask(method, at(session, call), body)
                assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", "/keys")


@pytest.mark.parametrize("key_id", BAD_IDS, ids=lambda key_id: ascii(key_id[:9]) + str(len(key_id)))
async def test_a_bad_id_is_422_and_nothing_beside_it_is_stored(api: Api, kept: str, key_id: str):
    async with api.unchanged():
        for value in (1, None):
            body = {"creds": creds(), "keys": {"session": {"a": 2, "b": None, key_id: value, "c": 3}}}
            for session in (kept, fresh()):
                answer = await api.ask("POST", at(session, "commit"), body)
                assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", "/keys")
        results = (await api.good("POST", "/v1/commits", {"commits": [{"session": fresh(), **body}]}))["results"]
        assert results[0]["problem"]["status"] == 422


async def test_the_longest_names_are_taken(api: Api):
    session = "a" * 116 + fresh("")[1:]
    assert len(session) == 128
    ids = [
        "a" * 512,
        "é" * 256,
        "\U0001f600" * 128,
        "/",
        "..",
        "a:b+c=d",
        "constructor",
        "__proto__",
        " ",
        "\n",
        "\x7f",
    ]
    ktypes = ["t" * 64, "\U0001f600" * 64, "/", "..", "{t}", " ", "%2F", "%", "a?b#c", "get", "\n", "+"]
    await api.commit(session, {"keys": {ktype: dict.fromkeys(ids, 0) for ktype in ktypes}})
    assert await api.get(session, dict.fromkeys(ktypes, ids)) == {ktype: dict.fromkeys(ids, 0) for ktype in ktypes}
    for ktype in ktypes:
        if ktype != "..":  # clients resolve it away
            page = await api.good("GET", at(session, "keys/") + at(ktype).removeprefix("/v1/sessions/"))
            assert sorted(page["ids"]) == sorted(ids), ktype
