"""What one request may ask for, and what is done aside for it: nobody's request keeps the others waiting."""

import json
import threading
import tracemalloc
from typing import Any

import msgspec
import pytest
from api import Api, at, fresh
from hypothesis import given
from hypothesis import strategies as st

from service.http import raw_json, wire

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
    body = b'{"t":["' + text.encode() * count + b'\\ud83d"]}'
    decoder = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])
    tracemalloc.start()
    try:
        decoded = raw_json.decode(decoder, body)
        assert decoded.text(decoded.value["t"][0]) == body[6:-2]
        assert tracemalloc.get_traced_memory()[1] < 20 * len(body)
    finally:
        tracemalloc.stop()


_PARTS = ["\\ud83d", "\\uDBFF", "\\ude00", "\\uDFFF", "\\\\", "\\n", '\\"', "\\u00e9", "ud83d", "a", "\u00fc"]


@given(st.lists(st.sampled_from(_PARTS), max_size=30), st.integers(13, 30))
def test_lone_surrogates_come_back_wherever_a_body_is_parted(parts: list[str], piece: int):
    body = ('["' + "".join(parts) + '\\udc00"]').encode()
    decoder = msgspec.json.Decoder(list[msgspec.Raw])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_json, "_PIECE", piece)
        decoded = raw_json.decode(decoder, body)
    assert decoded.text(decoded.value[0]) == body[1:-1]
