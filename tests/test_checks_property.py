"""Whatever bit of a key or signature turns over is found, and no data makes a check fail."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import states
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import buffer, flipped, own_name, raw

from protocol.checks import check
from protocol.rules import RULES

FLIPS = 1000

Path = tuple[Any, ...]


def covered(state: dict[str, Any]) -> list[Path]:
    """Where bytes stand that are proven by something else: pairs, signatures, what is signed, hashes, addresses."""
    places: list[Path] = [("creds", name, half) for name in PAIRS for half in ("private", "public")]
    places += [("creds", "signedPreKey", "keyPair", half) for half in ("private", "public")]
    places.append(("creds", "signedPreKey", "signature"))
    places += [("creds", "account", name) for name in ACCOUNT]
    places.append(("creds", "signalIdentities", 0, "identifierKey"))
    keys = state["keys"]
    places += [("keys", "pre-key", key_id, half) for key_id in keys["pre-key"] for half in ("private", "public")]
    for key_id, record in keys["session"].items():
        for base_key in record["_sessions"]:
            at = ("keys", "session", key_id, "_sessions", base_key)
            places += [(*at, "currentRatchet", "ephemeralKeyPair", half) for half in ("pubKey", "privKey")]
            places.append((*at, "indexInfo", "baseKey"))
    for name, collection in keys["app-state-sync-version"].items():
        at = ("keys", "app-state-sync-version", name)
        places.append((*at, "hash"))
        places += [(*at, "indexValueMap", entry, "valueMac") for entry in collection["indexValueMap"]]
    return places


PAIRS = ("noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey")
ACCOUNT = ("details", "accountSignatureKey", "accountSignature", "deviceSignature")


def holder(state: Any, path: Path) -> Any:
    for name in path[:-1]:
        state = state[name]
    return state


def test_any_bit_of_keys_and_signatures_is_found():
    draw = random.Random(20250728)
    pool = [(release, path) for release in states.RELEASES for path in sample(draw, covered(states.load(release)))]
    missed = []
    for _ in range(FLIPS):
        release, path = draw.choice(pool)
        state = only_near(states.load(release), path)
        before = rules_of(state)
        place = holder(state, path)
        bit = draw.randrange(8 * len(raw(place[path[-1]])))
        place[path[-1]] = flipped(place[path[-1]], bit)
        if rules_of(state) == before:
            missed.append((release, path[:2], path[-1], bit))
    assert missed == []


def sample(draw: random.Random, places: list[Path]) -> list[Path]:
    """All places of creds, sessions and app state, and some of the many pre-keys."""
    pre_keys = [path for path in places if path[1] == "pre-key"]
    return [path for path in places if path[1] != "pre-key"] + draw.sample(pre_keys, 40)


def only_near(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same state with few pre-keys, so that a check is quick."""
    keep = {str(state["creds"]["nextPreKeyId"] - 1), *(path[2:3] if path[1] == "pre-key" else ())}
    state["keys"]["pre-key"] = {key_id: pair for key_id, pair in state["keys"]["pre-key"].items() if key_id in keep}
    return state


def rules_of(state: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    found = check(states.creds_text(state), states.rows(state))
    return sorted((each.rule, each.ktype, each.key_id, each.detail) for each in found)


def test_any_bit_of_ones_own_sender_key_pair_is_found():
    draw = random.Random(7)
    state = only_near(states.load("7.0.0-rc14"), ("keys", ""))
    name = own_name(state)
    before = rules_of(state)
    for _ in range(150):
        changed = copy.deepcopy(state)
        record = json.loads(raw(changed["keys"]["sender-key"][name]))
        pair = record[0]["senderSigningKey"]
        half = draw.choice(("public", "private"))
        pair[half] = flipped(pair[half], draw.randrange(8 * len(raw(pair[half]))))
        changed["keys"]["sender-key"][name] = buffer(json.dumps(record).encode())
        assert rules_of(changed) != before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["AAAA", "v1", "-1", "0", "{}", "x@lid"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
TYPES = [
    "pre-key", "session", "sender-key", "sender-key-memory", "app-state-sync-key", "app-state-sync-version", "lid-mapping",
    "device-list", "tctoken", "identity-key", "fork",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TYPES), st.text(min_size=1, max_size=12), JSON)
def test_any_json_under_any_type_is_judged(ktype: str, key_id: str, value: Any):
    list(check(None, [(ktype, key_id, json.dumps(value).encode())]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TYPES), st.binary(max_size=40))
def test_any_bytes_under_any_type_are_judged(ktype: str, text: bytes):
    assert all(each.rule in RULES for each in check(text, [(ktype, "1", text)]))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_member_may_be_anything(data: st.DataObject):
    state = _small()
    path = data.draw(st.sampled_from(list(_paths(state))))
    holder(state, path)[path[-1]] = data.draw(JSON)
    for each in check(states.creds_text(state) if isinstance(state["creds"], dict) else b"1", _rows(state)):
        assert each.message


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_member_may_be_missing(data: st.DataObject):
    state = _small()
    path = data.draw(st.sampled_from(list(_paths(state))))
    del holder(state, path)[path[-1]]
    list(check(states.creds_text(state), _rows(state)))


def _small() -> dict[str, Any]:
    state = only_near(states.load("7.0.0-rc14"), ("keys", ""))
    for ktype in ("session", "device-list", "app-state-sync-key"):
        state["keys"][ktype] = dict(sorted(state["keys"][ktype].items())[:1])
    keys = state["keys"]["sender-key"]
    state["keys"]["sender-key"] = {key_id: json.loads(raw(value)) for key_id, value in keys.items()}
    return state


def _rows(state: dict[str, Any]) -> list[tuple[str, str, bytes]]:
    return [
        (ktype, key_id, json.dumps(value).encode())
        for ktype, members in state["keys"].items()
        if isinstance(members, dict)
        for key_id, value in members.items()
    ]


def _paths(value: Any, above: Path = ()) -> Iterator[Path]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in members:
        path = (*above, name)
        if len(path) > 1 and not (path[0] == "keys" and len(path) < 3):
            yield path
        yield from _paths(each, path)


@pytest.mark.parametrize("text", [b"[" * 50_000, b'{"a":' * 50_000, b"1" * 100_000, b'"\\ud83d"', b"1e400", b"NaN"])
@pytest.mark.parametrize("ktype", TYPES)
def test_texts_that_parsers_choke_on(ktype: str, text: bytes):
    list(check(text, [(ktype, "1", text)]))
