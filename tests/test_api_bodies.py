"""Requests that are not what the contract says: 400, 413, 415, 422. Nothing is stored, nothing is echoed."""

import json
import zlib
from uuid import UUID

import pytest
from api import Api, at, creds, fresh, key_uuid, serve, zipped
from multidict import CIMultiDict

from service.http.problems import TYPE_PREFIX

SECRET = "needle-4915551234567"
BODIED = [("POST", "commit"), ("PUT", "state"), ("POST", "lease"), ("POST", "keys/get")]

NOT_JSON = {
    "empty": b"",
    "white space": b"  \n",
    "a word": b"needle-4915551234567",
    "cut off": b'{"keys":{"t":{"needle-4915551234567":1}}',
    "two values": b"{} {}",
    "trailing comma": b'{"keys":{"t":{"a":1,}}}',
    "single quotes": b"{'keys':{}}",
    "comment": b'{"keys":{}} // needle-4915551234567',
    "NaN": b'{"keys":{"t":{"a":NaN}}}',
    "Infinity": b'{"keys":{"t":{"a":-Infinity}}}',
    "leading zero": b'{"keys":{"t":{"a":01}}}',
    "half a number": b'{"keys":{"t":{"a":1.}}}',
    "plus": b'{"keys":{"t":{"a":+1}}}',
    "control character": b'{"keys":{"t":{"a":"\x01"}}}',
    "bad escape": b'{"keys":{"t":{"a":"\\x41"}}}',
    "short escape": b'{"keys":{"t":{"a":"\\u12"}}}',
    "lone surrogate and no end": b'{"keys":{"t":{"a":"\\ud83d',
    "not UTF-8": b'{"keys":{"t":{"a":"\xff"}}}',
    "overlong UTF-8": b'{"keys":{"t":{"a":"\xc0\xaf"}}}',
    "surrogate as UTF-8": b'{"keys":{"t":{"a":"\xed\xa0\xbd"}}}',
    "UTF-16": '{"keys":{}}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"keys":{}}',
    "nested too deep": b'{"keys":{"t":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
    "objects too deep": b'{"keys":{"t":{"a":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}}}",
    "top-level array": b"[]",
    "top-level string": b'"needle-4915551234567"',
    "top-level null": b"null",
    "top-level number": b"1",
}

WRONG_SHAPES = {
    '{"creds":[]}': "/creds",
    '{"creds":null}': "/creds",
    '{"creds":"needle-4915551234567"}': "/creds",
    '{"keys":[]}': "/keys",
    '{"keys":null}': "/keys",
    '{"keys":{"t":[]}}': "/keys",
    '{"keys":{"t":null}}': "/keys",
    '{"keys":{"t":"needle-4915551234567"}}': "/keys",
    '{"keys":{"needle-4915551234567":1}}': "/keys",
    '{"reset":"yes"}': "/reset",
    '{"force":1}': "/force",
    '{"force":null}': "/force",
    '{"needle-4915551234567":{}}': None,
}

WRONG_BATCHES = {
    "{}": None,
    '{"commits":{}}': "/commits",
    '{"commits":[[]]}': "/commits/0",
    '{"commits":[{"session":"a"},{"keys":{}}]}': "/commits/1",
    '{"commits":[{"session":7}]}': "/commits/0/session",
    '{"commits":[{"session":"a","keys":[]}]}': "/commits/0/keys",
    '{"commits":[{"session":"a","if_match":"1"}]}': "/commits/0/if_match",
    '{"commits":[{"session":"a","if_match":-1}]}': "/commits/0/if_match",
    '{"commits":[{"session":"a","lease_epoch":1.5}]}': "/commits/0/lease_epoch",
    '{"commits":[{"session":"a","idempotency_key":"needle-4915551234567"}]}': "/commits/0/idempotency_key",
    '{"commits":[{"session":"a","needle-4915551234567":1}]}': "/commits/0",
}

BAD_HEADERS = [
    *(("If-Match", text) for text in ("x", "*", '"-1"', '""', '"1.0"', '"1", "2"', "9" * 30)),
    *(("Lease-Epoch", text) for text in ("x", "-1", "1.5", "1e3", "", "9" * 30, "\u0661")),
    *(("Idempotency-Key", text) for text in ("x", "", "needle-4915551234567", "0" * 31, "0" * 33)),
]


def is_silent(text: bytes) -> bool:
    """Nothing of what was sent is in an answer."""
    return SECRET.encode() not in text


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_a_json_object_is_400(api: Api, kept: str, raw: bytes):
    async with api.unchanged():
        for session in (kept, fresh()):
            for method, call in BODIED:
                answer = await api.ask(method, at(session, call), raw=raw)
                assert (answer.status, answer.slug) == (400, "bad-body"), call
                assert is_silent(answer.text)
        answer = await api.ask("POST", "/v1/commits", raw=raw)
        assert (answer.status, answer.slug) == (400, "bad-body")
        assert is_silent(answer.text)


@pytest.mark.parametrize("depth", range(100, 1100, 20))
async def test_nesting_is_stored_and_given_back_or_refused(api: Api, depth: int):
    session = fresh()
    value = b"[" * depth + b"]" * depth
    answers = [
        await api.ask("POST", at(session, "commit"), raw=b'{"keys":{"t":{"a":' + value + b"}}}"),
        await api.ask("POST", at(fresh(), "commit"), raw=b'{"creds":{"a":' + value + b"}}"),
    ]
    assert {answer.status for answer in answers} <= {200, 400, 422}
    found = await api.ask("POST", at(session, "keys/get"), {"t": ["a"]})
    if answers[0].status == 200:
        assert found.text == b'{"t":{"a":' + value + b"}}"
    else:
        assert found.status == 404
    assert depth > 500 or [answer.status for answer in answers] == [200, 200]


@pytest.mark.parametrize(("body", "pointer"), WRONG_SHAPES.items(), ids=WRONG_SHAPES)
async def test_a_wrong_shape_is_400_with_a_pointer(api: Api, kept: str, body: str, pointer: str | None):
    async with api.unchanged():
        for session in (kept, fresh()):
            answer = await api.ask("POST", at(session, "commit"), raw=body.encode())
            assert (answer.status, answer.slug, answer.json.get("pointer")) == (400, "bad-body", pointer)
            assert is_silent(answer.text)


@pytest.mark.parametrize(("body", "pointer"), WRONG_BATCHES.items(), ids=WRONG_BATCHES)
async def test_a_batch_of_a_wrong_shape_is_400_and_nothing_of_it_applies(api: Api, body: str, pointer: str | None):
    async with api.unchanged():
        answer = await api.ask("POST", "/v1/commits", raw=body.encode())
        assert (answer.status, answer.slug, answer.json.get("pointer")) == (400, "bad-body", pointer)
        assert is_silent(answer.text)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"t":"a"}', 400),
        ('{"t":{"a":1}}', 400),
        ('{"t":[1]}', 400),
        ('{"t":[null]}', 400),
        ('{"t":null}', 400),
        ('{"":["a"]}', 422),
        ('{"t":[""]}', 422),
        ('{"t":["a","\\ud83d"]}', 422),
        ('{"\\ud83d":["a"]}', 422),
        ('{"t":["a\\u0000"]}', 422),
        (json.dumps({"t": ["i" * 513]}), 422),
        (json.dumps({"t" * 65: ["i"]}), 422),
    ],
)
async def test_a_get_of_a_wrong_shape_or_name(api: Api, kept: str, body: str, status: int):
    answer = await api.ask("POST", at(kept, "keys/get"), raw=body.encode())
    assert (answer.status, answer.slug) == (status, "bad-body" if status == 400 else "bad-input")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"ttl_s": 5}, 400, None),
        ({"holder": "h"}, 400, None),
        ({"holder": "", "ttl_s": 5}, 400, "/holder"),
        ({"holder": "h" * 201, "ttl_s": 5}, 400, "/holder"),
        ({"holder": 1, "ttl_s": 5}, 400, "/holder"),
        ({"holder": "h", "ttl_s": 0}, 400, "/ttl_s"),
        ({"holder": "h", "ttl_s": -1}, 400, "/ttl_s"),
        ({"holder": "h", "ttl_s": 1e9}, 400, "/ttl_s"),
        ({"holder": "h", "ttl_s": "5"}, 400, "/ttl_s"),
        ({"holder": "h", "ttl_s": 5, "takeover": "yes"}, 400, "/takeover"),
        ({"holder": "h", "ttl_s": 5, SECRET: 1}, 400, None),
        ({"holder": "a\nb", "ttl_s": 5}, 422, "/holder"),
        ({"holder": "a\0b", "ttl_s": 5}, 422, "/holder"),
        ({"holder": "\ud83d", "ttl_s": 5}, 422, "/holder"),
    ],
)
async def test_a_lease_of_a_wrong_shape(api: Api, kept: str, body: object, status: int, pointer: str | None):
    async with api.unchanged():
        for session in (kept, fresh()):
            answer = await api.ask("POST", at(session, "lease"), body)
            assert (answer.status, answer.json.get("pointer")) == (status, pointer)
            assert is_silent(answer.text)


@pytest.mark.parametrize(("name", "text"), BAD_HEADERS)
async def test_a_bad_header_is_400(api: Api, kept: str, name: str, text: str):
    headers = {name: text}
    async with api.unchanged():
        for method, call, body in (("POST", "commit", {"keys": {"t": {"a": 2}}}), ("PUT", "state", {"keys": {}})):
            answer = await api.ask(method, at(kept, call), body, headers=headers)
            assert (answer.status, answer.slug) == (400, "bad-body")
            assert is_silent(answer.text)
        if name == "Lease-Epoch":
            for method, call in (("DELETE", ""), ("DELETE", "lease"), ("POST", "lease")):
                body = {"holder": "h", "ttl_s": 5} if method == "POST" else None
                assert (await api.ask(method, at(kept, call), body, headers=headers)).status == 400


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("If-Match", ('"1"', '"2"')),
        ("Lease-Epoch", ("1", "2")),
        ("Idempotency-Key", (str(UUID(int=1)), str(UUID(int=2)))),
    ],
)
async def test_a_header_that_contradicts_itself_is_400(api: Api, kept: str, name: str, texts: tuple[str, str]):
    token = ("Authorization", f"Bearer {api.token}")
    async with api.unchanged():
        for first, second in (texts, texts[::-1]):
            headers = CIMultiDict([token, (name, first), (name, second)])
            for method, call in (("POST", "commit"), ("PUT", "state")):
                async with api.client.request(method, at(kept, call), json={"keys": {}}, headers=headers) as answer:
                    problem = await answer.json(content_type="application/problem+json")
                    assert (answer.status, problem["type"]) == (400, TYPE_PREFIX + "bad-body")
                    assert name in problem["detail"]
    if name != "Lease-Epoch":
        headers = CIMultiDict([token, (name, texts[0]), (name, texts[0])])
        async with api.client.post(at(kept, "commit"), json={"keys": {}}, headers=headers) as answer:
            assert answer.status == 200


async def test_releasing_a_lease_takes_its_epoch(api: Api, kept: str):
    await api.lease(kept)
    async with api.unchanged():
        answer = await api.ask("DELETE", at(kept, "lease"))
        assert (answer.status, answer.slug) == (400, "bad-body")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"reset": True}, "/reset"),
        ({"reset": True, "keys": {"t": {"a": 1}}}, "/reset"),
        ({"creds": creds(signedIdentityKey=[])}, "/creds/signedIdentityKey"),
        ({"creds": creds(signedIdentityKey={"public": "c2hvcnQ="})}, "/creds/signedIdentityKey/public"),
        ({"creds": creds(signedIdentityKey={"public": SECRET})}, "/creds/signedIdentityKey/public"),
        ({"creds": creds(signedIdentityKey={})}, "/creds/signedIdentityKey/public"),
        ({"creds": creds(nextPreKeyId="31")}, "/creds/nextPreKeyId"),
        ({"creds": creds(nextPreKeyId=-1)}, "/creds/nextPreKeyId"),
        ({"creds": creds(nextPreKeyId=1.5)}, "/creds/nextPreKeyId"),
        ({"creds": creds(nextPreKeyId=True)}, "/creds/nextPreKeyId"),
        ({"creds": creds(nextPreKeyId=2**53)}, "/creds/nextPreKeyId"),
        ({"creds": creds(nextPreKeyId=10**4000)}, "/creds/nextPreKeyId"),
        ({"creds": creds(firstUnuploadedPreKeyId=[])}, "/creds/firstUnuploadedPreKeyId"),
        ({"creds": creds(accountSyncCounter={})}, "/creds/accountSyncCounter"),
        ({"creds": creds(signedPreKey=[])}, "/creds/signedPreKey"),
        ({"creds": creds(signedPreKey={"keyId": "1"})}, "/creds/signedPreKey/keyId"),
    ],
)
async def test_creds_that_cannot_be_judged_are_422(api: Api, kept: str, body: object, pointer: str):
    async with api.unchanged():
        for session in (kept, fresh()):
            for more in ({}, {"force": True}):
                answer = await api.ask("POST", at(session, "commit"), {**body, **more})
                assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", pointer)
                assert is_silent(answer.text)


async def test_numbers_of_any_length_are_stored(api: Api):
    session, long = fresh(), b"9" * 20_000
    raw = b'{"creds":{"n":' + long + b'},"keys":{"pre-key":{"1":' + long + b"}}}"
    await api.commit(session, raw=raw)
    await api.commit(session, raw=raw)
    again = await api.ask("POST", at(session, "commit"), raw=raw.replace(b'"1":9', b'"1":8'))
    assert (again.status, again.slug) == (409, "pre-key-overwritten")
    assert (await api.ask("GET", at(session, "creds"))).text == b'{"n":' + long + b"}"


async def test_a_state_holds_no_deletions(api: Api, kept: str):
    async with api.unchanged():
        answer = await api.ask("PUT", at(kept, "state"), {"keys": {"t": {"a": None}}})
        assert (answer.status, answer.json["pointer"]) == (422, "/keys")


async def test_a_reused_idempotency_key_is_422(api: Api, kept: str):
    key = key_uuid()
    await api.commit(kept, {"keys": {"t": {"a": 1}}}, headers=key)
    bodies = [{"keys": {"t": {"a": 2}}}, {"keys": {"t": {"b": 1}}}, {"keys": {"t": {"a": None}}}, {}]
    bodies += [{"keys": {"t": {"a": 1}}, "force": True}, {"keys": {"t": {"a": 1}}, "creds": creds(nextPreKeyId=40)}]
    async with api.unchanged():
        for body in bodies:
            answer = await api.ask("POST", at(kept, "commit"), body, headers=key)
            assert (answer.status, answer.slug) == (422, "idempotency-key-reused")
        answer = await api.ask("PUT", at(kept, "state"), {"keys": {"t": {"a": 1}}}, headers=key)
        assert (answer.status, answer.slug) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_415(api: Api, kept: str, kind: str):
    async with api.unchanged():
        for method, call in BODIED:
            answer = await api.ask(method, at(kept, call), raw=b"{}", headers={"Content-Type": kind})
            assert (answer.status, answer.slug) == (415, "unsupported-media-type")
            assert "Content-Type: application/json" in answer.json["detail"]


@pytest.mark.parametrize(("name", "is_told"), [("lease_epoch", True), ("a" * 33, False), ("a1", False), ("a.b", False)])
async def test_an_unknown_member_is_named_where_its_name_is_a_plain_word(api: Api, kept: str, name: str, is_told: bool):
    answer = await api.ask("POST", at(kept, "commit"), {name: 1})
    assert (answer.status, answer.slug) == (400, "bad-body")
    assert (name in answer.json["detail"]) == is_told


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "needle-4915551234567"])
async def test_another_content_encoding_is_415(api: Api, kept: str, coding: str):
    async with api.unchanged():
        answer = await api.ask("POST", at(kept, "commit"), raw=b"{}", headers={"Content-Encoding": coding})
        assert (answer.status, answer.slug) == (415, "unsupported-media-type")
        assert is_silent(answer.text)


@pytest.mark.parametrize(
    "raw",
    [
        *(zipped(b'{"keys":{"t":{"a":2}}}')[:-cut] for cut in (1, 4, 8, 9, 15)),
        zipped(b'{"keys":{"t":{"a":2}}}')[:-8] + bytes(8),
        zipped(b"{}") + zipped(b""),
        zipped(b"{}") + b"needle-4915551234567",
        zipped(b"[]")[4:],
        zlib.compress(b"{}"),
        b"\x1f\x8b",
        b"{}",
        b"",
    ],
)
async def test_a_broken_gzip_body_is_400(api: Api, kept: str, raw: bytes):
    async with api.unchanged():
        answer = await api.ask("POST", at(kept, "commit"), raw=raw, headers={"Content-Encoding": "gzip"})
        assert (answer.status, answer.slug) == (400, "bad-body")
        assert is_silent(answer.text)


async def test_a_body_over_the_limit_is_413(shared_url: str):
    session, text = fresh(), json.dumps({"keys": {"t": {"a": "x" * 1_100_000}}}).encode()
    bomb = zlib.compressobj(9, wbits=31)
    bombs = b"".join([*(bomb.compress(bytes(1 << 20)) for _ in range(200)), bomb.flush()])
    assert len(bombs) < 300_000

    async def pieces():
        for start in range(0, len(text), 50_000):
            yield text[start : start + 50_000]

    async with serve(shared_url, max_body_mb=1) as api:
        await api.commit(session, {"creds": creds()})
        async with api.unchanged():
            for method, path in [*((method, at(session, call)) for method, call in BODIED), ("POST", "/v1/commits")]:
                for raw, headers in ((text, {}), (zipped(text), {"Content-Encoding": "gzip"}), (pieces(), {})):
                    answer = await api.ask(method, path, raw=raw, headers=headers)
                    assert (answer.status, answer.slug) == (413, "too-large"), path
            answer = await api.ask("POST", at(session, "commit"), raw=bombs, headers={"Content-Encoding": "gzip"})
            assert (answer.status, answer.slug) == (413, "too-large")
        await api.commit(session, {"keys": {"t": {"a": "x" * 1_000_000}}})
