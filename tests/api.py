"""The real application over a real database, as its callers meet it: over HTTP, with a look at the rows beside it."""

import asyncio
import base64
import gzip
import io
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDictProxy
from told import assert_told
from yarl import URL

from protocol.types import session_uuid
from service.app import make_app
from service.config import Settings
from service.http.problems import TYPE_PREFIX
from service.http.server import Runner
from service.store import AuthStore, make_store
from service.vault import MasterKeys

TENANT = "default"
MASTER_KEY = bytes(range(32))

# Every row of every session, in an order of its own: two equal answers mean that nothing was stored in between.
DUMP_SQL = """
SELECT md5(coalesce((SELECT string_agg(s::text, chr(10) ORDER BY s.sid) FROM sessions s), '')) || ' ' ||
       md5(coalesce((SELECT string_agg(k::text, chr(10) ORDER BY k.sid, k.kh) FROM session_keys k), '')) || ' ' ||
       md5(coalesce((SELECT string_agg(p::text, chr(10) ORDER BY p.sid) FROM purged_sessions p), ''))
"""


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end. ``text`` is its body as it came, decompressed."""

    status: int
    headers: CIMultiDictProxy[str]
    text: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def slug(self) -> str:
        """The last part of a problem's type; the answer must be one."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), (self.status, self.headers)
        problem = self.json
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["type"].startswith(TYPE_PREFIX)
        return str(problem["type"].removeprefix(TYPE_PREFIX))


class Beside:
    """A connection of the test's own, made when it is first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._turn:
            if self._connection is None:
                # Tables come and go in tests: a plan made before would be of another table.
                self._connection = await asyncpg.connect(self._url, statement_cache_size=0)
            return list(await self._connection.fetch(statement, *arguments))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class Api:
    """A caller of a served store. ``client`` and ``store`` are the real ones; ``token`` is replaceable."""

    def __init__(
        self, client: "TestClient[Any, Any]", store: AuthStore, token: str | None, url: str, beside: "Beside"
    ) -> None:
        self.client = client
        self.store = store
        self.token = token
        self.url = url
        self.beside = beside

    def of(self, token: str | None) -> "Api":
        """The same service, asked with another token."""
        return Api(self.client, self.store, token, self.url, self.beside)

    async def tenant(self, tenant: str, scope: Any = "write") -> "Api":
        """The same service, asked by another tenant."""
        return self.of(await self.store.tokens.create(tenant, scope, "", None))

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | AsyncIterator[bytes] | None = None,
        headers: Any = None,
    ) -> Answer:
        """Any call, its answer one that the reference tells of. ``body`` is sent as JSON, ``raw`` and ``path`` as they are."""
        sent = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent["Content-Type"] = "application/json"
        data = io.BytesIO(raw) if isinstance(raw, bytes) else raw
        url = URL(path, encoded=True)
        async with self.client.request(method, url, data=data, headers={**sent, **(headers or {})}) as response:
            text = await response.read()
        assert_told(method, path, response.status, response.headers.get("Content-Type", ""), text)
        return Answer(response.status, response.headers, text)

    async def good(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of a call that must succeed."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status == 200, (method, path, answer.status, answer.text[:300])
        return answer.json

    async def commit(self, session: str, body: Any = None, **more: Any) -> Any:
        """``{"version", "epoch"}`` of a commit that must succeed."""
        return await self.good("POST", at(session, "commit"), body, **more)

    async def batch(self, *commits: dict[str, Any]) -> list[Any]:
        """Many commits in one request; their results, in order."""
        return list((await self.good("POST", "/v1/commits", {"commits": list(commits)}))["results"])

    async def get(self, session: str, asked: dict[str, list[str]]) -> Any:
        return await self.good("POST", at(session, "keys/get"), asked)

    async def state(self, session: str) -> Any:
        return await self.good("GET", at(session, "state"))

    async def summary(self, session: str) -> Any:
        return await self.good("GET", at(session))

    async def lease(self, session: str, holder: str = "one", ttl_s: float = 60, **more: Any) -> int:
        """The epoch of a lease that must be granted."""
        answer = await self.good("POST", at(session, "lease"), {"holder": holder, "ttl_s": ttl_s, **more})
        return int(answer["epoch"])

    async def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """A statement run on the database behind the service's back."""
        return await self.beside.fetch(statement, *arguments)

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Whatever happens within stores nothing: every version, epoch and row of the database stays."""
        await self.settle()
        before = await self.dump()
        yield
        assert await self.dump() == before, "something was stored"

    async def settle(self) -> None:
        """Makes rows of all that waits in journals, whoever put it there: later it could happen at any moment."""
        for found in await self.sql(
            "SELECT DISTINCT s.tenant, s.sid FROM session_journal j JOIN sessions s USING (sid)"
        ):
            await self.store.settler.settle_now(found["tenant"], UUID(bytes=found["sid"].bytes))

    async def dump(self) -> str:
        """A hash of everything stored."""
        return str((await self.sql(DUMP_SQL))[0][0])


def at(session: str, call: str = "") -> str:
    """The path of a session's call."""
    return f"/v1/sessions/{quote(session, safe='')}" + (f"/{call}" if call else "")


def sid_of(session: str, tenant: str = TENANT) -> UUID:
    return session_uuid(tenant, session)


def fresh(word: str = "s") -> str:
    """A session name nobody used."""
    return f"{word}-{secrets.token_hex(6)}"


def octets(fill: int, length: int = 32) -> dict[str, str]:
    """Bytes as Baileys' BufferJSON spells them."""
    return {"type": "Buffer", "data": base64.b64encode(bytes([fill]) * length).decode()}


def creds(identity: int = 1, *, paired: bool = True, **more: Any) -> dict[str, Any]:
    """Creds with everything a commit is judged by, and a little beside it."""
    return {
        "noiseKey": {"private": octets(91), "public": octets(92)},
        "signedIdentityKey": {"private": octets(100 + identity), "public": octets(identity)},
        "signedPreKey": {"keyPair": {"private": octets(3), "public": octets(4)}, "keyId": 1},
        "registrationId": 77,
        "nextPreKeyId": 31,
        "firstUnuploadedPreKeyId": 31,
        "accountSyncCounter": 1,
        "registered": False,
        **({"account": {"details": "Cg=="}} if paired else {}),
        **more,
    }


def pre_key(fill: int) -> dict[str, Any]:
    return {"private": octets(fill), "public": octets(fill + 1)}


def zipped(raw: bytes) -> bytes:
    return gzip.compress(raw, 1, mtime=0)  # cases are named by it: the same in every worker


def key_uuid() -> dict[str, str]:
    """A fresh Idempotency-Key header."""
    return {"Idempotency-Key": str(UUID(bytes=secrets.token_bytes(16), version=4))}


def members_of(text: bytes, *path: str) -> dict[str, bytes]:
    """The members of an object in a JSON text, their values as they stand there."""
    decoder = json.JSONDecoder()
    found = text.decode("utf-8")
    for name in [*path, None]:
        members, start = {}, found.index("{") + 1
        while found[start : start + 1] != "}":
            key, start = decoder.raw_decode(found, start)
            assert found[start] == ":"
            _, end = decoder.raw_decode(found, start + 1)
            assert key not in members, "a member stands twice"
            members[key] = found[start + 1 : end]
            start = end + (found[end] == ",")
        if name is not None:
            found = members[name]
    return {key: value.encode() for key, value in members.items()}


class _Server(TestServer):
    """A test server that runs the application as the service does."""

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **options)


@asynccontextmanager
async def serve(
    url: str,
    *,
    masters: MasterKeys | None = None,
    token: str | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> AsyncIterator[Api]:
    """The application on this database, listening on a port of the loopback. Raises what keeps it from starting."""
    token = token or secrets.token_urlsafe(24)
    chosen = Settings.model_validate(settings)
    store = make_store(chosen, url, masters or MasterKeys([MASTER_KEY]), token)
    async with TestClient(_Server(make_app(store, chosen, stopping=stopping))) as client:
        beside = Beside(url)
        try:
            yield Api(client, store, token, url, beside)
        finally:
            await beside.close()
