"""A database across a network that loses answers, holds them back, or goes silent."""

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from crash.checker import check
from crash.run import Plan, run
from external_postgres import ExternalPostgres
from postgres_proxy import PostgresProxy
from service_process import ServiceProcess

_SEED = int(os.environ.get("CRASH_SEED", secrets.randbits(32)))
_OUTAGE_S = 3.0
_PATHS = ("/v1/sessions/known/state", "/v1/sessions/known", "/v1/sessions", "/health/ready", "/health/database")


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[tuple[PostgresProxy, str]]:
    """A proxy and the URL of the Postgres behind it."""
    with ExternalPostgres(tmp_path / "external") as server:
        async with PostgresProxy(server.port, random.Random(_SEED)) as between:
            yield between, server.url_at(between.port)


def _service(tmp_path: Path, url: str, timeout_s: float = 30) -> ServiceProcess:
    env = {
        "AUTHSTORE_DATABASE_URL": url,
        "AUTHSTORE_MASTER_KEY": secrets.token_hex(32),
        "AUTHSTORE_REQUEST_TIMEOUT_S": str(timeout_s),
    }
    return ServiceProcess(tmp_path / "service", env)


@asynccontextmanager
async def _serving(service: ServiceProcess) -> AsyncIterator[ServiceProcess]:
    """The proxy lives in this loop, so nothing may block it."""
    await asyncio.to_thread(service.start)
    try:
        yield service
    finally:
        await asyncio.to_thread(service.stop)


async def test_lost_answers_of_commits_are_found_again(tmp_path: Path, proxy: tuple[PostgresProxy, str]) -> None:
    between, url = proxy
    async with _serving(_service(tmp_path, url)) as service:
        between.loss = 0.4
        done = await run(service, Plan(_SEED, kills=0, acks=2000))
        between.loss = 0
    print(*done.lines(), between.losses, sep="\n")
    # Nothing lost, nothing twice, and no writer that knew its version was ever told that it did not.
    assert check(done.history) == []
    assert between.losses["at once"] + between.losses["after"] >= 100
    assert min(between.losses.values()) >= 30


async def _commit(http: aiohttp.ClientSession, service: ServiceProcess, session: str) -> tuple[int, float]:
    """Status, and after how many seconds."""
    began = time.monotonic()
    url = f"{service.url}/v1/sessions/{session}/commit"
    async with http.post(url, json={"keys": {"session": {"a": {"n": 1}}}}) as response:
        await response.read()
        return response.status, time.monotonic() - began


async def _get(http: aiohttp.ClientSession, service: ServiceProcess, path: str) -> tuple[int, float]:
    began = time.monotonic()
    async with http.get(service.url + path) as response:
        await response.read()
        return response.status, time.monotonic() - began


@pytest.mark.parametrize("timeout_s", [30.0, 2.0])
@pytest.mark.parametrize("how", ["silent", "slow"])
async def test_requests_are_answered_while_the_database_is_not_heard(
    tmp_path: Path, proxy: tuple[PostgresProxy, str], how: str, timeout_s: float
) -> None:
    between, url = proxy
    async with _serving(_service(tmp_path, url, timeout_s)) as service, _client(service) as http:
        known = ["known", *(f"known-{n}" for n in range(30))]
        before = await asyncio.gather(*(_commit(http, service, name) for name in known))
        assert {status for status, _ in before} == {200}
        if how == "silent":
            between.hold()
        else:
            between.delay_s = _OUTAGE_S
        asked = [_commit(http, service, name) for name in [*known, *(f"new-{n}" for n in range(10))]]
        asked += [_get(http, service, path) for path in _PATHS]
        answers = asyncio.gather(*asked)
        await asyncio.sleep(_OUTAGE_S)
        between.release()
        between.delay_s = 0
        statuses = Counter(status for status, _ in await answers)
        longest = max(took for _, took in await answers)
        print(how, timeout_s, dict(statuses), f"{longest:.2f} s")
        assert statuses.keys() <= {200, 503}
        assert longest <= timeout_s + 1
        await _serves_again(http, service)


async def test_a_database_that_never_answers_again(tmp_path: Path, proxy: tuple[PostgresProxy, str]) -> None:
    """A link that is gone without a word: nothing closes the connections, and new ones do not get through either."""
    between, url = proxy
    async with _serving(_service(tmp_path, url, 2)) as service, _client(service) as http:
        assert (await _commit(http, service, "known"))[0] == 200
        between.hold()
        for _ in range(3):
            asked = [_commit(http, service, name) for name in ("known", "known", "new")]
            asked += [_get(http, service, path) for path in _PATHS]
            for status, took in await asyncio.gather(*asked):
                assert status == 503
                assert took <= 3
        between.drop()
        between.release()
        await _serves_again(http, service)


def _client(service: ServiceProcess) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {service.token}"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def _serves_again(http: aiohttp.ClientSession, service: ServiceProcess) -> None:
    async with asyncio.timeout(10):
        for name in ("known", "newer"):
            while (await _commit(http, service, name))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        while (await _get(http, service, "/health/ready"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
