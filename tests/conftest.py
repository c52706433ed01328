"""What tests share: one real Postgres for the whole run, and a fresh database for each test that asks for one."""

import asyncio
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from api import Api, creds, fresh, pre_key, serve
from stores import opened

from service.embedded import EmbeddedPostgres
from service.store import AuthStore


def pytest_configure() -> None:
    """A run in a shell's background is born ignoring SIGINT, and so would every process be that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The embedded Postgres, started once, durable as in production."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="authstore-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of an empty database of this test's own, for asyncpg; dropped afterwards, whoever is still connected."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_server.dsn)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres_server.dsn.replace("/authstore?", f"/{name}?")
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[AuthStore]:
    """A store on a database of the test's own."""
    store = await opened(database_url)
    yield store
    await store.close()


@pytest.fixture
async def other(database_url: str, store: AuthStore) -> AsyncIterator[AuthStore]:
    """A second process on the same database."""
    second = await opened(database_url)
    yield second
    await second.close()


@pytest.fixture(scope="session")
def shared_url(postgres_server: EmbeddedPostgres) -> str:
    """The URL of a database shared by tests that use sessions of their own."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres_server.dsn)
        await connection.execute("CREATE DATABASE shared")
        await connection.close()

    asyncio.run(make())
    return postgres_server.dsn.replace("/authstore?", "/shared?")


@pytest.fixture
async def api(shared_url: str) -> AsyncIterator[Api]:
    """The real application on the shared database, asked by its first token."""
    async with serve(shared_url) as served:
        yield served


@pytest.fixture
async def own_api(database_url: str) -> AsyncIterator[Api]:
    """The real application on a database of this test's own."""
    async with serve(database_url) as served:
        yield served


@pytest.fixture
async def kept(api: Api) -> str:
    """A paired session with keys."""
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"session": {"a": 1}, "pre-key": {"1": pre_key(8)}}})
    return session
