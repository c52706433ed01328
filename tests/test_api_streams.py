"""Connections that last: sessions too large to hold are streamed and never taken for whole; nobody may just hold one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from api import Api, at, fresh, serve

from service.http import server
from service.sql import keys

ROWS = 6000
VALUE = "v" * 2000
READ_AT_ONCE = 65_536


async def filled(api: Api) -> str:
    session = fresh()
    await api.commit(session, {"keys": {"session": {str(n): VALUE for n in range(ROWS)}}})
    return session


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
    assert len(json.loads(answer.text)["keys"]["session"]) == ROWS


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
