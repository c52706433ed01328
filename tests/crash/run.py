"""One run: writers, a killer and onlookers; then everything is read once more."""

import asyncio
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from .checker import History
from .killer import KINDS, Kill, Killable, Killer
from .writer import Attempt, Client, cast


class Reachable(Killable, Protocol):
    """`ServiceProcess`, as far as it is needed here."""

    token: str


@dataclass(frozen=True, slots=True)
class Plan:
    """``kills`` and ``acks`` are what the run lasts for, whichever comes later; ``pause_s`` between a recovery and a kill."""

    seed: int
    kills: int
    acks: int
    kinds: Sequence[str] = KINDS
    pause_s: tuple[float, float] = (0.2, 1.2)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it."""

    plan: Plan
    history: History
    kills: list[Kill]
    attempts: list[Attempt]

    def lines(self) -> Iterator[str]:
        """What to print."""
        commits = self.history.commits
        refused = Counter(commit.refused for commit in commits if commit.refused is not None)
        replays = sum(max(0, len(commit.answers) - 1) for commit in commits)
        yield f"seed {self.plan.seed}: {len(self.kills)} kills, {self.history.acknowledged()} acknowledged commits,"
        yield f"  {replays} answered again, refused as they should be {dict(refused)}, {len(self.history.seen)} reads"
        yield f"  answers by status (None: lost) {dict(Counter(each.status for each in self.attempts))}"
        ready: defaultdict[str, list[float]] = defaultdict(list)
        for kill in self.kills:
            ready[kill.kind].append(kill.ready - kill.at)
        for kind, took in sorted(ready.items()):
            yield f"  ready after {kind}: median {statistics.median(took):.2f} s, p99 {_p99(took):.2f} s ({len(took)})"
        everything = [kill.ready - kill.at for kill in self.kills]
        if everything:
            yield f"  ready after any: median {statistics.median(everything):.2f} s, p99 {_p99(everything):.2f} s"
        yield from self._during("postgres")

    def _during(self, kind: str) -> Iterator[str]:
        """What became of requests that were under way while only this was down."""
        spans = [(kill.at, kill.ready) for kill in self.kills if kill.kind == kind]
        met = [each for each in self.attempts if any(each.began < ready and each.ended > at for at, ready in spans)]
        if met:
            longest = max(each.ended - each.began for each in met)
            yield f"  while {kind} was down: {dict(Counter(each.status for each in met))}, the longest {longest:.2f} s"


def _p99(took: Sequence[float]) -> float:
    return sorted(took)[min(len(took) - 1, int(len(took) * 0.99))]


async def run(service: Reachable, plan: Plan) -> Run:
    """Runs a plan on a service that is ready; it is left ready."""
    rng = random.Random(plan.seed)
    history = History()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        client = Client(http, service.url, service.token, history, random.Random(rng.getrandbits(64)))
        killer = Killer(service, random.Random(rng.getrandbits(64)), plan.kinds)
        writers, sessions = cast(client)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.run(stop))
            tasks.create_task(_look_on(client, sessions, stop))
            await killer.run(plan.kills, plan.pause_s)
            while history.acknowledged() < plan.acks:  # noqa: ASYNC110  a count has no event
                await asyncio.sleep(0.1)
            stop.set()
        for session in sessions:
            await client.see(session, final=True)
        return Run(plan, history, killer.kills, client.attempts)


async def _look_on(client: Client, sessions: Sequence[str], stop: asyncio.Event) -> None:
    rng = random.Random(client.rng.getrandbits(64))
    while not stop.is_set():
        session = rng.choice(sessions)
        await client.see(session)
        if not session.startswith("creds"):
            await client.see_pair(session, str(rng.randrange(8)))
        await asyncio.sleep(rng.uniform(0.02, 0.2))
