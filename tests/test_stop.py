"""How a service ends: what it accepted is answered, nothing is left behind, and the next one starts at once."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from crash.killer import children, postmaster
from embedded_service import is_alive, wait_gone
from service_process import ServiceProcess

from service.embedded import attach

_PROJECT = Path(__file__).parent.parent
_STOP_S = 15
_MANY = 50
_SIGNALS = [signal.SIGTERM, signal.SIGINT]


def _family(pid: int) -> set[int]:
    """A process and everything it has started."""
    return {pid}.union(*(_family(child) for child in children(pid)))


def _gone(pids: set[int], within_s: float = _STOP_S) -> bool:
    deadline = time.monotonic() + within_s
    return all(wait_gone(pid, within_s=max(0.1, deadline - time.monotonic())) for pid in pids)


@contextmanager
def _service(folder: Path) -> Iterator[ServiceProcess]:
    """A running service that its test stops, or that is killed."""
    service = ServiceProcess(folder / "data")
    service.start()
    try:
        yield service
    finally:
        with contextlib.suppress(AssertionError):
            service.kill9()


def _client(service: ServiceProcess, *, force_close: bool = False) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {service.token}"}
    return aiohttp.ClientSession(
        service.url, headers=headers, connector=aiohttp.TCPConnector(limit=0, force_close=force_close)
    )


async def _commit(http: aiohttp.ClientSession, session: str) -> int:
    async with http.post(f"/v1/sessions/{session}/commit", json={"keys": {"session": {"a": {"n": 1}}}}) as answer:
        await answer.read()
        return answer.status


async def _readiness(http: aiohttp.ClientSession) -> tuple[int | None, str | None]:
    """Status and reason, nothing when nobody listens any more."""
    try:
        async with http.get("/health/ready") as answer:
            return answer.status, (await answer.json()).get("reason")
    except aiohttp.ClientError:
        return None, None


@asynccontextmanager
async def _no_writes(data_dir: Path) -> AsyncIterator[asyncpg.Connection]:
    """While this is held, commits wait in the database."""
    url = attach(data_dir)
    assert url is not None
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE sessions IN SHARE MODE")
            yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("number", _SIGNALS)
async def test_requests_in_flight_are_answered(tmp_path: Path, number: signal.Signals) -> None:
    with _service(tmp_path) as service:
        async with _client(service) as http, _client(service, force_close=True) as onlooker:
            names = [f"s-{n}" for n in range(_MANY)]
            assert {*await asyncio.gather(*(_commit(http, name) for name in names))} == {200}
            family = _family(service.pid)
            assert postmaster(service.data_dir) in family
            async with _no_writes(service.data_dir):
                # Known sessions and new ones: the former wait in the lanes, the latter in the pool.
                asked = [asyncio.ensure_future(_commit(http, name)) for name in [*names, "new-1", "new-2"]]
                await asyncio.sleep(0.5)
                assert not any(each.done() for each in asked)
                assert await _readiness(onlooker) == (200, None)
                os.kill(service.pid, number)
                told = time.monotonic()
                seen = [await _readiness(onlooker)]
                while seen[-1][0] is not None and time.monotonic() - told < 5:
                    await asyncio.sleep(0.02)
                    seen.append(await _readiness(onlooker))
                assert not any(each.done() for each in asked)
            # Not ready while it still listens, and never ready again.
            assert (503, "stopping") in seen
            assert {status for status, _ in seen[1:]} <= {503, None}
            assert {*await asyncio.gather(*asked)} == {200}
        assert await asyncio.to_thread(service.wait, _STOP_S) == 0
        assert _gone(family)
        began = time.monotonic()
        service.start()
        print(f"ready again after {time.monotonic() - began:.2f} s")
        assert {service.call("GET", f"/v1/sessions/{name}")["version"] for name in names} == {2}
        service.stop()


class _Caller:
    """Commits to a session of its own over one connection at a time; counts what it was answered."""

    def __init__(self, service: ServiceProcess, session: str) -> None:
        self.session = session
        self.answered = 0
        self.cut: list[str] = []
        self._reused = False
        self._service = service

    async def run(self) -> None:
        """Until nobody listens any more."""
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(self._reuse)
        trace.on_connection_create_start.append(self._create)
        headers = {"Authorization": f"Bearer {self._service.token}"}
        async with aiohttp.ClientSession(self._service.url, headers=headers, trace_configs=[trace]) as http:
            while True:
                try:
                    status = await _commit(http, self.session)
                except aiohttp.ClientConnectorError:
                    return
                except (aiohttp.ClientError, OSError) as error:
                    # A new connection that ends in the backlog of a closed socket was never accepted.
                    if self._reused:
                        self.cut.append(repr(error))
                    continue
                assert status in (200, 503), status
                self.answered += status == 200

    async def _reuse(self, *_: object) -> None:
        self._reused = True

    async def _create(self, *_: object) -> None:
        self._reused = False


@pytest.mark.parametrize("number", _SIGNALS)
async def test_stop_under_load(tmp_path: Path, number: signal.Signals) -> None:
    rng = random.Random(secrets.randbits(32))
    with _service(tmp_path) as service:
        callers = [_Caller(service, f"s-{n}") for n in range(_MANY)]
        for _ in range(2):
            running = [asyncio.ensure_future(caller.run()) for caller in callers]
            await asyncio.sleep(rng.uniform(0.3, 1.0))
            family = _family(service.pid)
            os.kill(service.pid, number)
            began = time.monotonic()
            assert await asyncio.to_thread(service.wait, _STOP_S) == 0
            print(f"stopped after {time.monotonic() - began:.2f} s")
            await asyncio.gather(*running)
            assert _gone(family)
            assert [caller.cut for caller in callers if caller.cut] == []
            await asyncio.to_thread(service.start)
            # What was applied was answered, and what was answered was applied.
            versions = [_version(service, caller.session) for caller in callers]
            assert versions == [caller.answered for caller in callers]
        assert sum(caller.answered for caller in callers) > 100
        service.stop()


def _version(service: ServiceProcess, session: str) -> int:
    status, answer = service.ask("GET", f"/v1/sessions/{session}")
    return int(answer["version"]) if status == 200 else 0


def test_a_killed_service_takes_its_postgres_along(tmp_path: Path) -> None:
    with _service(tmp_path) as service:
        family = _family(service.pid)
        assert len(family) > 3
        service.kill9()
        assert _gone(family)
        service.start()
        service.stop()


@pytest.mark.parametrize("number", _SIGNALS)
def test_stopped_while_starting(tmp_path: Path, number: signal.Signals) -> None:
    """At any moment of a start, the very first one included."""
    service = ServiceProcess(tmp_path / "data")
    for delay_s in (0.2, 0.5, 0.7, 0.9, 1.1):
        service.launch()
        time.sleep(delay_s)
        family = _family(service.pid)
        os.kill(service.pid, number)
        service.wait(_STOP_S)
        assert _gone(family)
    service.start()
    service.stop()


def test_stopped_twice(tmp_path: Path) -> None:
    """An impatient operator, or a terminal and its shell."""
    with _service(tmp_path) as service:
        family = _family(service.pid)
        for _ in range(20):
            with contextlib.suppress(ProcessLookupError):
                os.kill(service.pid, signal.SIGTERM)
            time.sleep(0.01)
        assert service.wait(_STOP_S) == 0
        assert _gone(family)


def _to_itself(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def _to_group(pid: int) -> None:
    os.killpg(pid, signal.SIGTERM)


def _from_terminal(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


@pytest.mark.parametrize("tell", [_to_itself, _to_group, _from_terminal])
def test_make_serve(tmp_path: Path, tell: Callable[[int], None]) -> None:
    """Port, data folder and token come from the environment; whoever is told to end, all of it does."""
    service = ServiceProcess(tmp_path / "data", command=["make", "-C", str(_PROJECT), "serve"])
    for version in (1, 2):
        service.start()
        family = _family(service.pid)
        try:
            assert len(family) > 3
            assert postmaster(service.data_dir) in family
            answer = service.call("POST", "/v1/sessions/made/commit", {"keys": {"session": {"a": 1}}})
            assert answer["version"] == version
            tell(service.pid)
            service.wait(_STOP_S)
            assert _gone(family)
        finally:
            for pid in filter(is_alive, family):
                os.kill(pid, signal.SIGKILL)
