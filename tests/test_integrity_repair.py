"""The exact repairs: what they change, what they leave, who stops them, and the way back."""

import base64
import json
from typing import Any

import pytest
import states
from api import Api, at, fresh
from mutations import own_name, raw
from test_integrity_api import check, put

from protocol.json_edit import set_members
from service.errors import BadInput, LeaseHeld, NoSession, VersionMismatch
from service.integrity.repair import mend, plan, undo
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
    assert await undo(api.store, ADMIN, name) == 3
    assert (await api.ask("GET", at(name, "creds"))).text == before
    assert await stored(api, name) == json.loads(json.dumps(broken()))
    with pytest.raises(BadInput):
        await undo(api.store, ADMIN, name)


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
