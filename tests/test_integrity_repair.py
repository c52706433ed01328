"""The exact repairs: what they change, what they leave, who stops them, and the way back."""

import base64
import json
from typing import Any

import pytest
import states
from api import Api, at, fresh, sid_of
from mutations import own_name, raw
from test_integrity_api import check, put

from protocol.json_edit import set_members
from service.errors import BadInput, LeaseHeld, NoSession, VersionMismatch
from service.integrity.repair import Undone, _past, mend, plan, undo
from service.store import Caller

ADMIN = Caller("default", "admin")
GROUP = "120363000000001000@g.us"


def broken() -> dict[str, Any]:
    """Creds older than their pre-keys, a memory of a lost sender key, a pre-key and creds spelled as lists."""
    state = states.load("7.0.0-rc14")
    del state["version"], state["epoch"]
    state["creds"] |= {"nextPreKeyId": 700, "firstUnuploadedPreKeyId": 650, "pushName": "Zoë 🦉 \ud83d", "big": 1}
    del state["keys"]["sender-key"][own_name(state)]
    for pair in (state["keys"]["pre-key"]["5"], state["creds"]["noiseKey"]):
        pair["public"] = {"type": "Buffer", "data": list(raw(pair["public"]))}
    return state


async def stored(api: Api, name: str) -> dict[str, Any]:
    state = await api.state(name)
    return {"creds": state["creds"], "keys": state["keys"]}


async def test_all_three_repairs_and_nothing_else(api: Api) -> None:
    name, state = fresh(), broken()
    await put(api, name, state)
    report, planned = await plan(api.store, ADMIN, name)
    assert set(report.rules) == {"pre-key-beyond-counter", "sender-key-memory-stale", "bytes-spelling"}
    assert sorted((step.ktype, step.value is None) for step in planned.steps) == [
        ("creds", False),
        ("pre-key", False),
        ("sender-key-memory", True),
    ]
    assert (await mend(api.store, ADMIN, planned)).rules == {}
    for pair in (state["keys"]["pre-key"]["5"], state["creds"]["noiseKey"]):
        pair["public"] = {"type": "Buffer", "data": base64.b64encode(raw(pair["public"])).decode()}
    state["creds"] |= {"nextPreKeyId": 813, "firstUnuploadedPreKeyId": 813}
    del state["keys"]["sender-key-memory"]
    assert await stored(api, name) == state
    assert (await api.summary(name))["lease"] is None


async def test_planning_changes_nothing(api: Api) -> None:
    name = fresh()
    await put(api, name, broken())
    async with api.unchanged():
        await plan(api.store, ADMIN, name)


async def test_a_whole_session_has_nothing_to_mend(api: Api) -> None:
    name = fresh()
    await put(api, name, states.load("6.7.24"))
    assert (await plan(api.store, ADMIN, name))[1].steps == ()


async def test_undo_puts_back_what_was_there_to_the_byte(api: Api) -> None:
    name = fresh()
    await put(api, name, broken())
    before = (await api.ask("GET", at(name, "creds"))).text
    _, planned = await plan(api.store, ADMIN, name)
    await mend(api.store, ADMIN, planned)
    assert (await api.ask("GET", at(name, "creds"))).text != before
    assert await undo(api.store, ADMIN, name) == Undone(3, ())
    assert (await api.ask("GET", at(name, "creds"))).text == before
    assert await stored(api, name) == json.loads(json.dumps(broken()))
    with pytest.raises(BadInput):
        await undo(api.store, ADMIN, name)


async def mended(api: Api, state: dict[str, Any]) -> str:
    """A session that was repaired."""
    name = fresh()
    await put(api, name, state)
    await mend(api.store, ADMIN, (await plan(api.store, ADMIN, name))[1])
    return name


async def test_creds_that_went_on_are_not_taken_back(api: Api) -> None:
    name = await mended(api, broken())
    creds = (await stored(api, name))["creds"]
    creds["nextPreKeyId"] += 5
    creds["signedPreKey"]["keyId"] += 3
    creds["me"]["name"] = "newer"
    await api.commit(name, {"creds": creds})
    # Of the memory that was deleted nobody can tell whether the owner deleted it again since.
    assert await undo(api.store, ADMIN, name) == Undone(1, (("creds", ""), ("sender-key-memory", GROUP)))
    assert (await stored(api, name))["creds"] == creds


async def test_an_identity_paired_since_stays(api: Api) -> None:
    name = await mended(api, broken())
    new = {"creds": states.load("7.0.0-rc.9")["creds"], "reset": True, "keys": {}}
    await api.commit(name, new)
    before = await stored(api, name)
    done = await undo(api.store, ADMIN, name)
    assert (done.back, len(done.left)) == (0, 3)
    assert await stored(api, name) == before


async def test_ratchets_that_turned_and_pre_keys_that_were_used_stay(api: Api) -> None:
    state = states.load("7.0.0-rc14")
    own, keys = own_name(state), state["keys"]
    record = raw(keys["sender-key"][own])
    keys["sender-key"][own]["data"] = list(record)
    for key_id in ("5", "6"):
        keys["pre-key"][key_id]["public"]["data"] = list(raw(keys["pre-key"][key_id]["public"]))
    name = await mended(api, state)
    turned = json.loads(record)
    turned[0]["senderChainKey"]["iteration"] += 40
    newer = {"type": "Buffer", "data": base64.b64encode(json.dumps(turned).encode()).decode()}
    await api.commit(name, {"keys": {"sender-key": {own: newer}, "pre-key": {"5": None}}})
    done = await undo(api.store, ADMIN, name)
    assert (done.back, sorted(done.left)) == (1, [("pre-key", "5"), ("sender-key", own)])
    found = (await stored(api, name))["keys"]
    assert found["sender-key"][own] == newer
    assert "5" not in found["pre-key"]
    assert found["pre-key"]["6"] == keys["pre-key"]["6"]


async def test_a_memory_deleted_again_since_stays_deleted(api: Api) -> None:
    state = broken()
    memory = state["keys"]["sender-key-memory"][GROUP]
    name = await mended(api, state)
    await api.commit(name, {"keys": {"sender-key-memory": {GROUP: memory}}})
    await api.commit(name, {"keys": {"sender-key-memory": {GROUP: None}}})
    done = await undo(api.store, ADMIN, name)
    assert ("sender-key-memory", GROUP) in done.left
    assert GROUP not in (await stored(api, name))["keys"].get("sender-key-memory", {})


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("as_repaired", [False, True])
async def test_a_repair_killed_before_its_commit_is_not_undone(
    api: Api, monkeypatch: pytest.MonkeyPatch, as_repaired: bool
) -> None:
    name = fresh()
    await put(api, name, broken())
    _, planned = await plan(api.store, ADMIN, name)

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(api.store, "commit", killed)
        with pytest.raises(Killed):
            await mend(api.store, ADMIN, planned)
    if as_repaired:  # the owner writes by chance the very rows that the repair would have written
        creds = next(step.value for step in planned.steps if step.ktype == "creds")
        await api.good("POST", at(name, "commit"), raw=_body(creds or b"", GROUP))
    before = await stored(api, name)
    assert (await undo(api.store, ADMIN, name)).back == 0
    assert await stored(api, name) == before


def _body(creds: bytes, group: str) -> bytes:
    return b'{"creds":' + creds + b',"keys":{"sender-key-memory":{"' + group.encode() + b'":null}}}'


async def test_a_repair_whose_death_came_after_its_commit_can_be_undone(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fresh()
    await put(api, name, broken())
    commit = api.store.commit

    async def killed(*arguments: Any) -> None:
        await commit(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(api.store, "commit", killed)
        with pytest.raises(Killed):
            await mend(api.store, ADMIN, (await plan(api.store, ADMIN, name))[1])
    assert await undo(api.store, ADMIN, name) == Undone(3, ())
    assert await stored(api, name) == json.loads(json.dumps(broken()))


async def test_an_archive_of_an_earlier_release_puts_nothing_back(api: Api) -> None:
    name = fresh()
    await put(api, name, broken())
    await api.store.settle(ADMIN, name)
    await api.sql(
        "INSERT INTO integrity_archive (sid, version, kh, ktype, d_hi, d_lo, sealed) "
        "SELECT sid, 1, kh, ktype, d_hi, d_lo, sealed FROM session_keys WHERE sid = $1 AND ktype = ''",
        sid_of(name),
    )
    await api.commit(name, {"keys": {"device-list": {"15550109999": ["0"]}}})
    before = await stored(api, name)
    with pytest.raises(BadInput, match="earlier release"):
        await undo(api.store, ADMIN, name)
    assert await stored(api, name) == before


async def test_a_second_undo_says_the_same_of_what_was_left(api: Api) -> None:
    name = await mended(api, broken())
    await api.commit(name, {"keys": {"pre-key": {"5": None}}})
    first = await undo(api.store, ADMIN, name)
    assert (first.back, await undo(api.store, ADMIN, name)) == (1, Undone(0, first.left))


async def test_what_is_archived_stays_sealed_and_goes_with_the_session(own_api: Api) -> None:
    api, name = own_api, fresh()
    await put(api, name, broken())
    await mend(api.store, ADMIN, (await plan(api.store, ADMIN, name))[1])
    rows = await api.sql("SELECT ktype, sealed FROM integrity_archive ORDER BY ktype")
    assert [row["ktype"] for row in rows] == ["", "pre-key", "sender-key-memory"]
    assert not any(b"Buffer" in row["sealed"] or b"s.whatsapp.net" in row["sealed"] for row in rows)
    await api.good("DELETE", at(name) + "?purge=true")
    assert await api.sql("SELECT 1 FROM integrity_archive") == []


async def test_a_session_in_use_is_left_alone(api: Api) -> None:
    name = fresh()
    await put(api, name, broken())
    _, planned = await plan(api.store, ADMIN, name)
    await api.lease(name, "its owner")
    async with api.unchanged():
        with pytest.raises(LeaseHeld):
            await mend(api.store, ADMIN, planned)
        with pytest.raises(LeaseHeld):
            await undo(api.store, ADMIN, name)


async def test_a_session_that_changed_since_the_repairs_were_shown_is_left_alone(api: Api) -> None:
    name = fresh()
    await put(api, name, broken())
    _, planned = await plan(api.store, ADMIN, name)
    await api.commit(name, {"keys": {"device-list": {"15550109999": ["0"]}}})
    before = await stored(api, name)
    with pytest.raises(VersionMismatch):
        await mend(api.store, ADMIN, planned)
    assert await stored(api, name) == before
    assert (await api.summary(name))["lease"] is None


async def test_no_session_is_made_by_mending_or_undoing(api: Api) -> None:
    name = fresh()
    with pytest.raises(NoSession):
        await plan(api.store, ADMIN, name)
    with pytest.raises(NoSession):
        await undo(api.store, ADMIN, name)
    assert (await api.ask("GET", at(name))).status == 404


async def test_a_counter_already_past_the_keys_stays(api: Api) -> None:
    name, state = fresh(), states.load("6.7.24")
    state["creds"] |= {"nextPreKeyId": 20, "firstUnuploadedPreKeyId": 900}
    await put(api, name, state)
    await mend(api.store, ADMIN, (await plan(api.store, ADMIN, name))[1])
    creds = (await stored(api, name))["creds"]
    assert (creds["nextPreKeyId"], creds["firstUnuploadedPreKeyId"]) == (31, 900)
    assert [each["rule"] for each in (await check(api, name))["findings"]] == ["first-unuploaded-beyond-next"]


async def test_no_counter_is_put_beyond_what_the_wire_holds(api: Api) -> None:
    state = states.load("6.7.24")
    pair = state["keys"]["pre-key"]["30"]
    state["keys"]["pre-key"] |= {"99999999": pair, "16777216": pair}
    name = await mended(api, state)
    assert await stored(api, name) == {"creds": state["creds"], "keys": state["keys"]}
    state["creds"] |= {"nextPreKeyId": 20, "firstUnuploadedPreKeyId": 20}
    creds = (await stored(api, await mended(api, state)))["creds"]
    assert (creds["nextPreKeyId"], creds["firstUnuploadedPreKeyId"]) == (31, 31)
    state["keys"]["pre-key"]["16777215"] = pair  # past it there is no id
    assert (await stored(api, await mended(api, state)))["creds"] == state["creds"]


@pytest.mark.parametrize("first", [None, "5", 5.5, "absent"])
async def test_a_counter_that_is_none_is_put_past_the_keys(api: Api, first: Any) -> None:
    state = states.load("6.7.24")
    state["creds"] |= {"nextPreKeyId": 20, "firstUnuploadedPreKeyId": first}
    if first == "absent":
        del state["creds"]["firstUnuploadedPreKeyId"]
    text = _past(states.creds_text(state), 30)
    assert {**json.loads(text), "firstUnuploadedPreKeyId": first} == {
        **state["creds"],
        "nextPreKeyId": 31,
        "firstUnuploadedPreKeyId": first,
    }
    assert json.loads(text)["firstUnuploadedPreKeyId"] == 31
    if first is None or first == "absent":
        name = await mended(api, state)
        assert (await stored(api, name))["creds"] == json.loads(text)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (b'{"a":1,"b":2}', b'{"a":1,"b":7}'),
        (b' { "b" : 12 , "x":{"b":2}, "c":"\xc3\xab" } ', b' { "b" : 7 , "x":{"b":2}, "c":"\xc3\xab" } '),
        (b'{"x":1e21,"y":"\\ud83d","b":-3.5}', b'{"x":1e21,"y":"\\ud83d","b":7}'),
        (b"{}", b'{"b":7}'),
        (b'{"a":[1,{"b":3}]}', b'{"a":[1,{"b":3}],"b":7}'),
        (b'{"b":1,"b":2}', b'{"b":7,"b":7}'),
        (b'{"a":' + b"9" * 5000 + b',"b":1}', b'{"a":' + b"9" * 5000 + b',"b":7}'),
        (b'{"\\u0062":"\\"}"}', b'{"\\u0062":7}'),
    ],
)
def test_setting_a_member_leaves_every_other_byte(text: bytes, after: bytes) -> None:
    assert set_members(text, {"b": 7}) == after
    assert set_members(after, {"b": 7}) == after
