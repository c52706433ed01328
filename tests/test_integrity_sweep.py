"""All sessions in one run: it goes on where it was cut off, and leaves nobody out."""

from typing import Any

import pytest
import states
from api import Api, at, sid_of
from test_integrity_api import check, put

from service.integrity import check_session
from service.integrity.report import Report
from service.integrity.sweep import Begun, Stray, sweep
from service.store import AuthStore, Caller
from service.store.request import CommitRequest, Row

COUNT = 25


async def fill(api: Api, tenant: str = "default", count: int = COUNT) -> None:
    """Small sessions; every fifth has lost its own app-state key."""
    for number in range(count):
        state = states.load("6.7.24")
        state["keys"]["pre-key"] = {"30": state["keys"]["pre-key"]["30"]}
        if number % 5 == 0:
            del state["keys"]["app-state-sync-key"]
        rows = [Row(ktype, key_id.encode(), text) for ktype, key_id, text in states.rows(state)]
        request = CommitRequest(states.creds_text(state), rows, whole=True)
        await api.store.commit(Caller(tenant, "admin"), f"s{number}", request)


async def run(api: Api, tenant: str | None = None, stop_after: int | None = None, **more: Any) -> list[Any]:
    found: list[Any] = []
    walk = sweep(api.store, tenant, **more)
    async for each in walk:
        found.append(each)
        if stop_after is not None and sum(isinstance(each, Report) for each in found) == stop_after:
            break
    await walk.aclose()
    return found


def names(found: list[Any]) -> list[str]:
    return [f"{each.tenant}/{each.session}" for each in found if isinstance(each, Report)]


async def test_every_session_of_every_tenant_once(own_api: Api) -> None:
    await fill(own_api)
    await fill(own_api, "other", 3)
    await own_api.good("DELETE", at("s7"))
    found = await run(own_api)
    assert found[0] == Begun(0, COUNT + 2)
    expected = {f"default/s{n}" for n in range(COUNT) if n != 7} | {f"other/s{n}" for n in range(3)}
    assert len(names(found)) == len(expected)
    assert set(names(found)) == expected
    assert sum(each.errors for each in found[1:]) == 5 + 1
    assert set(names(await run(own_api, "other"))) == {f"other/s{n}" for n in range(3)}


@pytest.mark.parametrize("stop", [1, 11, COUNT])
async def test_a_run_cut_off_goes_on_where_it_was(own_api: Api, stop: int) -> None:
    await fill(own_api)
    before = await run(own_api, stop_after=stop)
    after = await run(own_api)
    # The last one's place was not kept yet: it is done again rather than left out.
    errors = sum(each.errors for each in before[1:-1])
    assert after[0] == Begun(stop - 1, COUNT - stop + 1, errors)
    assert errors + sum(each.errors for each in after[1:]) == 5
    assert set(names(before)) | set(names(after)) == {f"default/s{n}" for n in range(COUNT)}
    assert len(names(before)) + len(names(after)) == COUNT + 1
    assert (await run(own_api))[0] == Begun(0, COUNT)


async def test_a_restart_begins_again(own_api: Api) -> None:
    await fill(own_api, count=5)
    await run(own_api, stop_after=3)
    assert len(names(await run(own_api, restart=True))) == 5


async def test_rows_without_a_session_and_sessions_gone_without_deletion(own_api: Api) -> None:
    await fill(own_api, count=3)
    await run(own_api)
    await own_api.sql("DELETE FROM sessions WHERE sid = $1", sid_of("s1"))
    await own_api.sql("DELETE FROM sessions WHERE sid = $1", sid_of("s2"))
    await own_api.sql("DELETE FROM session_keys WHERE sid = $1", sid_of("s2"))
    strays = [each for each in await run(own_api) if isinstance(each, Stray)]
    assert sorted((each.finding.rule, each.name) for each in strays) == [
        ("orphan-rows", str(sid_of("s1"))),
        ("session-vanished", "s1"),
        ("session-vanished", "s2"),
    ]
    # Whose rows they were is not known, so one tenant is not told of them.
    strays = [each for each in await run(own_api, "other") if isinstance(each, Stray)]
    assert strays == []


@pytest.mark.parametrize("stop", range(1, 6))
async def test_strays_are_told_once_also_by_a_run_that_goes_on(own_api: Api, stop: int) -> None:
    await fill(own_api, count=10)
    await run(own_api)
    gone = [sid_of(f"s{number}") for number in (1, 3, 4, 6, 9)]
    await own_api.sql("DELETE FROM session_keys WHERE sid = ANY($1)", gone)
    await own_api.sql("DELETE FROM sessions WHERE sid = ANY($1)", gone)
    before, after = await run(own_api, stop_after=stop), await run(own_api)
    told = [each.name for each in before if isinstance(each, Stray)]
    again = [each.name for each in after if isinstance(each, Stray)]
    assert set(told) | set(again) == {"s1", "s3", "s4", "s6", "s9"}
    # Those right before the session that is done again may be told with it again; they are counted once.
    errors = sum(1 if isinstance(each, Stray) else each.errors for each in after[1:])
    assert after[0].errors + errors == 5 + 2


async def test_one_session_that_cannot_be_judged_keeps_no_other_from_its_turn(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(own_api, count=6)
    judged = check_session

    async def failing(store: AuthStore, caller: Caller, name: str) -> Report:
        if name == "s3":
            raise RecursionError("needle")
        return await judged(store, caller, name)

    monkeypatch.setattr("service.integrity.sweep.check_session", failing)
    for _ in range(2):
        found = await run(own_api)
        assert len(names(found)) == 6
        (broken,) = [each for each in found if isinstance(each, Report) and each.session == "s3"]
        assert [(each.rule, each.detail) for each in broken.findings] == [("session-unjudged", "RecursionError")]


async def test_creds_nested_deep_are_judged(own_api: Api) -> None:
    creds = states.load("6.7.24")["creds"]
    for depth in (100, 480, 600, 900):
        nested = b"[" * depth + b'{"0":1}' + b"]" * depth
        text = states.text(creds)[:-1] + b',"additionalData":' + nested + b"}"
        await own_api.good("POST", at(f"deep{depth}", "commit"), raw=b'{"creds":' + text + b"}")
        assert {each["rule"] for each in (await check(own_api, f"deep{depth}"))["findings"]} <= {
            "pre-keys-gone",
            "my-app-state-key",
            "bytes-spelling",
        }
    assert "session-unjudged" not in {rule for each in (await run(own_api))[1:] for rule in each.rules}


async def test_a_purged_session_has_not_vanished(own_api: Api) -> None:
    await put(own_api, "gone", states.load("6.7.24"))
    await run(own_api)
    await own_api.good("DELETE", at("gone") + "?purge=true")
    assert [each for each in await run(own_api) if isinstance(each, Stray)] == []
