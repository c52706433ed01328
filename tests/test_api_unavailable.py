"""The database is away: 503 with Retry-After everywhere, never `{}`, never 404; and what was there is there again after."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from api import Answer, Api, at, creds, fresh, key_uuid, serve

from service.embedded import EmbeddedPostgres
from service.errors import Fenced, Unavailable
from service.http.routes import API
from service.sql import mirror
from service.sql.pool import _is_cut
from service.store import Caller, reads

ROUTES = [(route.method, route.path) for route in API if route.path.startswith("/v1/")]
BODIES = {"keys/get": {"session": ["a", "none"]}, "commit": {"keys": {"session": {"a": 2}}}, "state": {"keys": {}}}


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this test's own."""
    server = EmbeddedPostgres(tmp_path)
    server.start()
    yield server
    server.stop()


def is_503(answer: Answer) -> bool:
    assert (answer.status, answer.slug) == (503, "unavailable"), answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    return True


async def call(api: Api, method: str, route: str, session: str) -> Answer:
    path = route.replace("{session}", session).replace("{type}", "session")
    body = next((body for end, body in BODIES.items() if path.endswith(end) and method != "GET"), None)
    if path.endswith("/lease") and method == "POST":
        body = {"holder": "h", "ttl_s": 5}
    return await api.ask(method, path, body, headers={"Lease-Epoch": "0"} if method == "DELETE" else {})


async def test_while_the_database_is_away_every_call_is_503_and_afterwards_all_is_there(postgres: EmbeddedPostgres):
    session, key = fresh(), key_uuid()
    async with serve(postgres.dsn, request_timeout_s=1) as api:
        token = await api.store.tokens.create("default", "write", "", None)
        await api.commit(session, {"creds": creds(), "keys": {"session": {"a": 1}}})
        before = await api.dump()
        await api.beside.close()
        api.beside._connection = None
        postgres.stop()

        for name in (session, fresh()):
            answers = await asyncio.gather(
                *(call(api, method, route, name) for method, route in ROUTES if route != "/v1/commits")
            )
            assert all(is_503(answer) for answer in answers)
        for scoped in (api.of(token), api.of(token[:-1] + "x")):
            is_503(await scoped.ask("GET", "/v1/sessions"))
        assert (await api.of("nonsense").ask("GET", "/v1/sessions")).slug == "unauthorized"
        commits = [{"session": name, "keys": {"session": {"a": 3}}} for name in (session, fresh())]
        answer = await api.ask("POST", "/v1/commits", {"commits": commits})
        if answer.status == 200:  # each stands alone
            assert [result["problem"]["status"] for result in answer.json["results"]] == [503, 503]
        else:
            is_503(answer)
        lost = await api.ask("POST", at(session, "commit"), {"keys": {"session": {"b": 1}}}, headers=key)
        is_503(lost)

        assert (await api.of(None).ask("GET", "/health/live")).status == 200
        for path in ("/health", "/health/ready", "/health/database"):
            answer = await api.of(None).ask("GET", path)
            assert (answer.status, answer.json["status"]) == (503, "unavailable")
        is_503(await api.ask("GET", "/health/whatsapp"))
        assert (await api.ask("GET", "/metrics")).status == 200

        postgres.start()
        assert await api.dump() == before
        for scoped in (api, api.of(token)):
            state = await scoped.state(session)
            assert (state["version"], state["creds"], state["keys"]) == (1, creds(), {"session": {"a": 1}})
        assert (await api.commit(session, {"keys": {"session": {"b": 1}}}, headers=key))["version"] == 2
        assert (await api.ask("GET", "/health/ready")).status == 200


async def test_a_short_absence_is_waited_out(postgres: EmbeddedPostgres):
    session = fresh()
    async with serve(postgres.dsn, request_timeout_s=30) as api:
        await api.commit(session, {"keys": {"session": {"a": 1}}})
        postgres.stop()
        asks = [
            asyncio.create_task(api.commit(session, {"keys": {"session": {"b": 1}}})),
            asyncio.create_task(api.get(session, {"session": ["a"]})),
        ]
        await asyncio.sleep(0.5)
        assert not any(ask.done() for ask in asks)
        postgres.start()
        done, got = await asyncio.gather(*asks)
        assert (done["version"], got) == (2, {"session": {"a": 1}})


async def test_a_service_that_starts_before_its_database(postgres: EmbeddedPostgres):
    session = fresh()
    dsn = postgres.dsn
    postgres.stop()
    async with serve(dsn, request_timeout_s=1) as api:
        assert (await api.of(None).ask("GET", "/health/live")).status == 200
        assert (await api.of(None).ask("GET", "/health/ready")).status == 503
        for method, route in ROUTES:
            is_503(await call(api, method, route, session))
        postgres.start()
        deadline = time.monotonic() + 20
        while (await api.of(None).ask("GET", "/health/ready")).status != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (await api.commit(session, {"creds": creds()}))["version"] == 1


async def test_connections_that_are_cut_are_made_again(own_api: Api):
    session, rounds = fresh(), 0
    await own_api.commit(session, {"keys": {"t": {"a": 0}}})

    async def cut() -> None:
        nonlocal rounds
        while True:
            await own_api.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
            rounds += 1
            await asyncio.sleep(0.2)

    cutter, n = asyncio.create_task(cut()), 0
    while rounds < 6 or n < 60:
        n += 1
        body = {"keys": {"t": {"a": n}}}
        assert (await own_api.commit(session, body, headers=key_uuid()))["version"] == n + 1
        assert await own_api.get(session, {"t": ["a"]}) == {"t": {"a": n}}
    cutter.cancel()
    await asyncio.wait([cutter])
    assert (await own_api.state(session))["version"] == n + 1


READS = ("state", "creds", "keys/t", "")


async def cut_while_asked(api: Api, path: str) -> Answer:
    """The answer to a question whose connection is cut while the database works on it: a lock holds it there."""
    holding = await asyncpg.connect(api.url)
    try:
        async with holding.transaction():
            await holding.execute("LOCK TABLE sessions, session_keys, tokens IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(api.ask("GET", path))
            while not await api.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            ):
                assert not asking.done()
                await asyncio.sleep(0.01)
        return await asking
    finally:
        await holding.close()


async def test_a_question_whose_connection_is_cut_is_asked_again(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    session = fresh()
    await own_api.commit(session, {"creds": creds(), "keys": {"t": {"a": 0}}})
    for path in (*(at(session, call) for call in READS), "/v1/sessions", "/health/whatsapp"):
        asked_twice = [await cut_while_asked(own_api, path), await own_api.ask("GET", path)]
        assert [(answer.status, answer.text) for answer in asked_twice] == [(200, asked_twice[1].text)] * 2, path
    assert (await cut_while_asked(own_api, at(fresh(), "creds"))).slug == "no-session"
    tenant = await own_api.tenant("other")
    assert (await cut_while_asked(tenant, at(session))).slug == "no-session"
    monkeypatch.setattr(reads, "_IN_ONE_PIECE", 0)
    streamed = await cut_while_asked(own_api, at(session, "state"))
    assert (streamed.status, streamed.json["keys"]) == (200, {"t": {"a": 0}})


async def test_a_cut_is_known_by_its_closed_connection_whatever_the_driver_says(database_url: str):
    connection = await asyncpg.connect(database_url)
    said = (asyncpg.InterfaceError("closed"), asyncpg.InternalClientError("another operation is in progress"))
    assert [_is_cut(error, connection) for error in said] == [False, False]
    await connection.close()
    assert [_is_cut(error, connection) for error in said] == [True, True]


async def test_a_mirror_that_others_are_always_ahead_of_is_busy_and_not_fenced(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    session, admin, tries = fresh(), Caller("default", "admin"), []
    epoch = await own_api.lease(session)

    async def too_late(*_: Any, **__: Any) -> None:
        tries.append(session)

    monkeypatch.setattr(mirror, "switch", too_late)
    with pytest.raises(Unavailable):
        await own_api.store.mirrors.switch(admin, session, on=True, epoch=epoch)
    assert len(tries) > 1
    with pytest.raises(Fenced):
        await own_api.store.mirrors.switch(admin, session, on=True, epoch=epoch + 1)


async def test_a_database_that_takes_no_writes_is_503_and_not_ready(own_api: Api):
    session = fresh()
    await own_api.commit(session, {"keys": {"t": {"a": 1}}})
    name = (await own_api.sql("SELECT current_database()"))[0][0]
    await own_api.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with serve(own_api.url, request_timeout_s=1) as api:
        assert (await api.of(None).ask("GET", "/health/ready")).status == 503
    await own_api.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    is_503(await own_api.ask("POST", at(session, "commit"), {"keys": {"t": {"a": 2}}}))
    assert await own_api.get(session, {"t": ["a"]}) == {"t": {"a": 1}}
    assert (await own_api.of(None).ask("GET", "/health/ready")).status == 503
