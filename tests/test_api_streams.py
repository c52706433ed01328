"""Connections that last: sessions too large to hold are streamed and never taken for whole; nobody may just hold one."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import ClientError
from api import Api, at, fresh, serve, sid_of

from service.errors import Unavailable
from service.http import failures, handlers, server
from service.sql import keys
from service.store import Caller, reads
from service.store.request import CommitRequest, Row

ROWS = 6000
VALUE = "v" * 2000
READ_AT_ONCE = 65_536


async def filled(api: Api) -> str:
    session = fresh()
    await api.commit(session, {"keys": {"session": {str(n): VALUE for n in range(ROWS)}}})
    return session


async def caller_of(api: Api) -> Caller:
    return await api.store.tokens.find(str(api.token))


async def connected(api: Api) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    listening = api.client.server
    assert listening.port is not None
    return await asyncio.open_connection(listening.host, listening.port, limit=READ_AT_ONCE)


async def begun(api: Api, session: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A state asked for by a reader who has taken only its beginning."""
    reader, writer = await connected(api)
    writer.write(
        f"GET {at(session, 'state')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"chunked" in head.lower()
    return reader, writer


async def test_a_state_is_streamed_to_its_end(own_api: Api):
    session = await filled(own_api)
    answer = await own_api.ask("GET", at(session, "state"))
    state = json.loads(answer.text)
    assert (state["session"], len(state["keys"]["session"])) == (session, ROWS)


async def test_a_stream_that_loses_its_database_is_cut_off_and_followed_by_nothing(own_api: Api, database_url: str):
    session = await filled(own_api)
    reader, writer = await begun(own_api, session)
    killer = await asyncpg.connect(database_url)
    try:
        ended = await killer.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        assert ended >= 1, "no stream was under way"
    finally:
        await killer.close()
    rest = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.wait_for(reader.read(READ_AT_ONCE), 30):
            rest += piece
    writer.close()
    assert b"HTTP/1.1" not in rest, "another answer inside this one"
    assert not rest.endswith(b"0\r\n\r\n"), "an end that looks like one"
    assert (await own_api.ask("GET", at(session))).status == 200, "the service goes on"


async def test_whoever_asks_again_after_a_stream_cut_off_for_damage_is_told(own_api: Api):
    """A client takes a cut for an outage and tries again until its deadline: it is to hear what it is."""
    session = await filled(own_api)
    last = "(SELECT kh FROM session_keys ORDER BY kh DESC LIMIT 1)"
    await own_api.sql(f"UPDATE session_keys SET d_hi = d_hi # 1 WHERE kh = {last}")
    with pytest.raises((OSError, ClientError)):
        await own_api.ask("GET", at(session, "state"))
    for _ in range(2):
        answer = await own_api.ask("GET", at(session, "state"))
        assert (answer.status, answer.slug) == (500, "corrupt")
    await own_api.sql(f"UPDATE session_keys SET d_hi = d_hi # 1 WHERE kh = {last}")
    for _ in range(2):
        answer = await own_api.ask("GET", at(session, "state"))
        assert len(json.loads(answer.text)["keys"]["session"]) == ROWS


async def test_a_look_for_damage_that_is_broken_off_stands_in_nobodys_way(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    """It would be broken off each time where it takes longer than a request may, and the session never be read again."""
    session, streamed = await filled(own_api), 0
    own_api.store._reads._broken.add(sid_of(session))
    stream = keys.stream_state

    async def away(connection: Any, sid: UUID) -> AsyncGenerator[Any, None]:
        nonlocal streamed
        streamed += 1
        if streamed == 1:
            raise Unavailable
        async for step in stream(connection, sid):
            yield step

    monkeypatch.setattr(keys, "stream_state", away)
    assert (await own_api.ask("GET", at(session, "state"))).status == 503
    assert len(json.loads((await own_api.ask("GET", at(session, "state"))).text)["keys"]["session"]) == ROWS
    assert streamed == 2


async def test_a_reader_slower_than_the_servers_patience_with_idle_transactions_gets_all(own_api: Api):
    """Between two chunks the transaction is idle for as long as the reader takes: the embedded Postgres ends it after 30 s."""
    session = await filled(own_api)
    name = await own_api.sql("SELECT current_database() AS name")
    await own_api.sql(f'ALTER DATABASE "{name[0]["name"]}" SET idle_in_transaction_session_timeout = 200')
    async with serve(own_api.url) as api, api.store.state(await caller_of(api), session) as state:
        keys_read = 0
        async for chunk in state.chunks:
            keys_read += len(chunk)
            await asyncio.sleep(0.6)
    assert keys_read == ROWS


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_that_sends_no_whole_head_is_ended(
    database_url: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
):
    monkeypatch.setattr(server, "_FIRST_S", 0.3)
    async with serve(database_url) as api:
        reader, writer = await connected(api)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_connection_that_sent_a_head_is_kept(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_FIRST_S", 0.3)
    async with serve(database_url) as api:
        reader, writer = await connected(api)
        for _ in range(2):
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            await asyncio.sleep(0.8)
        writer.close()


async def test_a_stream_that_loses_its_database_before_its_first_row_is_unavailable(
    own_api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    session = await filled(own_api)
    stream, killer = keys.stream_state, await asyncpg.connect(database_url)

    async def cut_after_its_head(connection: Any, sid: UUID) -> AsyncGenerator[Any, None]:
        first = True
        async for step in stream(connection, sid):
            yield step
            if first:
                await killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND state = 'idle in transaction'"
                )
                first = False

    monkeypatch.setattr(keys, "stream_state", cut_after_its_head)
    try:
        answer = await own_api.ask("GET", at(session, "state"))
        assert (answer.status, answer.slug) == (503, "unavailable")
    finally:
        await killer.close()


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen")


async def streaming_ended(api: Api) -> None:
    await until(lambda: api.store.database.usage()[0] == 0)


async def test_a_reader_that_drips_is_cut_off_and_nobody_is_blamed(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    blamed: list[object] = []
    monkeypatch.setattr(failures, "report", lambda error, **_: blamed.append(error))
    monkeypatch.setattr(handlers, "_SLOW_READER_S", 7.0)
    monkeypatch.setattr(handlers, "_LEAST_RATE", 100 << 20)
    session = await filled(own_api)
    listening = own_api.client.server
    assert listening.port is not None
    with socket.socket() as narrow:
        # Each slice in its time, and all of them together far too slowly.
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_AT_ONCE)
        narrow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(narrow, (listening.host, listening.port))
        head = f"GET {at(session, 'state')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own_api.token}\r\n"
        await loop.sock_sendall(narrow, f"{head}Connection: close\r\n\r\n".encode())
        taken, last = 0, b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await loop.sock_recv(narrow, READ_AT_ONCE):
                taken, last = taken + len(piece), piece
                await asyncio.sleep(0.1)
    assert taken < ROWS * len(VALUE)
    assert not last.endswith(b"0\r\n\r\n")
    await streaming_ended(own_api)
    assert blamed == []


@pytest.mark.parametrize("moment", ["while it is waited for", "between two pieces"])
async def test_a_reader_that_hangs_up_is_nobodys_fault(own_api: Api, monkeypatch: pytest.MonkeyPatch, moment: str):
    blamed: list[object] = []
    monkeypatch.setattr(failures, "report", lambda error, **_: blamed.append(error))
    session = await filled(own_api)
    stream, runner = keys.stream_state, own_api.client.server.runner
    assert runner is not None
    assert runner.server is not None
    listening, chunks = runner.server, 0

    async def left_behind(connection: Any, sid: UUID) -> AsyncGenerator[Any, None]:
        nonlocal chunks
        async for step in stream(connection, sid):
            chunks += isinstance(step, list)
            if chunks == 2:
                for each in listening.connections:
                    each.force_close()
            yield step

    if moment == "between two pieces":
        monkeypatch.setattr(keys, "stream_state", left_behind)
    _, writer = await begun(own_api, session)
    if moment == "while it is waited for":
        writer.transport.abort()
    await streaming_ended(own_api)
    assert blamed == []
    writer.close()


async def test_no_tenant_keeps_all_streams_while_another_waits(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reads, "_IN_ONE_PIECE", 0)
    one, other = Caller("one", "write"), Caller("other", "write")
    for caller in (one, other):
        await own_api.store.commit(caller, "s", CommitRequest(rows=[Row("t", b"a", b"1")]))
    ending, open_ones = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal open_ones
        async with own_api.store.state(one, "s"):
            open_ones += 1
            await ending.wait()

    holding = [asyncio.create_task(hold()) for _ in range(8)]
    await until(lambda: open_ones >= 2)
    async with asyncio.timeout(30), own_api.store.state(other, "s") as state:
        assert [key.value async for chunk in state.chunks for key in chunk] == [b"1"]
    assert open_ones < 8
    ending.set()
    await asyncio.gather(*holding)
    assert open_ones == 8
