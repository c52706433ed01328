"""Redis as a source: a hash a session, or a key a value.

| layout | keys | names |
|---|---|---|
| `fazer` | hash ``@baileys-api:connections:{session}:authState`` (fazer-ai/baileys-api); its field ``metadata`` is \
the gateway's own and no auth state | as they are |
| `hash` | hash ``{session}:auth`` (baileys-redis-auth, ``useRedisAuthStateWithHSet``) | as in multi-file stores |
| `keys` | ``{session}:{name}`` (baileys-redis-auth, ``useRedisAuthState``) | as in multi-file stores |

Keys of one's own are described by ``--map``: ``[source]`` with ``hash = "wa:{session}"`` or ``keys = "wa:{session}:{name}"``,
and if need be ``mangled = true`` (names with ``/`` as ``__`` and ``:`` as ``-``) and ``creds = "me"``.

Redis has no snapshots. A hash is read by one command, so a reading never holds half of what ``MULTI`` or one ``HSET`` wrote;
keys are read a hundred at a time. Neither stands still while others write: a session is read until its fingerprint is the
same before and after. The way back is one ``MULTI`` that arrives in its turn or not at all (`redis_turn`), and as durable as
that Redis is set up to be. A cluster is not read.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import redis.asyncio as driver
from redis import exceptions

from protocol.repairs import spelled
from protocol.spelling import CREDS, Spelling
from service.errors import BadInput
from service.migrate.source import (
    Fault,
    FaultKind,
    Found,
    Snapshot,
    Source,
    SourceError,
    SourceRefused,
    Within,
    Write,
    WrongSource,
    away,
)
from service.migrate.sources import Layout
from service.migrate.sources.layout import chosen
from service.migrate.sources.names import name_of, owner, put_creds, put_named
from service.migrate.sources.redis_turn import Command, in_turn, touched

_SESSION: Final = "{session}"
_NAME: Final = "{name}"


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """``template``: of a hash's key, or (with ``{name}`` at its end) of each value's. ``ignored``: fields that are no state."""

    template: str
    mangled: bool
    creds: str = "creds"
    ignored: frozenset[str] = frozenset()

    @property
    def is_hash(self) -> bool:
        return not self.template.endswith(_NAME)

    @property
    def head(self) -> str:
        """What stands before the session."""
        return self.template.partition(_SESSION)[0]

    @property
    def tail(self) -> str:
        """What stands after the session: the rest of the hash's key, or what separates it from the name."""
        return self.template.partition(_SESSION)[2].removesuffix(_NAME)

    def key(self, session: str, name: str = "") -> str:
        """The key of a session's hash, or of one value."""
        return f"{self.head}{session}{self.tail}{'' if self.is_hash else name}"

    def pattern(self, session: str | None = None) -> str:
        """What SCAN is to match: every session's keys, or one's."""
        middle = "*" if session is None else _escaped(session)
        return f"{_escaped(self.head)}{middle}{_escaped(self.tail)}{'' if self.is_hash else '*'}"

    def parts(self, key: str) -> tuple[str, str] | None:
        """Session and name (empty for a hash); None for a key that is not of this layout."""
        rest = key.removeprefix(self.head)
        if self.is_hash:
            return (rest.removesuffix(self.tail), "") if rest != self.tail else None
        return owner(rest, self.creds, separator=self.tail, mangled=self.mangled)


LAYOUTS: Final = {
    "fazer": KeyLayout("@baileys-api:connections:{session}:authState", mangled=False, ignored=frozenset({"metadata"})),
    "hash": KeyLayout("{session}:auth", mangled=True),
    "keys": KeyLayout("{session}:{name}", mangled=True),
}

# Both give digests of values in the order of their names; values stay where they are.
HASH_MARK: Final = """
local found, seen = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #found, 2 do seen[#seen + 1] = found[at] .. '\\0' .. redis.sha1hex(found[at + 1]) end
table.sort(seen)
return redis.sha1hex(table.concat(seen, '\\0'))
"""
KEYS_MARK: Final = """
local seen = {}
for at = 1, #KEYS do
    local value = redis.call('GET', KEYS[at])
    seen[at] = value and redis.sha1hex(value) or ''
end
return redis.sha1hex(table.concat(seen, '\\0'))
"""
_CHUNK: Final = 100
_SCANNED: Final = 2000
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 120.0


class RedisSource(Source):
    """One database of a Redis."""

    kind: ClassVar[str] = "redis"

    def __init__(self, url: str, client: "driver.Redis", layout: KeyLayout) -> None:
        self._url = url
        self.client = client
        self.layout = layout

    @property
    def place(self) -> str:
        return _redacted(self._url)

    @property
    def within(self) -> Within:
        number = self.client.connection_pool.connection_kwargs.get("db")  # of the URL's path, or of its ?db=
        return {"number": number or 0, "keys": asdict(self.layout)}

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["RedisSnapshot"]:
        yield RedisSnapshot(self)

    async def standby(self) -> bool:
        with understood(), suppress(exceptions.NoPermissionError):
            about: dict[str, Any] = await _answer(self.client.info("replication"))
            return about.get("role") == "slave"
        return False

    async def fingerprint(self, session: str) -> str:
        with understood():
            if self.layout.is_hash:
                return _text(await self._mark(HASH_MARK, [self.layout.key(session)]))
            whole = hashlib.blake2b(digest_size=12)
            names = await self.names(session)
            for at in range(0, len(names), _CHUNK):
                keys = [self.layout.key(session, name) for name in names[at : at + _CHUNK]]
                whole.update("\0".join((*keys, _text(await self._mark(KEYS_MARK, keys)))).encode())
            return whole.hexdigest()

    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        async def commands() -> list[Command]:
            old = await self.names(session) if whole else []
            return [*(self._delete(session, name) for name in old), *self._changes(session, creds, rows)]

        with understood():
            every = touched(partial(self.layout.key, session), is_hash=self.layout.is_hash)
            await in_turn(self.client, every, commands)

    async def keep(self, session: str, *, expired: bool = True) -> None:
        del expired  # what is past its time is gone here
        with understood():
            names = [""] if self.layout.is_hash else await self.names(session)
            async with self.client.pipeline(transaction=False) as commands:
                for name in names:
                    commands.persist(self.layout.key(session, name))
                await commands.execute()

    async def close(self) -> None:
        await self.client.aclose()

    async def names(self, session: str) -> list[str]:
        """Names of the session's values, creds among them, in order."""
        if self.layout.is_hash:
            fields = [_text(field) for field in await _answer(self.client.hkeys(self.layout.key(session)))]
            return sorted(set(fields) - self.layout.ignored)
        return (await self.told_apart(session))[0]

    async def told_apart(self, session: str) -> tuple[list[str], list[str]]:
        """Of keys that begin like the session's: the names of its values, and keys that have no key's name."""
        found, strangers = set[str](), set[str]()
        async for key in self.scan(self.layout.pattern(session)):
            parts = self.layout.parts(key)
            if parts is None:
                strangers.add(key)
            elif parts[0] == session:
                found.add(parts[1])
        return sorted(found), sorted(strangers)

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Keys of the layout's kind; SCAN may tell one twice."""
        kind = "HASH" if self.layout.is_hash else "STRING"
        async for key in self.client.scan_iter(match=pattern, count=_SCANNED, _type=kind):
            yield _text(key)

    def _changes(self, session: str, creds: bytes | None, rows: Sequence[Write]) -> Iterator[Command]:
        for row in rows:
            name = name_of(row.ktype, row.key_id, mangled=self.layout.mangled)
            if row.text is None:
                yield self._delete(session, name)
            else:
                yield self._put(session, name, spelled(row.ktype, row.text, Spelling.base64))
        if creds is not None:
            yield self._put(session, self.layout.creds, spelled(CREDS, creds, Spelling.base64))
        if self.layout.is_hash:  # a time to live was set for older values
            yield "PERSIST", self.layout.key(session)

    def _put(self, session: str, name: str, text: bytes) -> Command:
        if self.layout.is_hash:
            return "HSET", self.layout.key(session), name, text
        return "SET", self.layout.key(session, name), text

    def _delete(self, session: str, name: str) -> Command:
        if self.layout.is_hash:
            return "HDEL", self.layout.key(session), name
        return "DEL", self.layout.key(session, name)

    async def _mark(self, script: str, keys: Sequence[str]) -> Any:
        return await _answer(self.client.eval(script, len(keys), *keys))


class RedisSnapshot(Snapshot):
    """The database as it is when it is looked at."""

    consistent: ClassVar[bool] = False

    def __init__(self, source: RedisSource) -> None:
        self._source = source

    async def sessions(self) -> AsyncIterator[str]:
        layout = self._source.layout
        found: set[str] = set()
        with understood():
            async for key in self._source.scan(layout.pattern()):
                if (parts := layout.parts(key)) is not None:
                    found.add(parts[0])
        for name in sorted(found):
            yield name

    async def read(self, session: str) -> Found:
        with understood():
            return await (self._hash(session) if self._source.layout.is_hash else self._keys(session))

    async def _hash(self, session: str) -> Found:
        found, layout = Found(), self._source.layout
        key = layout.key(session)
        fields: dict[bytes, bytes] = await _answer(self._source.client.hgetall(key))
        for field, text in sorted(fields.items()):
            name = _text(field)
            if name not in layout.ignored:
                self._take(found, name, text, f"{key} {name}")
        return found

    async def _keys(self, session: str) -> Found:
        found, layout = Found(), self._source.layout
        names, strangers = await self._source.told_apart(session)
        for at in range(0, len(names), _CHUNK):
            keys = [layout.key(session, name) for name in names[at : at + _CHUNK]]
            texts: list[bytes | None] = await _answer(self._source.client.mget(keys))
            for name, key, text in zip(names[at : at + _CHUNK], keys, texts, strict=True):
                if text is not None:  # else it went while we looked, and the fingerprint will tell
                    self._take(found, name, text, key)
        found.faults += [Fault(FaultKind.foreign, key, "a name that no key has") for key in strangers]
        return found

    def _take(self, found: Found, name: str, text: bytes, where: str) -> None:
        if name == self._source.layout.creds:
            put_creds(found, text, where)
        else:
            put_named(found, name, text, where, mangled=self._source.layout.mangled)


async def open_it(url: str, layout: Layout | None) -> Source:
    """The layout that the map names or describes, or the only one that is there."""
    try:
        _check_number(url)
        client = driver.Redis.from_url(url, socket_connect_timeout=_CONNECT_S, socket_timeout=_ANSWER_S)
    except ValueError:
        raise BadInput(
            "the source's URL has the form redis://user:password@host:port/number", pointer="--from"
        ) from None
    try:
        with understood():
            await _answer(client.ping())
            return RedisSource(url, client, await _layout(url, client, layout))
    except BaseException:
        await client.aclose()
        raise


def _check_number(url: str) -> None:
    """ValueError for a database that is no number: the driver would take the first one instead."""
    number = urlsplit(url).path.strip("/")
    if number and not number.isdecimal():
        raise ValueError


async def _layout(url: str, client: "driver.Redis", layout: Layout | None) -> KeyLayout:
    wanted = chosen(layout)
    if wanted is not None:
        if wanted not in LAYOUTS:
            raise BadInput(f"known layouts here are {', '.join(LAYOUTS)}", pointer="--map")
        return LAYOUTS[wanted]
    if layout is not None:
        return key_layout(layout)
    found = [name for name, known in LAYOUTS.items() if await _is_there(RedisSource(url, client, known))]
    if not found:
        raise WrongSource("no key of this database is laid out as a store we know; describe yours with --map")
    if len(found) > 1:
        raise WrongSource(f"this database holds several stores: choose {' or '.join(found)} with --map")
    return LAYOUTS[found[0]]


async def _is_there(source: RedisSource) -> bool:
    """Whether some session of this layout has creds."""
    layout = source.layout
    pattern = layout.pattern() if layout.is_hash else f"{layout.pattern()[:-1]}{_escaped(layout.creds)}"
    async for key in source.scan(pattern):
        if not layout.is_hash or await _answer(source.client.hexists(key, layout.creds)):
            return True
    return False


def key_layout(layout: Layout) -> KeyLayout:
    """A map's keys. Raises BadInput."""
    wrong = BadInput('[source] has hash = "…{session}…" or keys = "…{session}…{name}", mangled, creds', pointer="--map")
    plain = dict(layout)
    mangled, creds = plain.pop("mangled", False), plain.pop("creds", "creds")
    template = plain.get("hash", plain.get("keys"))
    if len(plain) != 1 or not isinstance(template, str) or not isinstance(mangled, bool) or not isinstance(creds, str):
        raise wrong
    found = KeyLayout(template, mangled, creds)
    if template.count(_SESSION) != 1 or found.is_hash is not ("hash" in plain):
        raise wrong
    if not found.is_hash and (not found.tail or template.count(_NAME) != 1):
        raise wrong
    return found


@contextmanager
def understood() -> Iterator[None]:
    """The driver's errors as ours; their texts can hold keys."""
    try:
        yield
    except exceptions.AuthenticationError:
        raise SourceRefused("the source does not know this user and password") from None
    except (exceptions.NoPermissionError, exceptions.ReadOnlyError):
        raise SourceRefused from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise away(error) from None
    except exceptions.RedisError as error:
        raise SourceError(f"the source refused a command ({type(error).__name__})") from None


async def _answer(reply: Any) -> Any:
    """The driver types its replies for both of its faces."""
    return await reply


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in text)


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="surrogateescape")


def _redacted(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{'' if parts.port is None else f':{parts.port}'}{parts.path}"
