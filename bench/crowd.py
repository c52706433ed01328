"""What a transaction of w8 takes as CPU time with the service's part alone and warm, against what goals leave.

| part | what it is |
|---|---|
| Node | the client and its codec, as they are in w8 |
| edge | a body as long as a request's through aiohttp, beside a question to the database that is not counted |
| service | a request's commits read, judged, sealed, stored and become rows, in a loop: no edge, nobody else on the core |
| database | its backends, as they are in w8 |

Node and the database are what `budgets` saw of the service as shipped, in the same run.
"""

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from bench import cpu
from bench.budget_report import SHIPPED, busy
from bench.figures import GOALS, Goal
from bench.inside import Inside, Keys, Texts, body_of, runner
from bench.servers.nothing import Nothing
from bench.servers.postgres import Postgres, season
from bench.side_by_side import CROWD
from bench.stores import DIRECT
from bench.worker import PARTS, Worker

UNDER_WAY: Final = 2
"""Requests that the client has under way with so many sessions (`SMALL_BATCH` of its commit line)."""
_REQUESTS: Final = 100  # a pass
_ANSWER: Final = 30  # bytes a commit


def measure(folder: Path, say: Callable[[str], None], *, rounds: int = 5, tiny: bool = False) -> dict[str, float]:
    """``edge`` and ``service``: µs of CPU a transaction, the least of the passes; for JSON."""
    n, passes = (2, 1) if tiny else (_REQUESTS, 2 * rounds)
    with Postgres(folder) as postgres, Worker(folder / "parts.log", PARTS) as parts, runner() as loop:
        if not tiny:
            season(postgres.sql)
        texts = parts.ask("values")
        crowd = Crowd(postgres.database("crowd"), texts)
        with Nothing(postgres.database("framework")) as framework:
            loop.run(crowd.open())
            try:
                edges, services = [], []
                for number in range(1 + passes):
                    say(f"a crowd's parts: pass {number}" if number else "a crowd's parts: warming up")
                    asked = loop.run(crowd.asking(n))
                    edges.append(_through(framework, parts, crowd.body_bytes, n) - asked)
                    services.append(loop.run(crowd.committing(n)))
            finally:
                loop.run(crowd.close())
    return {"edge": max(0.0, min(edges[1:])) / crowd.batch, "service": min(services[1:]) / crowd.batch}


class Crowd:
    """The sessions of w8, of which as many commit together as a request has."""

    batch = CROWD // UNDER_WAY

    def __init__(self, url: str, texts: Texts) -> None:
        self._inside = Inside(url, texts, secrets.token_bytes(32))
        self._texts = texts
        self._names = [f"crowd-{n}" for n in range(self.batch)]
        self._versions = dict.fromkeys(self._names, 0)
        self._turn = 0

    @property
    def body_bytes(self) -> int:
        """Of one request."""
        return len(self._body())

    async def open(self) -> None:
        """Makes the sessions: a lease, creds, and what else a commit finds there."""
        await self._inside.open()
        for name in self._names:
            await self._inside.lease(name)
        await self._commit(self._body(str(self._texts["creds"])))

    async def close(self) -> None:
        await self._inside.close()

    async def asking(self, n: int) -> float:
        """CPU time in µs of a question to the database that asks for nothing."""
        began = time.process_time_ns()
        await self._inside.nothing(n)
        return (time.process_time_ns() - began) / 1000 / n

    async def committing(self, n: int) -> float:
        """CPU time in µs of a request's commits, until they are rows."""
        spent = 0
        for _ in range(n):
            body = self._body()
            began = time.process_time_ns()
            await self._commit(body)
            spent += time.process_time_ns() - began
        began = time.process_time_ns()
        await self._inside.settle()
        return (spent + time.process_time_ns() - began) / 1000 / n

    async def _commit(self, body: bytes) -> None:
        for name, version in zip(self._names, await self._inside.commit_many(body), strict=True):
            self._versions[name] = version

    def _body(self, creds: str | None = None) -> bytes:
        """As the client puts it together: each session moves on, and a pre-key is used up."""
        self._turn += 1
        texts: Sequence[str] = self._texts["sessions"]
        text = texts[self._turn % len(texts)]
        keys: Keys = {"session": {"15551000000.0": text}, "pre-key": {str(100_000 + self._turn): None}}
        members = body_of(keys, creds).decode()[1:]
        return ('{"commits":[' + ",".join(self._steered(name) + members for name in self._names) + "]}").encode()

    def _steered(self, name: str) -> str:
        version = self._versions[name]
        return f'{{"session":"{name}","lease_epoch":1,"if_match":{version},"idempotency_key":"{uuid4()}",'


def _through(framework: Nothing, parts: Worker, sent: int, n: int) -> float:
    """CPU time in µs of the framework's process, a request."""
    before = cpu.spent([framework.pid])
    parts.ask("hop", url=framework.url, sent=sent, received=_ANSWER * Crowd.batch, n=n)
    return cpu.between(before, cpu.spent([framework.pid])) / 1000 / n


def markdown(parts: Mapping[str, float], arms: Mapping[str, Any], stores: Mapping[str, Any]) -> str:
    """The parts beside what goals leave; ``arms`` as `budgets` has them, ``stores`` as `hollow` has them."""
    spent = arms[SHIPPED]["cpu_us"]
    values = (spent["node"], parts["edge"], parts["service"], spent["database"])
    cells = " | ".join(f"{us:.0f}" for us in values)
    costs = f"{cells} | **{sum(values):.0f}** | {sum(spent.values()):.0f}"
    goals = [goal for goal in GOALS if goal.workload == "w8" and goal.measure == "per_second" and goal.rival in stores]
    return "\n".join(
        [
            "| of w8, µs of CPU a transaction | leaves, if no core waits | if cores wait as with `direct` | Node | edge "
            "| service | database | these together | ours |",
            "|---|---|---|---|---|---|---|---|---|",
            *(f"| {goal.bound:g} × `{goal.rival}` | {_left(goal, arms, stores)} | {costs} |" for goal in goals),
        ]
    )


def _left(goal: Goal, arms: Mapping[str, Any], stores: Mapping[str, Any]) -> str:
    """What all cores together have for a transaction at the goal's rate. `direct` ran beside the arms and beside the rival."""
    direct = arms[DIRECT]
    rival = direct["per_second"] * stores[goal.rival]["per_second"] / stores[DIRECT]["per_second"]
    left = (os.cpu_count() or 1) * 1_000_000 / (goal.bound * rival)
    return f"{left:.0f} | {left * busy(direct):.0f}"
