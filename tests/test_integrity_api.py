"""`GET /v1/sessions/{session}/integrity` and what it leaves behind."""

import asyncio
from typing import Any

import pytest
import states
from api import Api, at, fresh

from service.http.keys import METRICS
from service.integrity import check_session, open_findings
from service.store import Caller
from service.store.request import CommitRequest, Row

pytestmark = pytest.mark.asyncio


async def put(api: Api, session: str, state: dict[str, Any]) -> None:
    await api.good("PUT", at(session, "state"), {"creds": state["creds"], "keys": state["keys"]})


async def check(api: Api, session: str) -> Any:
    return await api.good("GET", at(session, "integrity"))


@pytest.mark.parametrize("release", states.RELEASES)
async def test_a_real_state_has_no_errors(api: Api, release: str) -> None:
    state = states.load(release)
    name = fresh()
    await put(api, name, state)
    found = await check(api, name)
    assert found["errors"] == 0
    assert found["checked"] == 1 + len(states.rows(state))
    assert found["version"] == 1
    assert found["session"] == name
    assert [each["severity"] for each in found["findings"]] == ["warning"] * found["warnings"]


async def test_a_finding_names_rule_place_meaning_and_repair(api: Api) -> None:
    state = states.load("7.0.0-rc14")
    del state["keys"]["sender-key"]["120363000000001000@g.us::100000000000002_1::1"]
    name = fresh()
    await put(api, name, state)
    (finding,) = (await check(api, name))["findings"]
    assert finding == {
        "rule": "sender-key-memory-stale",
        "severity": "error",
        "type": "sender-key-memory",
        "id": "120363000000001000@g.us",
        "message": finding["message"],
        "repair": "deletes the sender-key-memory row, so that the key is handed out",
    }
    assert "Messages to this group will not decrypt for anybody" in finding["message"]


async def test_the_last_verdict_feeds_health_and_metrics(own_api: Api) -> None:
    api = own_api
    state = states.load("6.7.24")
    await put(api, "kept", state)
    assert (await api.good("GET", "/health/whatsapp"))["open_findings"] is None, (
        "never checked is not the same as sound"
    )
    await check(api, "kept")
    assert (await api.good("GET", "/health/whatsapp"))["open_findings"] == {"error": 0, "warning": 0}
    del state["keys"]["app-state-sync-key"][state["creds"]["myAppStateKeyId"]]
    await put(api, "kept", state)
    await check(api, "kept")
    assert (await api.good("GET", "/health/whatsapp"))["open_findings"] == {"error": 1, "warning": 0}
    stranger = await api.tenant("stranger")
    assert (await stranger.good("GET", "/health/whatsapp"))["open_findings"] is None
    metrics = (await api.ask("GET", "/metrics")).text.decode()
    assert 'authstore_integrity_checks_total{verdict="errors"} 1.0' in metrics
    api.client.app[METRICS].open_findings(await open_findings(api.store, None) or {})
    metrics = (await api.ask("GET", "/metrics")).text.decode()
    assert 'authstore_open_findings{rule="my-app-state-key"} 1.0' in metrics
    assert "kept" not in metrics
    await put(api, "kept", states.load("6.7.24"))
    await check(api, "kept")
    api.client.app[METRICS].open_findings(await open_findings(api.store, None) or {})
    metrics = (await api.ask("GET", "/metrics")).text.decode()
    assert 'authstore_open_findings{rule="my-app-state-key"} 0.0' in metrics
    assert (await api.good("GET", "/health/whatsapp"))["open_findings"] == {"error": 0, "warning": 0}


async def test_an_unknown_session_is_404_a_deleted_one_410_and_anothers_404(api: Api) -> None:
    gone = fresh()
    assert (await api.ask("GET", at(fresh(), "integrity"))).status == 404
    await put(api, gone, states.load("6.7.24"))
    stranger = await api.tenant("stranger")
    assert (await stranger.ask("GET", at(gone, "integrity"))).status == 404
    await api.good("DELETE", at(gone))
    assert (await api.ask("GET", at(gone, "integrity"))).status == 410


async def test_an_empty_leased_session_is_whole(api: Api) -> None:
    name = fresh()
    await api.lease(name)
    assert (await check(api, name))["findings"] == []


async def test_purging_a_session_takes_its_verdict(own_api: Api) -> None:
    api = own_api
    await put(api, "purged", states.load("6.7.24"))
    await check(api, "purged")
    await api.good("DELETE", at("purged") + "?purge=true")
    assert await api.sql("SELECT 1 FROM integrity_verdicts") == []


async def test_what_a_row_is_that_does_not_open_is_in_the_answer_and_in_no_log(
    own_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    state = states.load("7.0.0-rc14")
    await put(own_api, "spoiled-name", state)
    await own_api.sql("UPDATE session_keys SET sealed = sealed || '\\x00'::bytea WHERE ktype = 'device-list'")
    told = await check(own_api, "spoiled-name")
    assert {(each["rule"], each["type"], len(each["id"])) for each in told["findings"]} == {
        ("row-unreadable", "device-list", 48)
    }
    said = "".join(capsys.readouterr())
    assert "spoiled-name" not in said
    assert not any(each["id"] in said for each in told["findings"])


async def test_tenants_take_turns_with_their_checks(own_api: Api) -> None:
    one, other, ended = Caller("one", "write"), Caller("other", "write"), list[str]()

    async def checked(caller: Caller) -> None:
        await check_session(own_api.store, caller, "s")
        ended.append(caller.tenant)

    for caller in (one, other):
        await own_api.store.commit(caller, "s", CommitRequest(rows=[Row("t", b"a", b"1")]))
    await asyncio.gather(*(checked(caller) for caller in [one] * 20 + [other] * 2))
    assert ended.index(other.tenant) <= 3
    assert ended.index(other.tenant, ended.index(other.tenant) + 1) <= 6
    assert len(ended) == 22
