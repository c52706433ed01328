"""bench: what a deployment answers, measured from where this runs.

The nine workloads of the project's own measurements, over plain HTTP: one request a call, nothing from memory. The Node
client reads from memory and shares requests among sessions, so it is faster than this wherever the two differ.
"""

import json
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from service import trust
from service.cli import bench_state as state
from service.cli.output import Format, FormatOption, show
from service.errors import Unavailable

_TIMEOUT_S: Final = 60.0
_OK: Final = 300
_FIRST_LOGIN: Final = 812
_GROUP: Final = 256
_TOP_UP: Final = 2000


def bench(
    url: Annotated[str, typer.Option(help="Where the service answers, like https://store.example:8480.")],
    token_file: Annotated[Path, typer.Option(help="A file with a token that may write.", exists=True)],
    sessions: Annotated[int, typer.Option(help="Sessions at once in w8.", min=1, max=1000)] = 32,
    seconds: Annotated[float, typer.Option(help="For each workload.", min=0.1, max=600)] = 2.0,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates to trust instead of the system's.")] = None,
    how: FormatOption = Format.table,
) -> None:
    """Measures a running service; makes sessions named authstore-bench-… and destroys them at the end."""
    link = _Link(url, token_file.read_text().strip(), ca_file)
    bed = _Bed(link)
    rows = []
    try:
        for workload in _WORKLOADS:
            typer.echo(f"{workload.name} {workload.title}", err=True)
            rows.append(workload.run(bed, seconds))
        typer.echo(f"w8 {sessions} sessions receive", err=True)
        rows.append(_crowd(bed, sessions, seconds))
    finally:
        left = bed.clear()
    show(sorted(rows, key=lambda row: str(row["workload"])), how)
    if left:
        typer.echo(f"{left} sessions named {bed.prefix}-… could not be removed", err=True)
        sys.exit(1)


class _Link:
    """Where the service is, and who asks."""

    def __init__(self, url: str, token: str, ca_file: Path | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise typer.BadParameter("the URL begins with http:// or https://", param_hint="--url")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._trust = trust.for_clients(ca_file) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __repr__(self) -> str:
        return "<_Link>"

    @contextmanager
    def open(self) -> Iterator["_Caller"]:
        """A kept connection."""
        if self._trust is None:
            connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._trust)
        try:
            yield _Caller(connection, self._base, self._headers)
        finally:
            connection.close()


class _Caller:
    """One connection's calls. Raises Unavailable for whatever is not a 2xx."""

    def __init__(self, connection: HTTPConnection, base: str, headers: dict[str, str]) -> None:
        self._connection = connection
        self._base = base
        self._headers = headers

    def commit(self, session: str, **body: Any) -> None:
        """A commit of ``keys`` and ``creds``."""
        self.call("POST", f"/v1/sessions/{session}/commit", body)

    def get(self, session: str, kind: str, ids: list[str]) -> None:
        """Keys of a type; all of them have to be there."""
        found = json.loads(self.call("POST", f"/v1/sessions/{session}/keys/get", {kind: ids}))
        if len(found.get(kind, {})) != len(ids):
            raise Unavailable("a stored key did not come back")

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """Any call; the answer's body."""
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            self._connection.request(method, self._base + path, content, self._headers)
            with self._connection.getresponse() as answer:
                text = answer.read()
        except (OSError, HTTPException) as error:
            raise Unavailable(f"the service does not answer ({type(error).__name__})") from None
        if answer.status >= _OK:
            raise Unavailable(f"the service answered {answer.status}")
        return text


@dataclass
class _Bed:
    """The sessions that workloads use, and their keys. One thread makes and clears them."""

    link: _Link
    prefix: str = field(default_factory=lambda: f"authstore-bench-{secrets.token_hex(4)}")
    names: list[str] = field(default_factory=list)
    main: str = ""
    next_pre_key: int = 100_000

    def fresh(self) -> str:
        """A name nobody has used."""
        self.names.append(f"{self.prefix}-{len(self.names)}")
        return self.names[-1]

    def filled(self, caller: _Caller) -> str:
        """The session of 1,127 keys, made once."""
        if not self.main:
            self.main = self.fresh()
            caller.commit(self.main, creds=state.creds(), keys=state.whole())
        return self.main

    def issue(self, caller: _Caller, session: str, count: int) -> int:
        """Gives a session so many new pre-keys. Returns the first one's id."""
        first, self.next_pre_key = self.next_pre_key, self.next_pre_key + count
        caller.commit(session, keys=state.pre_keys(first, count))
        return first

    def clear(self) -> int:
        """Destroys every session made here. Returns how many are left."""
        left = 0
        with self.link.open() as caller:
            for name in self.names:
                try:
                    caller.call("DELETE", f"/v1/sessions/{name}?purge=true")
                except Unavailable:
                    left += 1
        return left


Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Workload:
    """``prepare(bed, caller, n)`` makes what ``n`` steps need and gives the step."""

    name: str
    title: str
    most: int
    prepare: Callable[[_Bed, _Caller, int], Step]

    def run(self, bed: _Bed, seconds: float) -> dict[str, Any]:
        """One connection, one call after the other."""
        with bed.link.open() as caller:
            step = self.prepare(bed, caller, self.most)
            took: list[float] = []
            end = time.perf_counter() + seconds
            while len(took) < self.most and (not took or time.perf_counter() < end):
                began = time.perf_counter()
                step(len(took))
                took.append(time.perf_counter() - began)
        return _row(self.name, self.title, took)


def _get_one(bed: _Bed, caller: _Caller, _: int) -> Step:
    main = bed.filled(caller)
    return lambda i: caller.get(main, "session", [state.address(i % state.WHOLE["session"])])


def _set_one(bed: _Bed, caller: _Caller, _: int) -> Step:
    main, values = bed.filled(caller), [state.session() for _ in range(64)]
    return lambda i: caller.commit(main, keys={"session": {state.address(i % state.WHOLE["session"]): values[i % 64]}})


def _first_login(bed: _Bed, caller: _Caller, _: int) -> Step:
    keys = state.pre_keys(1, _FIRST_LOGIN)
    return lambda _: caller.commit(bed.fresh(), keys=keys)


def _receive(bed: _Bed, caller: _Caller, n: int) -> Step:
    main, value = bed.filled(caller), state.session()
    first = bed.issue(caller, main, n)
    return lambda i: _received(caller, main, state.address(i % state.WHOLE["session"]), first + i, value)


def _group_send(bed: _Bed, caller: _Caller, _: int) -> Step:
    main, members = bed.filled(caller), [state.address(n) for n in range(_GROUP)]
    values = {member: state.session() for member in members}

    def step(_: int) -> None:
        caller.get(main, "session", members)
        caller.commit(main, keys={"session": values})

    return step


def _load(bed: _Bed, caller: _Caller, _: int) -> Step:
    creds, keys = state.creds(), state.whole()
    return lambda _: caller.commit(bed.fresh(), creds=creds, keys=keys)


def _save_creds(bed: _Bed, caller: _Caller, _: int) -> Step:
    main, creds = bed.fresh(), state.creds()
    return lambda i: caller.commit(main, creds=creds | {"lastAccountSyncTimestamp": i})


def _restart(bed: _Bed, caller: _Caller, _: int) -> Step:
    main = bed.filled(caller)
    return lambda _: _discard(caller.call("GET", f"/v1/sessions/{main}/state"))


_WORKLOADS: Final = (
    _Workload("w1", "get 1 session", 2000, _get_one),
    _Workload("w2", "set 1 session", 2000, _set_one),
    _Workload("w3", "first login: set 812 pre-keys", 20, _first_login),
    _Workload("w4", "receive: get 1 + 1, set 2", _TOP_UP, _receive),
    _Workload("w5", "group send: get 256, set 256", 50, _group_send),
    _Workload("w6", "load 1,127 keys + creds", 20, _load),
    _Workload("w7", "saveCreds", 2000, _save_creds),
    _Workload("w9", "restart: read creds + 1,127 keys", 50, _restart),
)


def _crowd(bed: _Bed, count: int, seconds: float) -> dict[str, Any]:
    """w8: so many sessions receive at once, each in a thread with a connection of its own."""
    each = max(20, int(_TOP_UP * seconds / count))
    took: list[float] = []
    failed: list[Unavailable] = []
    ready = threading.Barrier(count + 1)

    def loop(name: str, first: int) -> None:
        value = state.session()
        with bed.link.open() as caller:
            try:
                ready.wait(_TIMEOUT_S)
                end = time.perf_counter() + seconds
                for i in range(each):
                    began = time.perf_counter()
                    if began > end:
                        break
                    _received(caller, name, state.address(0), first + i, value)
                    took.append(time.perf_counter() - began)
            except Unavailable as error:
                failed.append(error)

    with bed.link.open() as caller:
        names = [bed.fresh() for _ in range(count)]
        firsts = [_opened(bed, caller, name, each) for name in names]
    threads = [threading.Thread(target=loop, args=pair) for pair in zip(names, firsts, strict=True)]
    for thread in threads:
        thread.start()
    ready.wait(_TIMEOUT_S)
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    row = _row("w8", f"{count} sessions receive at once", took)
    return row | {"per second": round(len(took) / (time.perf_counter() - began), 1)}


def _opened(bed: _Bed, caller: _Caller, name: str, count: int) -> int:
    """Makes a session of the crowd; its first pre-key's id."""
    caller.commit(name, creds=state.creds(), keys={"session": {state.address(0): state.session()}})
    return bed.issue(caller, name, count)


def _received(caller: _Caller, session: str, address: str, pre_key: int, value: Any) -> None:
    caller.get(session, "session", [address])
    caller.get(session, "pre-key", [str(pre_key)])
    caller.commit(session, keys={"session": {address: value}, "pre-key": {str(pre_key): None}})


def _row(name: str, title: str, took: list[float]) -> dict[str, Any]:
    """Times in ms. Without a hundred calls p99 is the slowest one."""
    if not took:
        raise Unavailable("nothing was answered in time")
    ordered = sorted(took)
    return {
        "workload": name,
        "does": title,
        "calls": len(took),
        "p50 ms": round(statistics.median(ordered) * 1000, 3),
        "p99 ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 3),
        "per second": round(len(took) / sum(took), 1),
    }


def _discard(_: bytes) -> None:
    """Read, and that was all."""
