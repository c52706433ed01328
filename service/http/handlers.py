"""One handler a call: parse, call the store once, render."""

import asyncio
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from aiohttp import web

from service import integrity
from service.errors import BadInput, Fenced, LeaseHeld
from service.http import wire
from service.http.body import read_body
from service.http.echo import echo
from service.http.failures import account_for
from service.http.keys import CALLER, DEADLINE, METRICS, STORE
from service.http.raw_json import BadBody, encode, quoted
from service.records import Opened
from service.store import AuthStore, Caller
from service.store.batches import Outcome
from service.store.reads import State

P = ParamSpec("P")
T = TypeVar("T")

_SLOW_READER_S: Final = 20.0
_LEAST_RATE: Final = 32 << 10
"""Bytes a second that the reader of a stream takes on the way: who drips would hold a connection for as long as it likes."""
_SLICE: Final = 1 << 18
_ASIDE_FROM: Final = 1 << 20
_LIMIT: Final = 100
_LIMIT_MOST: Final = 1000
_NONE: Final[list[Opened]] = []


async def list_sessions(request: web.Request) -> web.Response:
    query = request.query
    store, caller = _asked(request)
    found, following = await store.list(
        caller, _prefix(query.get("prefix", "")), _prefix(query.get("cursor", "")), _limit(request)
    )
    return _json(wire.ListAnswer([wire.summary(each) for each in found], following))


async def show_session(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    return _json(wire.summary(await store.show(caller, _session(request))))


async def delete_session(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    name, epoch, purge = _session(request), wire.lease_epoch(request.headers), _flag(request, "purge")
    removed = await store.delete(caller, name, epoch=epoch, purge=purge)
    return _json(wire.DeleteAnswer(name, removed.version, removed.rows, removed.restorable_until))


async def restore_session(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    return _json(wire.summary(await store.restore(caller, _session(request))))


async def get_creds(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    version, text = await store.creds(caller, _session(request))
    return _json_text(text, version)


async def get_keys(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    name, asked = _session(request), await _parsed(wire.parse_get, await read_body(request))
    values = await store.get(caller, name, [(ktype, raw) for ktype, _, raw in asked])
    return _json_text(wire.render_values(asked, values))


async def list_keys(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    name, ktype = _session(request), wire.type_name(request.match_info["type"])
    page = await store.page(caller, name, ktype, request.query.get("cursor"), _limit(request))
    following = encode(page.next)
    if _flag(request, "values"):
        return _json_text(b'{"values":' + wire.render_members(page.keys) + b',"next":' + following + b"}")
    return _json_text(b'{"ids":' + encode([key.key_id.decode() for key in page.keys]) + b',"next":' + following + b"}")


async def commit(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    caller.need("write")  # before its body is read
    name, steering = _session(request), wire.parse_steering(request.headers)
    done = await store.commit(caller, name, await _parsed(wire.parse_commit, await read_body(request), steering))
    return _json(wire.CommitAnswer(done.version, done.epoch))


async def commit_many(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    caller.need("write")
    commits = await _parsed(wire.parse_commits, await read_body(request))
    asked = [(name, change) for name, change in commits if not isinstance(change, BadInput)]
    outcomes = iter(await store.commit_all(caller, asked))
    answers = [change if isinstance(change, BadInput) else next(outcomes) for _, change in commits]
    return _json(wire.CommitsAnswer([_batched(request, answer) for answer in answers]))


async def put_state(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    caller.need("write")
    name, steering = _session(request), wire.parse_steering(request.headers)
    done = await store.commit(caller, name, await _parsed(wire.parse_state, await read_body(request), steering))
    return _json(wire.CommitAnswer(done.version, done.epoch))


async def get_state(request: web.Request) -> web.StreamResponse:
    store, caller = _asked(request)
    async with store.state(caller, _session(request)) as state:
        chunks = aiter(state.chunks)
        first = await anext(chunks, _NONE)
        if state.proven:
            return _json_text(b"".join(_StateText(state).parts(first, last=True)), state.row.head.version)
        return await _stream(request, state, first)


async def take_lease(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    caller.need("write")
    name, body = _session(request), wire.parse_lease(await read_body(request))
    epoch = wire.lease_epoch(request.headers)
    count = request.app[METRICS].lease
    over, over_epoch = body.takeover, body.takeover_epoch
    try:
        granted = await store.lease(
            caller, name, body.holder, body.ttl_s, takeover=over, takeover_epoch=over_epoch, epoch=epoch
        )
    except (Fenced, LeaseHeld):
        count("refused")
        raise
    count(granted.event)
    return _json(wire.LeaseAnswer(name, granted.epoch, granted.expires_at))


async def release_lease(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    epoch = wire.lease_epoch(request.headers)
    if epoch is None:
        raise BadBody("Lease-Epoch is needed to release a lease")
    await store.release(caller, _session(request), epoch)
    request.app[METRICS].lease("released")
    return web.Response(status=204)


async def check_integrity(request: web.Request) -> web.Response:
    store, caller = _asked(request)
    report = await integrity.check_session(store, caller, _session(request))
    request.app[METRICS].integrity_check(report.verdict)
    return _json(wire.integrity(report))


def _batched(request: web.Request, outcome: Outcome) -> wire.BatchedAnswer:
    """One member's answer, whatever became of it: the others may be stored already, and are told so."""
    if isinstance(outcome, Exception):
        return wire.BatchedAnswer(problem=account_for(request, outcome))
    return wire.BatchedAnswer(outcome.version, outcome.epoch)


async def _stream(request: web.Request, state: State, first: list[Opened]) -> web.StreamResponse:
    """A session too large to hold. When its mark does not prove it, the answer is cut off before its end."""
    response = web.StreamResponse(headers={"ETag": f'"{state.row.head.version}"'})
    response.content_type = "application/json"
    echo(request, response)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    request[DEADLINE].reschedule(None)  # what has begun cannot become a 503
    await response.prepare(request)
    text, reader = _StateText(state), _Reader(response)
    try:
        await reader.take(text.parts(first, last=False))
        async for chunk in state.chunks:
            await reader.take(text.parts(chunk, last=False))
        await reader.take(text.parts([], last=True))
        await response.write_eof()
    except BaseException as error:
        # What has begun cannot be taken back: cut off, so that nobody takes it for whole, and never followed by another.
        if request.transport is not None:
            request.transport.abort()
        if isinstance(error, Exception):
            if not isinstance(error, ConnectionError):  # whose reader is gone: nobody's fault
                account_for(request, error)
            raise ConnectionError("a streamed answer was cut off") from None
        raise
    return response


class _Reader:
    """Of a stream. One who falls behind the least rate by more than its patience is cut off: it holds a connection to the
    database. What the database takes is not counted.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._left_s = _SLOW_READER_S

    async def take(self, parts: list[bytes]) -> None:
        text = memoryview(b"".join(parts))
        for at in range(0, len(text), _SLICE):
            await self._take(bytes(text[at : at + _SLICE]))

    async def _take(self, piece: bytes) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._left_s):
                await self._response.write(piece)
        except TimeoutError:
            raise ConnectionAbortedError("the reader is too slow") from None
        self._left_s = min(_SLOW_READER_S, self._left_s - (clock() - began) + len(piece) / _LEAST_RATE)


class _StateText:
    """Writes a state as it comes: rows arrive type by type, creds somewhere among them."""

    def __init__(self, state: State) -> None:
        head = state.row.head
        name = quoted(state.row.name)
        self._open = b'{"session":%b,"version":%d,"epoch":%d,"keys":{' % (name, head.version, head.epoch)
        self._ktype: str | None = None
        self._creds = b"null"

    def parts(self, opened: list[Opened], *, last: bool) -> list[bytes]:
        parts = [self._open]
        self._open = b""
        for key in opened:
            if not key.ktype:
                self._creds = key.value
                continue
            if key.ktype != self._ktype:
                parts.append((b"" if self._ktype is None else b"},") + quoted(key.ktype) + b":{")
                self._ktype = key.ktype
            else:
                parts.append(b",")
            parts += (quoted(key.key_id.decode()), b":", key.value)
        if last:
            parts.append((b"" if self._ktype is None else b"}") + b'},"creds":' + self._creds + b"}")
        return parts


async def _parsed(parse: Callable[Concatenate[bytes, P], T], body: bytes, *args: P.args, **named: P.kwargs) -> T:
    """A large body is read aside: the loop has others to serve meanwhile."""
    if len(body) < _ASIDE_FROM:
        return parse(body, *args, **named)
    return await asyncio.to_thread(parse, body, *args, **named)


def _asked(request: web.Request) -> tuple[AuthStore, Caller]:
    return request.app[STORE], request[CALLER]


def _session(request: web.Request) -> str:
    return wire.session_name(request.match_info["session"])


def _prefix(text: str) -> str:
    """The beginning of a name: also a lone dot, or two, which no name is."""
    return text if text in {"", ".", ".."} else wire.session_name(text)


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= _LIMIT_MOST):  # noqa: PLR2004
        raise BadInput(f"limit is a number from 1 to {_LIMIT_MOST}")
    return int(text)


def _flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false")
    if text not in {"true", "false", "1", "0"}:
        raise BadInput(f"{name} is true or false")
    return text in {"true", "1"}


def _json(answer: object) -> web.Response:
    return web.Response(body=encode(answer), content_type="application/json")


def _json_text(text: bytes, version: int | None = None) -> web.Response:
    response = web.Response(body=text, content_type="application/json")
    if version is not None:
        response.headers["ETag"] = f'"{version}"'
    return response
