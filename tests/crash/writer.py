"""Clients that commit and never give up: a commit without an answer is sent again, with its key, until it has one."""

import asyncio
import base64
import hashlib
import random
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .checker import UNKNOWN, Commit, History, Ref, Seen

CREDS: Ref = ("", "")
_PATIENCE_S = 20.0
_OK, _UNAVAILABLE, _MISSING = 200, 503, 404
_REFUSALS = (409, 412)
_REPLAYED = 0.05
_IMPATIENT = 0.02
_PAUSE_S = (0.0, 0.03)

Answer = tuple[int, Any]


def value_of(session: str, ref: Ref, stamp: int) -> dict[str, Any]:
    """The one value that the commit with this stamp writes there."""
    if ref == CREDS:
        key = hashlib.sha256(session.encode()).digest()
        public = {"type": "Buffer", "data": base64.b64encode(key).decode()}
        return {"n": stamp, "signedIdentityKey": {"public": public}, "nextPreKeyId": stamp, "accountSyncCounter": stamp}
    return {"n": stamp, "at": f"{session}/{ref[0]}/{ref[1]}", "pad": "x" * (stamp * 7919 % 300)}


def body_of(commit: Commit) -> dict[str, Any]:
    """The commit as it is sent."""
    keys: dict[str, dict[str, Any]] = {}
    for ktype, key_id in sorted(commit.stored - {CREDS}):
        keys.setdefault(ktype, {})[key_id] = value_of(commit.session, (ktype, key_id), commit.stamp)
    for ktype, key_id in sorted(commit.deleted):
        keys.setdefault(ktype, {})[key_id] = None
    body: dict[str, Any] = {"keys": keys}
    if CREDS in commit.stored:
        body["creds"] = value_of(commit.session, CREDS, commit.stamp)
    return body


def stamp_of(session: str, ref: Ref, value: Any) -> int:
    """Who wrote a value; UNKNOWN when it is not exactly what that commit sent."""
    stamp = value.get("n") if isinstance(value, dict) else None
    return stamp if isinstance(stamp, int) and value == value_of(session, ref, stamp) else UNKNOWN


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: its status (None: no answer) and when it ran, by the monotonic clock in seconds."""

    status: int | None
    began: float
    ended: float


@dataclass(slots=True)
class Client:
    """HTTP to the service, with everything that was asked and answered kept."""

    http: aiohttp.ClientSession
    url: str
    token: str
    history: History
    rng: random.Random
    attempts: list[Attempt] = field(default_factory=list)
    stamps: int = 0

    def stamp(self) -> int:
        """A number that no other commit has, larger than all before."""
        self.stamps += 1
        return self.stamps

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        within_s: float = _PATIENCE_S,
    ) -> Answer | None:
        """Status and JSON, or None when no whole answer came."""
        began = time.monotonic()
        status = answer = None
        try:
            async with self.http.request(
                method,
                self.url + path,
                json=body,
                headers={"Authorization": f"Bearer {self.token}", **(headers or {})},
                timeout=aiohttp.ClientTimeout(within_s),
            ) as response:
                answer = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            status = None
        self.attempts.append(Attempt(status, began, time.monotonic()))
        return None if status is None else (status, answer)

    async def pause(self) -> None:
        """Before asking again."""
        await asyncio.sleep(self.rng.uniform(0.02, 0.15))

    async def until_answered(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """The first answer that is one; some callers hang up early, as some do."""
        while True:
            within_s = self.rng.uniform(0.005, 0.06) if self.rng.random() < _IMPATIENT else _PATIENCE_S
            answered = await self.ask(method, path, body, headers, within_s)
            if answered is not None and answered[0] != _UNAVAILABLE:
                return answered
            await self.pause()

    async def deliver(
        self, commit: Commit, headers: dict[str, str] | None = None, *, may_refuse: Collection[str] = ()
    ) -> bool:
        """Whether it was applied. A refusal that is not in ``may_refuse``, or any other answer, is a fault."""
        self.history.send(commit)
        verb, what = ("PUT", "state") if commit.whole else ("POST", "commit")
        path, body = f"/v1/sessions/{commit.session}/{what}", body_of(commit)
        keyed = {"Idempotency-Key": str(uuid.UUID(int=self.rng.getrandbits(128))), **(headers or {})}
        again = 1 + (self.rng.random() < _REPLAYED)
        for _ in range(again):
            self.judge(commit, await self.until_answered(verb, path, body, keyed), may_refuse)
        return bool(commit.answers)

    def judge(self, commit: Commit, answered: Answer, may_refuse: Collection[str]) -> None:
        """Puts an answer into the history."""
        status, body = answered
        slug = str(body.get("type", "")).rpartition(":")[2] if isinstance(body, dict) else ""
        if status == _OK:
            self.history.answer(commit, body["version"])
            return
        commit.refused = slug or str(status)
        if status not in _REFUSALS or slug not in may_refuse:
            self.history.faults.append((commit.session, f"commit {commit.stamp}: {status} {slug}"))

    async def see(self, session: str, *, final: bool = False) -> None:
        """Reads a whole session into the history; when it is ``final``, as often as it takes."""
        began = self.history.tick()
        path = f"/v1/sessions/{session}/state"
        answered = await (self.until_answered("GET", path) if final else self.ask("GET", path))
        if answered is None or answered[0] == _UNAVAILABLE:
            return
        status, body = answered
        if status not in (_OK, _MISSING):
            self.history.faults.append((session, f"a read: {status} {body.get('type')}"))
        values = _stamps(session, body) if status == _OK else {}
        self.history.seen.append(Seen(session, body["version"] if status == _OK else 0, values, began, final))

    async def see_pair(self, session: str, key_id: str) -> None:
        """Reads both halves of a pair in one request."""
        asked = {"session": [key_id], "identity-key": [key_id]}
        answered = await self.ask("POST", f"/v1/sessions/{session}/keys/get", asked)
        if answered is not None and answered[0] == _OK:
            one, other = (
                stamp_of(session, (ktype, key_id), answered[1].get(ktype, {}).get(key_id, {"n": 0})) for ktype in asked
            )
            self.history.pairs.append((session, one, other))


def _stamps(session: str, state: dict[str, Any]) -> dict[Ref, int]:
    found = {
        (ktype, key_id): stamp_of(session, (ktype, key_id), value)
        for ktype, values in state["keys"].items()
        for key_id, value in values.items()
    }
    if state["creds"] is not None:
        found[CREDS] = stamp_of(session, CREDS, state["creds"])
    return found


class Writer:
    """Commits to one session until told to stop. The plain one: nothing but its keys."""

    may_refuse: Collection[str] = ()

    def __init__(self, client: Client, session: str) -> None:
        self.client = client
        self.session = session
        self.rng = random.Random(client.rng.getrandbits(64))

    async def run(self, stop: asyncio.Event) -> None:
        """Ends after the commit that was under way."""
        while not stop.is_set():
            await self.step()
            await asyncio.sleep(self.rng.uniform(*_PAUSE_S))

    async def step(self) -> None:
        await self.client.deliver(self.pair_or_batch())

    def pair_or_batch(self) -> Commit:
        """An atomic pair, or 50-200 rows with one stamp and some deletions."""
        stamp = self.client.stamp()
        if self.rng.random() < 0.75:
            key_id = f"{self.rng.randrange(8)}"
            return Commit(self.session, stamp, frozenset({("session", key_id), ("identity-key", key_id)}))
        first, count = self.rng.randrange(200), self.rng.randint(50, 200)
        rows = [("sender-key", str(n)) for n in range(first, first + count)]
        gone = {row for row in rows if self.rng.random() < 0.1}
        return Commit(self.session, stamp, frozenset(rows) - gone, frozenset(gone))


class ChainWriter(Writer):
    """Every commit names the version before it. Alone on its session, it must never be told that it is wrong."""

    version: int | None = None

    async def step(self) -> None:
        commit = self.pair_or_batch()
        await self.client.deliver(commit, _if_match(self.version))
        self.version = commit.answers[-1] if commit.answers else self.version


class ContendingWriter(Writer):
    """One of several on a session that names the version it last looked up; may come too late."""

    may_refuse = ("version-mismatch",)

    async def step(self) -> None:
        status, body = await self.client.until_answered("GET", f"/v1/sessions/{self.session}")
        version = body["version"] if status == _OK else None
        await self.client.deliver(self.pair_or_batch(), _if_match(version), may_refuse=self.may_refuse)


class LeasedWriter(Writer):
    """Commits under a lease that a rival on the same session takes over now and then."""

    epoch: int | None = None

    async def step(self) -> None:
        if self.epoch is None or self.rng.random() < 0.02:
            wanted = {"holder": f"writer-{id(self)}", "ttl_s": 5, "takeover": True}
            status, body = await self.client.until_answered("POST", f"/v1/sessions/{self.session}/lease", wanted)
            if status != _OK:
                self.client.history.faults.append((self.session, f"a lease: {status}"))
                return
            self.epoch = body["epoch"]
        headers = {"Lease-Epoch": str(self.epoch)}
        if not await self.client.deliver(self.pair_or_batch(), headers, may_refuse=("fenced",)):
            self.epoch = None
            await asyncio.sleep(self.rng.uniform(0.1, 0.5))


class CredsWriter(Writer):
    """Creds with the pre-keys they count, and at times the whole session anew."""

    def __init__(self, client: Client, session: str) -> None:
        super().__init__(client, session)
        self._kept: list[Ref] = []

    async def step(self) -> None:
        stamp = self.client.stamp()
        fresh = [("pre-key", f"{stamp}-{n}") for n in range(self.rng.randint(1, 30))]
        whole = self.rng.random() < 0.05
        spent = [] if whole else self._kept[:-60]
        commit = Commit(self.session, stamp, frozenset([CREDS, *fresh]), frozenset(spent), whole)
        await self.client.deliver(commit)
        self._kept = fresh if whole else [*self._kept[len(spent) :], *fresh]


class ManyWriter(Writer):
    """Commits of many sessions in one request, some twice in it; each of them is answered by itself."""

    def __init__(self, client: Client, sessions: Iterable[str]) -> None:
        self._writers = [Writer(client, session) for session in sessions]
        super().__init__(client, "many")

    async def step(self) -> None:
        pending: list[tuple[Commit, dict[str, Any]]] = []
        for writer in self.rng.choices(self._writers, k=self.rng.randint(1, len(self._writers))):
            commit = self.client.history.send(writer.pair_or_batch())
            key = str(uuid.UUID(int=self.rng.getrandbits(128)))
            pending.append((commit, {"session": commit.session, "idempotency_key": key, **body_of(commit)}))
        while pending:
            status, body = await self.client.until_answered(
                "POST", "/v1/commits", {"commits": [sent for _, sent in pending]}
            )
            if status != _OK:
                self.client.history.faults.append((self.session, f"a request of many: {status}"))
                return
            pending = [
                each
                for each, result in zip(pending, body["results"], strict=True)
                if not self._settled(each[0], result)
            ]
            if pending:
                await self.client.pause()

    def _settled(self, commit: Commit, result: dict[str, Any]) -> bool:
        problem = result.get("problem")
        if problem is not None and problem["status"] == _UNAVAILABLE:
            return False
        self.client.judge(commit, (_OK, result) if problem is None else (problem["status"], problem), ())
        return True


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def cast(client: Client) -> tuple[list[Writer], list[str]]:
    """The writers of a run and their sessions."""
    many = [f"many-{n}" for n in range(8)]
    writers: list[Writer] = [ManyWriter(client, many)]
    writers += [Writer(client, f"plain-{n}") for n in range(4)]
    writers += [ChainWriter(client, f"chain-{n}") for n in range(4)]
    writers += [CredsWriter(client, f"creds-{n}") for n in range(3)]
    writers += [ContendingWriter(client, "contended") for _ in range(3)]
    writers += [LeasedWriter(client, "leased") for _ in range(2)]
    return writers, [*many, *sorted({writer.session for writer in writers[1:]})]
