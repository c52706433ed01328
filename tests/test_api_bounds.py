"""What one request may ask for, and what is done aside for it: nobody's request keeps the others waiting."""

import json
import threading
from typing import Any

import pytest
from api import Api, at, fresh

from service.http import wire

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
