"""What is judged of values: creds, pre-keys, and every spelling of bytes."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from api import creds, octets, pre_key
from hypothesis import given
from hypothesis import strategies as st

from protocol.buffer_json import to_bytes
from protocol.creds import regressed, view
from protocol.digest import digest
from protocol.errors import BadValue
from protocol.json_text import parse
from protocol.pre_key import same_pair
from protocol.redact import Redactor
from protocol.repairs import repair
from protocol.spelling import CREDS, SHAPES, walk


def spelled(raw: bytes) -> list[Any]:
    """Bytes in every spelling."""
    text = base64.b64encode(raw).decode()
    found: list[Any] = [{"type": "Buffer", "data": text}, {"type": "Buffer", "data": list(raw)}, text]
    if raw:
        indexed = {str(n): octet for n, octet in enumerate(raw)}
        found += [indexed, dict(sorted(indexed.items())), dict(reversed(indexed.items()))]
    return found


def texts(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(st.binary(max_size=80))
def test_bytes_in_every_spelling(raw: bytes):
    assert [to_bytes(each) for each in spelled(raw)] == [raw] * len(spelled(raw))


@pytest.mark.parametrize(
    "value",
    [
        None, 1, True, [], [1, 2], {}, {"type": "Buffer"}, {"type": "Buffer", "data": None}, {"type": "Buffer", "data": [256]},
        {"type": "Buffer", "data": [-1]}, {"type": "Buffer", "data": [True]}, {"type": "Buffer", "data": [1.0]},
        {"type": "Buffer", "data": ["1"]}, {"type": "Buffer", "data": {"0": 1}}, {"type": "Buffer", "data": "n ee dle"},
        {"0": 1, "2": 2}, {"1": 1}, {"0": 256}, {"0": True}, {"0": "1"}, {"0": None}, "needle!", "needl",
        "\u00e9\u00e9\u00e9\u00e9", "\ud83d", {"00": 1}, {"data": "AAAA"},
    ],
)  # fmt: skip
def test_what_is_no_spelling_of_bytes(value: Any):
    with pytest.raises(BadValue) as refused:
        to_bytes(value, "/a/b")
    assert refused.value.pointer == "/a/b"
    assert "needl" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_judged_or_refused(value: Any):
    text = texts(value)
    same_pair(text, text)
    if not isinstance(value, dict):
        with pytest.raises(BadValue):
            view(text)
    for member in ("signedIdentityKey", "account", "nextPreKeyId", "accountSyncCounter", "signedPreKey"):
        try:
            view(texts({member: value}))
        except BadValue as refused:
            said = refused
        else:
            continue
        assert said.pointer.startswith(f"/{member}")


def test_text_that_python_would_not_read():
    assert parse(b"9" * 10_000) == float("inf")
    assert parse(b"-" + b"9" * 10_000) == float("-inf")
    assert parse(b"12345678901234567890") == 12345678901234567890
    assert parse(b'"\\ud83d"') == "\ud83d"
    with pytest.raises(BadValue):
        parse(b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(BadValue):
        view(b'{"a":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001)
    assert not same_pair(b"[" * 100_000 + b"]" * 100_000, b"1")


def test_what_is_seen_of_creds():
    seen = view(texts(creds(7)))
    assert (seen.identity, seen.paired, seen.counters) == (bytes([7]) * 32, True, (31, 31, 1, 1))
    for public in spelled(bytes([7]) * 32) + spelled(b"\x05" + bytes([7]) * 32):
        assert view(texts({"signedIdentityKey": {"public": public}})).identity == bytes([7]) * 32
    seen = view(b"{}")
    assert (seen.identity, seen.paired, seen.counters) == (None, False, (None, None, None, None))
    assert not view(texts(creds(account=None))).paired
    assert not view(texts(creds(paired=False, registered=True, me={"id": "x"}))).paired
    assert view(texts(creds(account={}, registered=False))).paired
    assert view(b'{"nextPreKeyId":1e2,"accountSyncCounter":3.0}').counters == (100, None, 3, None)


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33, b"\x05" + b"x" * 33, b"x" * 64])
def test_identity_keys_have_32_bytes(raw: bytes):
    with pytest.raises(BadValue) as refused:
        view(texts({"signedIdentityKey": {"public": octets(0, 0) | {"data": base64.b64encode(raw).decode()}}}))
    assert refused.value.pointer == "/signedIdentityKey/public"


counters = st.tuples(*[st.none() | st.integers(0, 3)] * 4)


@given(counters, counters)
def test_counters_go_up(old: Any, new: Any):
    names = ["nextPreKeyId", "firstUnuploadedPreKeyId", "accountSyncCounter", "signedPreKey.keyId"]
    down = [name for name, a, b in zip(names, old, new, strict=True) if a is not None and (b is None or b < a)]
    assert list(regressed(old, new)) == down


def test_pairs_are_the_same_by_their_bytes():
    one = texts(pre_key(8))
    for private in spelled(bytes([8]) * 32):
        for public in spelled(bytes([9]) * 32):
            for value in ({"private": private, "public": public}, {"public": public, "x": 1, "private": private}):
                assert same_pair(one, texts(value))
                assert same_pair(texts(value), one)
    for value in (pre_key(9), {**pre_key(8), "public": octets(1)}, {"private": octets(8)}, {}, [], None, "x", 1):
        assert not same_pair(one, texts(value))
        assert not same_pair(texts(value), one)


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_deep_nesting_is_read_or_refused_by_all_who_look_into_a_value(depth: int):
    text = b'{"additionalData":' + b"[" * depth + b'{"0":1}' + b"]" * depth + b"}"
    assert walk(json.loads(text), SHAPES[CREDS], lambda value, _leaf, _pointer: value) == json.loads(text)
    for look in (digest, repair):
        with suppress(BadValue):
            look(CREDS, text)
    assert Redactor(bytes(32)).value("creds", text)
