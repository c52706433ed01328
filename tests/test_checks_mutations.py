"""Real states are whole; one thing broken is told by its finding and no other."""

from collections import Counter
from typing import Any

import pytest
import states
from mutations import GROUP, TABLE, Mutation, buffer, own_name

from protocol.checks import check
from protocol.rules import RULES, Finding


def findings(state: dict[str, Any]) -> list[Finding]:
    return list(check(states.creds_text(state), states.rows(state)))


def places(found: list[Finding]) -> "Counter[tuple[str, str]]":
    return Counter((each.rule, each.ktype) for each in found)


@pytest.mark.parametrize("release", states.RELEASES)
def test_a_real_state_has_no_error(release: str):
    assert [each.rule for each in findings(states.load(release)) if each.severity == "error"] == []


@pytest.mark.parametrize("release", [release for release in states.RELEASES if release != "6.17.16"])
def test_a_real_state_has_no_warning_either(release: str):
    assert findings(states.load(release)) == []


def test_what_6_17_16_warns_of_is_its_sender_keys_alone():
    warned = {each.rule for each in findings(states.load("6.17.16"))}
    assert warned == {"sender-key-legacy", "sender-key-lost-keys"}


@pytest.mark.parametrize("mutation", TABLE, ids=[mutation.name for mutation in TABLE])
def test_one_thing_broken_is_told_once(mutation: Mutation):
    before = places(findings(states.load(mutation.release)))
    state = states.load(mutation.release)
    mutation.change(state)
    after = findings(state)
    new = places(after)
    new.subtract(before)
    # What is gone with the changed row may vanish; nothing but what is expected may come.
    assert +new == Counter(mutation.tells)
    for each in after:
        assert each.message.count(". ") >= 2
        assert len(each.detail) < 200


def test_the_table_is_long_enough_and_breaks_every_rule_that_a_state_can_break():
    assert len(TABLE) >= 60
    told = {rule for mutation in TABLE for rule, _ in mutation.tells}
    of_the_store = {
        "data-key-unreadable", "row-unreadable", "row-foreign-key", "set-unproven", "columns-disagree", "session-misplaced",
        "version-regressed", "orphan-rows", "session-vanished", "entry-unreadable",
        "session-unjudged",
    }  # fmt: skip
    elsewhere = {"creds-missing", "creds-unreadable", "value-unreadable"}  # no state can hold them: see below
    assert told | of_the_store | elsewhere == set(RULES)


def test_keys_without_creds():
    state = states.load("6.7.24")
    assert [each.rule for each in check(None, states.rows(state))] == ["creds-missing"]


@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_creds_that_are_no_object(text: bytes):
    assert [each.rule for each in check(text, [])] == ["creds-unreadable"]


def test_a_value_that_is_no_json():
    assert [each.rule for each in check(None, [("lid-mapping", "15550100000", b"{")])][:1] == ["value-unreadable"]


def test_an_empty_session_is_whole():
    assert list(check(None, [])) == []


def test_fresh_creds_are_whole():
    creds = states.load("7.0.0-rc14")["creds"]
    for name in ("account", "me", "signalIdentities", "myAppStateKeyId", "platform"):
        creds.pop(name, None)
    creds |= {"nextPreKeyId": 1, "firstUnuploadedPreKeyId": 1}
    assert list(check(states.text(creds), [])) == []


def test_types_no_release_has_are_left_alone():
    odd = [("fork-type", "any:id", b'{"data":[1,2]}'), ("fork-type", "x", b"1e999"), ("fork-type", "y", b'""')]
    state = states.load("6.7.24")
    assert list(check(states.creds_text(state), [*states.rows(state), *odd])) == []


def test_normal_things_are_not_told():
    """A used pre-key, a closed chain (but for the current one), a stale way back, a registration id of 0."""
    state = states.load("7.0.0-rc14")
    del state["keys"]["pre-key"]["100"]
    state["creds"]["registrationId"] = 0
    state["keys"]["lid-mapping"]["100000000009999_reverse"] = "15550100000"
    for found in state["keys"]["session"].values():
        for each in found["_sessions"].values():
            for key, chain in each["_chains"].items():
                if chain["chainType"] == 2 and key != each["currentRatchet"]["lastRemoteEphemeralKey"]:
                    chain["chainKey"].pop("key", None)
    assert findings(state) == []


def test_routing_info_as_every_release_reads_it_is_not_told():
    state = states.load("7.0.0-rc14")
    for value in (None, "", buffer(b"\x08\x0d\x08\x02"), {"type": "Buffer", "data": ""}):
        state["creds"]["routingInfo"] = value
        assert findings(state) == []
    del state["creds"]["routingInfo"]
    assert findings(state) == []


@pytest.mark.parametrize("me", ["15550100002@s.whatsapp.net", "15550100002:1@s.whatsapp.net", "15550100002.0:1@hosted"])
def test_an_own_address_before_and_after_pairing_is_not_told(me: str):
    creds = states.load("7.0.0-rc14")["creds"]
    creds["me"] = {"id": me}
    creds |= {"nextPreKeyId": 1, "firstUnuploadedPreKeyId": 1}
    del creds["account"], creds["myAppStateKeyId"]
    assert list(check(states.text(creds), [])) == []


@pytest.mark.parametrize("turn", [1, -1])
def test_an_empty_own_sender_key_beside_the_full_one_is_not_told(turn: int):
    """Under the phone number and under the LID, in whichever order they are met."""
    state = states.load("7.0.0-rc14")
    state["keys"]["sender-key"][f"{GROUP}::15550100002::1"] = buffer(b"[]")
    assert own_name(state).startswith(f"{GROUP}::100000000000002_1::1")
    assert list(check(states.creds_text(state), states.rows(state)[::turn])) == []


@pytest.mark.parametrize("turn", [1, -1])
def test_with_an_own_address_that_is_none_nothing_is_said_of_own_keys(turn: int):
    state = states.load("7.0.0-rc14")
    for broken in ("garbage", "", 7, ["15550100002@s.whatsapp.net"]):
        state["creds"]["me"]["id"] = broken
        found = check(states.creds_text(state), states.rows(state)[::turn])
        assert [each.rule for each in found] == ["me-id"]


def test_the_order_of_rows_does_not_matter():
    state = states.load("7.0.0-rc14")
    del state["keys"]["lid-mapping"]["100000000000000_reverse"]
    rows = states.rows(state)
    one = Counter(check(states.creds_text(state), rows))
    other = Counter(check(states.creds_text(state), rows[::-1]))
    assert one == other
