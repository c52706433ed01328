"""What values of other stores mean: spellings, names, repairs and the digest that must not care, must not miss."""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrating import shop

from protocol.digest import combine, digest, verbatim
from protocol.errors import BadValue
from protocol.file_names import GRAMMAR, Ambiguous, Exact, Foreign, file_name, fits, parse
from protocol.repairs import ALL, Repair, mistyped, real_name, repair, spelled
from protocol.spelling import CREDS, Spelling, respell, spell

STATES = [json.loads(path.read_text()) for path in sorted(Path(__file__).parent.parent.glob("fixtures/state/*.json"))]
REAL = [
    (ktype, key_id, value)
    for state in [*STATES, shop.state()]
    for ktype, values in {**state["keys"], CREDS: {"": state["creds"]}}.items()
    for key_id, value in list(values.items())[:12]
]
each_spelling = pytest.mark.parametrize("spelling", [Spelling.base64, Spelling.octets, Spelling.indexed])
each_real = pytest.mark.parametrize(
    ("ktype", "value"),
    [(ktype, value) for ktype, _, value in REAL],
    ids=[f"{ktype or 'creds'}" for ktype, _, _ in REAL],
)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


@each_spelling
@each_real
def test_every_spelling_of_a_real_value_has_one_digest_and_one_repair(
    ktype: str, value: Any, spelling: Spelling
) -> None:
    other = spelled(ktype, text(value), spelling)
    assert digest(ktype, other) == digest(ktype, text(value))
    mended = repair(ktype, other)
    assert digest(ktype, mended.text) == digest(ktype, text(value))
    assert respell(ktype, json.loads(mended.text), Spelling.base64) == json.loads(mended.text)
    assert repair(ktype, mended.text).text == mended.text


@each_real
def test_what_baileys_wrote_itself_stays_as_it_is(ktype: str, value: Any) -> None:
    """But for what other releases of Baileys cannot read."""
    kept = ALL - {Repair.sender_key_bytes, Repair.sender_key_arrays}
    assert repair(ktype, text(value), kept).text == text(value)


@each_real
def test_the_digest_sees_any_single_change(ktype: str, value: Any) -> None:
    """Each place of the value changed alone: a bit, a member gone, a member more."""
    whole, chance = digest(ktype, text(value)), random.Random(1)
    changes = [changed for changed in _changes(value) if not _says_the_same(ktype, changed, value)]
    for changed in chance.sample(changes, min(len(changes), 40)):
        try:
            assert digest(ktype, text(changed)) != whole
        except BadValue:
            continue


def _changes(value: Any) -> Iterator[Any]:
    """The value with one place changed, for every place."""
    if isinstance(value, dict):
        yield from _changed_object(value)
    elif isinstance(value, list):
        yield [*value, 1]
        for at, member in enumerate(value):
            yield value[:at] + value[at + 1 :]
            for changed in _changes(member):
                yield [*value[:at], changed, *value[at + 1 :]]
    elif isinstance(value, str):
        yield ("B" if value[:1] == "A" else "A") + value[1:] if value else "x"
    else:
        yield not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else "something"


def _changed_object(value: dict[str, Any]) -> Iterator[Any]:
    if value.get("type") == "Buffer":
        data = base64.b64decode(value["data"])
        yield spell(bytes([data[0] ^ 1]) + data[1:] if data else b"x", Spelling.base64)
        yield spell(data + b"\0", Spelling.base64)
        return
    yield {**value, "one more": 1}
    for name, member in value.items():
        yield {other: each for other, each in value.items() if other != name}
        for changed in _changes(member):
            yield {**value, name: changed}


def _says_the_same(ktype: str, changed: Any, value: Any) -> bool:
    """Array records that differ in nothing but skipped keys which the old release had lost already."""

    def kept(states: Any) -> Any:
        if not isinstance(states, list) or not all(isinstance(state, dict) for state in states):
            return states
        return [
            {**state, "senderMessageKeys": [k for k in state.get("senderMessageKeys", []) if k]} for state in states
        ]

    return ktype == "sender-key" and isinstance(value, list) and bool(kept(changed) == kept(value))


def test_numeric_members_of_a_session_stay_an_object() -> None:
    record = {
        "_sessions": {"BQ==": {"_chains": {"BQ==": {"messageKeys": {"1": "AQI=", "0": "AAE="}}}}},
        "version": "v1",
    }
    assert repair("session", text(record)).text == text(record)
    numbers = {"0": 1, "1": 2}  # would be bytes where bytes stand; here it is not ours to say
    assert repair("session", text({"x": numbers})).text == text({"x": numbers})
    creds = {"additionalData": {"5511": 1}, "accountSettings": numbers}
    assert repair(CREDS, text(creds)).text == text(creds)


def test_indexed_bytes_are_sorted_and_must_be_whole() -> None:
    data = bytes(range(32))
    jsonb_order = {str(at): data[at] for at in sorted(range(32), key=lambda n: (len(str(n)), str(n)))[::-1]}
    mended = repair("pre-key", text({"private": jsonb_order, "public": spell(data, Spelling.base64)}))
    assert json.loads(mended.text)["private"] == spell(data, Spelling.base64)
    for broken in ({"0": 1, "2": 3}, {"1": 1}, {"0": 256}, {"0": -1}, {"0": 1.5}, {"0": "1"}, {"0": True}):
        with pytest.raises(BadValue):
            repair("pre-key", text({"private": broken, "public": spell(data, Spelling.base64)}))


@pytest.mark.parametrize(
    ("ktype", "found"),
    [
        ("pre-key", {"private": "***", "public": {"type": "Buffer", "data": "AQ=="}}),
        ("pre-key", {"private": {"type": "Buffer", "data": [1, 300]}, "public": {"type": "Buffer", "data": "AQ=="}}),
        ("identity-key", 7),
        ("sender-key", {"type": "Buffer"}),
        ("app-state-sync-version", {"hash": {"type": "Buffer", "data": {"a": 1}}}),
    ],
)
def test_bytes_that_cannot_be_read_are_no_value(ktype: str, found: Any) -> None:
    with pytest.raises(BadValue):
        repair(ktype, text(found))


ODD = b'{"token":{"type":"Buffer","data":"AQID-_8"},"n":1}'


@pytest.mark.parametrize(
    "same",
    [
        b'{"n": 1, "token": {"data": "AQID-_8", "type": "Buffer"}}',
        b'{"token":{"type":"Buffer","data":"AQID-_8"},"n":1.0}',
        b'{"token":{"type":"Buffer","data":"AQID\\u002d_8"},"n":10.00e-1}',
    ],
)
def test_bytes_that_cannot_be_read_are_the_same_however_their_text_is_printed(same: bytes) -> None:
    assert verbatim("tctoken", same) == verbatim("tctoken", ODD)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ODD, ODD.replace(b"_8", b"_9")),
        (ODD, ODD.replace(b"1}", b'"1"}')),
        (ODD, ODD.replace(b"1}", b"1.0000000000000000000000001}")),
        (ODD, ODD.replace(b"1}", b"-1}")),
        (ODD, ODD.replace(b"1}", b"10}")),
        (b"[12345678901234567890123]", b"[12345678901234567890124]"),
        (b"[1e400]", b"[1e401]"),
        (b"[1]", b'[[NaN,"1e0"]]'),
        (b"[1]", b'[["NaN","1e0"]]'),
        (b"[1,", b"[1, "),  # no JSON: the very same text
    ],
)
def test_bytes_that_cannot_be_read_differ_by_any_change_of_what_is_said(one: bytes, other: bytes) -> None:
    assert verbatim("tctoken", one) != verbatim("tctoken", other)
    assert verbatim("tctoken", one) != verbatim("pre-key", one)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"a":', b"NaN", b'{"a":Infinity}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_no_value(torn: bytes) -> None:
    for ktype in (CREDS, "session", "pre-key", "lid-mapping", "made-up"):
        with pytest.raises(BadValue):
            repair(ktype, torn)
        with pytest.raises(BadValue):
            digest(ktype, torn)


def test_text_that_needs_no_repair_is_the_text_found() -> None:
    odd = b'{ "name" : "\\ud83d", "n": 1.50, "big": 123456789012345678901234567890, "me":{}}'
    assert repair(CREDS, odd).text is odd
    mended = json.loads(repair(CREDS, odd[:-1] + b',"routingInfo":{"0":1}}').text)
    assert mended["name"] == "\ud83d"
    assert mended["big"] == 123456789012345678901234567890
    assert mended["routingInfo"] == {"type": "Buffer", "data": "AQ=="}


def test_lid_numbers_become_the_string_of_their_digits() -> None:
    mended = repair("lid-mapping", b"100000000000002")
    assert mended.text == b'"100000000000002"'
    assert mended.repairs == {Repair.lid_numbers}
    assert digest("lid-mapping", b"100000000000002") == digest("lid-mapping", b'"100000000000002"')
    assert digest("lid-mapping", b"100000000000002") != digest("lid-mapping", b'"100000000000003"')


def test_old_sender_key_arrays_become_the_new_form() -> None:
    record = next(iter(shop.state()["keys"]["sender-key"].values()))
    states = [{**state, "senderMessageKeys": []} for state in json.loads(base64.b64decode(record["data"]))]
    record = spell(text(states), Spelling.base64)

    def old(value: Any) -> Any:
        if isinstance(value, dict):
            return _b64(value) if value.get("type") == "Buffer" else {name: old(each) for name, each in value.items()}
        return [old(each) for each in value] if isinstance(value, list) else value

    array = old(states)
    array[0]["senderMessageKeys"] = [{}]  # how old releases lose their skipped keys
    mended = repair("sender-key", text(array))
    assert mended.repairs == {Repair.sender_key_arrays}
    inside = json.loads(base64.b64decode(json.loads(mended.text)["data"]))
    assert (
        inside[0]["senderChainKey"]["seed"]
        == respell("sender-key", states, Spelling.base64)[0]["senderChainKey"]["seed"]
    )
    assert inside[0]["senderMessageKeys"] == []
    assert digest("sender-key", mended.text) == digest("sender-key", text(array)) == digest("sender-key", text(record))
    assert repair("sender-key", b"[]").text == text({"type": "Buffer", "data": "W10="}).replace(b" ", b"")
    assert repair("sender-key", text(array), ALL - {Repair.sender_key_arrays}).text == text(array)


def _b64(value: dict[str, Any]) -> str:
    data = value["data"]
    return data if isinstance(data, str) else base64.b64encode(bytes(data)).decode()


def test_a_value_in_a_string_is_unwrapped_where_no_string_belongs() -> None:
    value = {"private": {"type": "Buffer", "data": "AQ=="}, "public": {"type": "Buffer", "data": "Ag=="}}
    mended = repair("pre-key", text(json.dumps(value)))
    assert json.loads(mended.text) == value
    assert mended.repairs == {Repair.double_json}
    assert repair("lid-mapping", b'"[1]"').text == b'"[1]"'
    assert repair("made-up", b'"[1]"').text == b'"[1]"'
    assert repair("pre-key", text(json.dumps(value)), ALL - {Repair.double_json}).text == text(json.dumps(value))


@pytest.mark.parametrize("off", sorted(ALL - {Repair.types}))
def test_each_repair_can_be_switched_off(off: Repair) -> None:
    sender_key = {"type": "Buffer", "data": [91, 93]}
    inner = text([{"senderKeyId": 1, "senderChainKey": {"iteration": 0, "seed": {"type": "Buffer", "data": [1]}}}])
    found = {
        Repair.bytes: ("identity-key", text({"type": "Buffer", "data": [5]})),
        Repair.sender_key_bytes: ("sender-key", text(spell(inner, Spelling.base64))),
        Repair.lid_numbers: ("lid-mapping", b"7"),
        Repair.sender_key_arrays: ("sender-key", b"[]"),
        Repair.double_json: ("tctoken", text(json.dumps({"token": sender_key}))),
    }[off]
    assert off in repair(*found).repairs
    assert off not in repair(*found, ALL - {off}).repairs
    if off is not Repair.double_json:
        assert repair(*found, ALL - {off}).text == found[1]


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str]:
    ktype = draw(st.sampled_from(sorted(GRAMMAR)))
    return ktype, draw(st.from_regex(GRAMMAR[ktype], fullmatch=True))


@given(keys())
@settings(max_examples=400, deadline=None)
def test_a_file_name_is_never_read_as_another_key(key: tuple[str, str]) -> None:
    read = parse(file_name(*key).removesuffix(".json"))
    if isinstance(read, Exact):
        assert (read.ktype, read.key_id) == key
    else:
        assert isinstance(read, Ambiguous)
        assert Exact(*key) in read.keys


def test_file_names_of_real_states_are_exact() -> None:
    for ktype, key_id, _ in REAL:
        if ktype:
            assert fits(ktype, key_id)
            assert parse(file_name(ktype, key_id).removesuffix(".json")) == Exact(ktype, key_id)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("sender-key-memory-120363000000000001@g.us", Exact("sender-key-memory", "120363000000000001@g.us")),
        ("sender-key-memory-1555-1616@g.us", Exact("sender-key-memory", "1555-1616@g.us")),
        ("sender-key-1555-1616@g.us--1555_1--0", Exact("sender-key", "1555-1616@g.us::1555_1::0")),
        ("sender-key-status@broadcast--1555--0", Exact("sender-key", "status@broadcast::1555::0")),
        ("app-state-sync-key-AAAA__w==", Exact("app-state-sync-key", "AAAA/w==")),
        ("tctoken-__index", Exact("tctoken", "__index")),
        ("tctoken-1-2@lid", Ambiguous((Exact("tctoken", "1-2@lid"), Exact("tctoken", "1:2@lid")))),
        ("creds", Foreign()),
        ("pre-key-x", Foreign()),
        ("contacts-1555", Foreign()),
        ("app-state-sync-version-regular_lowest", Foreign()),
    ],
)
def test_names(name: str, means: Any) -> None:
    assert parse(name) == means


@given(keys())
@settings(max_examples=300, deadline=None)
def test_a_mistyped_key_is_recognised_or_left_alone(key: tuple[str, str]) -> None:
    wrong = mistyped(*key)
    if wrong.ktype in GRAMMAR:
        assert real_name(wrong.ktype, wrong.key_id) is None
    else:
        named = real_name(wrong.ktype, wrong.key_id)
        assert named is None or (named.ktype, named.key_id) == key


@pytest.mark.parametrize(
    "junk", [*((ktype, "test-key-1") for ktype in shop.JUNK), ("pre", "x"), ("app", "state"), ("", "x")]
)
def test_junk_is_not_given_a_name(junk: tuple[str, str]) -> None:
    assert real_name(*junk) is None


def test_a_combined_digest_depends_on_every_member_and_on_no_order() -> None:
    members = [("a", "1", b"x" * 32), ("a", "2", b"y" * 32), ("b", "1", b"x" * 32)]
    whole = combine(members)
    assert combine(members[::-1]) == whole
    assert combine(members[:2]) != whole
    assert combine([("a", "1", b"y" * 32), ("a", "2", b"x" * 32), ("b", "1", b"x" * 32)]) != whole
