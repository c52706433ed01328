"""What one request may ask for, and what is done aside for it: nobody's request keeps the others waiting."""

import base64
import gzip
import json
import os
import struct
import threading
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest
from api import Api, at, fresh
from hypothesis import given
from hypothesis import strategies as st

from service.http import body, raw_json, wire

LARGE = b'{"additionalData":[' + b",".join([b"{}"] * 100_000) + b"]}"


@pytest.fixture
def parsed_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the JSON texts that were built as values in the loop's own thread."""
    lengths: list[int] = []
    decode = json.JSONDecoder.decode

    def watched(self: json.JSONDecoder, text: str, *more: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            lengths.append(len(text))
        return decode(self, text, *more)

    monkeypatch.setattr(json.JSONDecoder, "decode", watched)
    return lengths


async def test_large_creds_are_read_aside_by_commits_and_by_checks(api: Api, parsed_on_the_loop: list[int]):
    session, raw = fresh(), b'{"session":"%s","creds":' + LARGE + b"}"
    await api.commit(session, raw=b'{"creds":' + LARGE + b"}")
    await api.commit(session, raw=b'{"creds":' + LARGE + b"}")
    await api.good("POST", "/v1/commits", raw=b'{"commits":[' + raw % session.encode() + b"]}")
    await api.good("GET", at(session, "integrity"))  # of the journal
    await api.store.settle(await api.store.tokens.find(str(api.token)), session)
    await api.good("GET", at(session, "integrity"))  # of the row
    assert (await api.ask("GET", at(session, "creds"))).text == LARGE
    assert max(parsed_on_the_loop) < len(LARGE)


async def test_commits_of_one_session_keep_their_order_where_creds_are_large(api: Api):
    session = fresh()
    await api.commit(session, {})
    large = json.dumps({"n": 1, "filler": "x" * 1_000_000})
    members = [json.dumps({"session": session, "keys": {"t": {"a": n}}}) for n in range(3)]
    members.insert(1, f'{{"session":"{session}","creds":{large},"keys":{{"t":{{"a":9}}}}}}')
    answer = await api.good("POST", "/v1/commits", raw=f'{{"commits":[{",".join(members)}]}}'.encode())
    assert [each["version"] for each in answer["results"]] == [2, 3, 4, 5]
    assert await api.get(session, {"t": ["a"]}) == {"t": {"a": 2}}


async def test_creds_over_the_bound_are_422_and_up_to_it_they_are_kept(api: Api):
    def filled(length: int) -> bytes:
        return b'{"a":"' + b"x" * (length - len(b'{"a":""}')) + b'"}'

    session = fresh()
    await api.commit(session, raw=b'{"creds":' + filled(wire.CREDS_MOST) + b"}")
    assert len((await api.ask("GET", at(session, "creds"))).text) == wire.CREDS_MOST
    async with api.unchanged():
        for method, call in (("POST", "commit"), ("PUT", "state")):
            answer = await api.ask(method, at(session, call), raw=b'{"creds":' + filled(wire.CREDS_MOST + 1) + b"}")
            assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", "/creds")
        batch = b'{"commits":[{"session":"%s","creds":%s}]}' % (session.encode(), filled(wire.CREDS_MOST + 1))
        (result,) = (await api.good("POST", "/v1/commits", raw=batch))["results"]
        assert (result["problem"]["status"], result["problem"]["pointer"]) == (422, "/creds")


@pytest.mark.parametrize("text", ["\\n", "\\\\", "\\ud83d\\ude00", "\\ud83d", "x"])
def test_escapes_by_the_million_cost_no_more_than_the_text(text: str):
    count = 2_000_000 // len(text)
    sent = b'{"t":["' + text.encode() * count + b'\\ud83d"]}'
    decoder = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])
    tracemalloc.start()
    try:
        decoded = raw_json.decode(decoder, sent)
        assert decoded.text(decoded.value["t"][0]) == sent[6:-2]
        assert tracemalloc.get_traced_memory()[1] < 20 * len(sent)
    finally:
        tracemalloc.stop()


_PARTS = ["\\ud83d", "\\uDBFF", "\\ude00", "\\uDFFF", "\\\\", "\\n", '\\"', "\\u00e9", "ud83d", "a", "\u00fc"]


@given(st.lists(st.sampled_from(_PARTS), max_size=30), st.integers(13, 30))
def test_lone_surrogates_come_back_wherever_a_body_is_parted(parts: list[str], piece: int):
    sent = ('["' + "".join(parts) + '\\udc00"]').encode()
    decoder = msgspec.json.Decoder(list[msgspec.Raw])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_json, "_PIECE", piece)
        decoded = raw_json.decode(decoder, sent)
    assert decoded.text(decoded.value[0]) == sent[1:-1]


async def test_a_get_over_its_bound_of_ids_is_422(api: Api, kept: str):
    ids = [str(n) for n in range(wire.IDS_MOST + 1)]
    assert await api.get(kept, {"t": ids[1:], "session": []}) == {}
    answer = await api.ask("POST", at(kept, "keys/get"), {"t": ids[:9], "session": ids[9:]})
    assert (answer.status, answer.slug) == (422, "bad-input")
    assert str(wire.IDS_MOST) in answer.json["detail"]


async def test_a_commit_over_its_bound_of_rows_is_422(api: Api, kept: str):
    keys = {"t": {str(n): 1 for n in range(9)}, "session": {str(n): 1 for n in range(wire.ROWS_MOST - 8)}}
    half = {"session": kept, "keys": {"t": {str(n): 1 for n in range(wire.ROWS_MOST // 2 + 1)}}}
    async with api.unchanged():
        for method, call in (("POST", "commit"), ("PUT", "state")):
            answer = await api.ask(method, at(kept, call), {"keys": keys})
            assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", "/keys")
            assert str(wire.ROWS_MOST) in answer.json["detail"]
        answer = await api.ask("POST", "/v1/commits", {"commits": [half, half]})
        assert (answer.status, answer.slug, answer.json["pointer"]) == (422, "bad-input", "/commits")


async def test_a_large_session_is_committed_and_replaced_in_one_request(api: Api):
    session, keys = fresh(), {"session": {str(n): n for n in range(30_000)}}
    await api.commit(session, {"keys": keys})
    await api.good("PUT", at(session, "state"), {"keys": keys})
    assert (await api.summary(session))["keys"]["session"]["count"] == 30_000


@pytest.mark.parametrize("length", [1 << 20, 60 << 20])
async def test_what_a_packed_body_becomes_decides_where_it_is_unpacked(
    api: Api, monkeypatch: pytest.MonkeyPatch, length: int
):
    unpacked: list[tuple[int, int]] = []
    make = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._real = make(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            out = self._real.decompress(data, most)
            if threading.current_thread() is threading.main_thread():
                unpacked.append((len(data), len(out)))
            return out

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    session, value = fresh(), b'"' + b"x" * length + b'"'
    raw = gzip.compress(b'{"keys":{"t":{"a":' + value + b"}}}", 9)
    with monkeypatch.context() as patch:
        patch.setattr(body.zlib, "decompressobj", Watched)
        await api.commit(session, raw=raw, headers={"Content-Encoding": "gzip"})
    assert unpacked
    assert len(raw) < 1 << 16
    assert max(len_in for len_in, _ in unpacked) <= 1 << 16
    assert max(len_out for _, len_out in unpacked) <= 1 << 16
    assert (await api.ask("POST", at(session, "keys/get"), {"t": ["a"]})).text == b'{"t":{"a":' + value + b"}}"


def packed(content: bytes, *, empty_blocks: int) -> bytes:
    """A gzip file with so many blocks in it that hold nothing."""
    hollow = b"\x00\x00\x00\xff\xff" * empty_blocks
    last = b"\x01" + struct.pack("<HH", len(content), 0xFFFF ^ len(content)) + content
    return gzip.compress(b"")[:10] + hollow + last + struct.pack("<II", zlib.crc32(content), len(content))


async def test_a_packed_body_that_is_longer_than_what_it_holds_is_400(api: Api, kept: str):
    """Its blocks cost time and become nothing: a body of 60 MiB would be unpacked for seconds."""
    content, headers = b'{"keys":{"t":{"a":7}}}', {"Content-Encoding": "gzip"}
    async with api.unchanged():
        answer = await api.ask("POST", at(kept, "commit"), raw=packed(content, empty_blocks=100_000), headers=headers)
        assert (answer.status, answer.slug) == (400, "bad-body")
    await api.commit(kept, raw=packed(content, empty_blocks=10), headers=headers)
    assert await api.get(kept, {"t": ["a"]}) == {"t": {"a": 7}}


@pytest.mark.parametrize("after", [b"", b"x", gzip.compress(b"{}")])
async def test_a_packed_body_as_long_as_what_it_holds_is_read_to_its_end(api: Api, kept: str, after: bytes):
    text = base64.b64encode(os.urandom(300_000)).decode()
    raw = gzip.compress(json.dumps({"keys": {"t": {"a": text}}}).encode()) + after
    answer = await api.ask("POST", at(kept, "commit"), raw=raw, headers={"Content-Encoding": "gzip"})
    if after:
        assert (answer.status, answer.slug) == (400, "bad-body")
    else:
        assert await api.get(kept, {"t": ["a"]}) == {"t": {"a": text}}
