"""How long a check takes and how much memory: ``python -m bench.integrity [rows ...]``; prints a JSON line a measurement.

Two kinds of session, keys real: `lid`, as the history of many contacts leaves it (812 pre-keys, the rest LID mappings), and
`chats` (812 pre-keys, then sessions, identity keys, LID mappings, device lists and sender keys in equal shares). Each is
judged twice: the rules alone over rows in memory, and a whole check of what is stored, in an embedded Postgres.
"""

import asyncio
import base64
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.checks import check
from protocol.curve import prefixed, public_of
from service.embedded import running
from service.integrity import check_session
from service.store import AuthStore, Caller
from service.store.auth_store import StoreOptions
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

PRE_KEYS = 812
STATE = Path(__file__).parent.parent / "fixtures" / "state" / "baileys-7.0.0-rc14.json"
BATCH = 5000
Rows = Iterator[tuple[str, str, bytes]]


def main() -> None:
    counts = [int(each) for each in sys.argv[1:]] or [11_000, 100_000]
    for kind in ("lid", "chats"):
        for count in counts:
            rules_alone(kind, count)
    asyncio.run(stored(counts))


def rules_alone(kind: str, count: int) -> None:
    text, rows = creds(), list(made(kind, count))
    size = sum(len(row[2]) for row in rows)
    with peak() as memory:
        timer = Timer()
        found = list(check(text, rows))
        timer.stop()
    tell("rules", kind, count, timer, size, memory.grown, found)


async def stored(counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as url:
        store = AuthStore(url, MasterKeys([os.urandom(32)]), None, StoreOptions())
        await store.open()
        for kind in ("lid", "chats"):
            for count in counts:
                await stored_once(store, kind, count)
        await store.close()


async def stored_once(store: AuthStore, kind: str, count: int) -> None:
    caller, name, size = Caller("default", "admin"), f"{kind}-{count}", 0
    batch: list[Row] = []
    await store.commit(caller, name, CommitRequest(creds()))
    for ktype, key_id, text in made(kind, count):
        batch.append(Row(ktype, key_id.encode(), text))
        size += len(text)
        if len(batch) == BATCH:
            await store.commit(caller, name, CommitRequest(None, batch))
            batch = []
    await store.commit(caller, name, CommitRequest(None, batch))
    batch = []
    for _ in range(3):
        with peak() as memory:
            timer = Timer()
            report = await check_session(store, caller, name)
            timer.stop()
        tell("stored", kind, count, timer, size, memory.grown, report.findings)


def tell(what: str, kind: str, count: int, timer: "Timer", size: int, grown: int, found: list[Any]) -> None:
    line = {"what": what, "kind": kind, "rows": count, "seconds": timer.wall, "processor_seconds": timer.processor}
    sizes = {"value_mb": round(size / 1e6, 1), "memory_grown_mb": round(grown / 1024, 1)}
    print(json.dumps(line | sizes | {"findings": len(found)}), flush=True)


class Timer:
    """Wall time, and this process's processor time: the one that others on the machine do not stretch."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()
        self.wall = self.processor = 0.0

    def stop(self) -> None:
        self.wall = round(time.perf_counter() - self._began[0], 3)
        self.processor = round(time.process_time() - self._began[1], 3)


class peak:
    """The most resident memory above what it was, sampled each 5 ms."""

    grown = 0

    def __enter__(self) -> "peak":
        self._before, self._stop = resident_kb(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.grown = max(self.grown, resident_kb() - self._before)


def resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def creds() -> bytes:
    """Those of a real state: pre-keys up to 812."""
    found = json.loads(STATE.read_bytes())["creds"]
    found.pop("myAppStateKeyId")
    return json.dumps(found, separators=(",", ":")).encode()


def made(kind: str, count: int) -> Rows:
    for number in range(1, PRE_KEYS + 1):
        private, public = pair()
        yield "pre-key", str(number), text({"private": buffer(private), "public": buffer(public)})
    left = count - PRE_KEYS
    yield from mappings(left // 2) if kind == "lid" else chats(left)


def mappings(pairs: int) -> Rows:
    for number in range(pairs):
        phone, lid = str(15_550_000_000 + number), str(200_000_000_000_000 + number)
        yield "lid-mapping", phone, text(lid)
        yield "lid-mapping", f"{lid}_reverse", text(phone)


def chats(rows: int) -> Rows:
    template = next(
        json.dumps(value)
        for value in json.loads(STATE.read_bytes())["keys"]["session"].values()
        if len(value["_sessions"]) == 1
    )
    senders = json.loads(STATE.read_bytes())["keys"]["sender-key"]
    sender = next(value for key_id, value in senders.items() if "0002" not in key_id.split("::")[1])
    for number in range(rows // 6):
        user, phone = 300_000_000_000_000 + number, 15_560_000_000 + number
        record, identity = session(template)
        yield "session", f"{user}_1.0", text(record)
        yield "identity-key", f"{user}_1.0", text(buffer(identity))
        yield "lid-mapping", str(phone), text(str(user))
        yield "lid-mapping", f"{user}_reverse", text(str(phone))
        yield "device-list", str(user), b'["0","7"]'
        yield "sender-key", f"120363000000001000@g.us::{user}_1::0", text(sender)


def session(template: str) -> tuple[Any, bytes]:
    """A session of its own keys, and the contact's identity key."""
    record = json.loads(template)
    (state,) = record["_sessions"].values()
    private, public = pair()
    ratchet = state["currentRatchet"]["ephemeralKeyPair"]
    address = b64(prefixed(public))
    state["_chains"][address] = state["_chains"].pop(ratchet["pubKey"])
    ratchet |= {"pubKey": address, "privKey": b64(private)}
    identity = prefixed(os.urandom(32))
    state["indexInfo"]["remoteIdentityKey"] = b64(identity)
    return record, identity


def pair() -> tuple[bytes, bytes]:
    seed = bytearray(os.urandom(32))
    seed[0] &= 248
    seed[31] = seed[31] & 127 | 64
    return bytes(seed), public_of(bytes(seed))


def buffer(data: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": b64(data)}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
