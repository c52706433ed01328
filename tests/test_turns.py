"""Whose turn it is to commit to a session, and how fast it is being written: `service.store.heads` by itself."""

import asyncio
from uuid import UUID

import pytest

from service.sql.pool import Database
from service.store import heads
from service.store.heads import Heads, Line, Pace
from service.vault import MasterKeys


class Queue:
    """A line and what became of those in it."""

    def __init__(self) -> None:
        self.line = Line()
        self.entered: list[str] = []

    async def stand(self, name: str, stays: asyncio.Event) -> None:
        async with self.line:
            self.entered.append(name)
            await stays.wait()


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_first_come_first_served():
    queue, stays = Queue(), asyncio.Event()
    tasks = [asyncio.create_task(queue.stand(name, stays)) for name in "abc"]
    await ticks()
    assert queue.entered == ["a"]
    assert not queue.line.enter_now()
    stays.set()
    await asyncio.gather(*tasks)
    assert (queue.entered, queue.line.taken) == (["a", "b", "c"], False)


async def test_nobody_gets_in_between():
    """The turn goes from hand to hand: whoever asks in the moment between two is not first."""
    queue, stays = Queue(), asyncio.Event()
    assert queue.line.enter_now()
    waiting = asyncio.create_task(queue.stand("a", stays))
    await ticks()
    queue.line.leave()
    assert not queue.line.enter_now()
    stays.set()
    await waiting
    assert queue.entered == ["a"]
    assert queue.line.enter_now()


@pytest.mark.parametrize("moment", ["while it waits", "when it was just given the turn"])
async def test_one_that_is_cancelled_keeps_nobody_waiting(moment: str):
    queue, stays = Queue(), asyncio.Event()
    stays.set()
    assert queue.line.enter_now()
    first, second = (asyncio.create_task(queue.stand(name, stays)) for name in "ab")
    await ticks()
    if moment == "while it waits":
        first.cancel()
        await ticks()
        queue.line.leave()
    else:
        queue.line.leave()
        first.cancel()
    async with asyncio.timeout(5):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (queue.entered, queue.line.taken) == (["b"], False)


async def test_the_last_one_in_line_is_cancelled():
    queue, stays = Queue(), asyncio.Event()
    assert queue.line.enter_now()
    only = asyncio.create_task(queue.stand("a", stays))
    await ticks()
    only.cancel()
    await ticks()
    queue.line.leave()
    assert not queue.line.taken
    assert queue.line.enter_now()


async def test_lines_of_sessions_that_nobody_writes_are_dropped_and_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "_LINES", 10)
    known = Heads(Database("postgresql://nowhere"), MasterKeys([bytes(32)]))
    taken = [known.line(UUID(int=n)) for n in range(3)]
    for line in taken:
        assert line.enter_now()
    for n in range(100, 1000):
        line = known.line(UUID(int=n))
        assert line.enter_now()
        line.leave()
        assert known.line(UUID(int=n)) is line
        assert len(known._lines) <= 10 + 2 * len(taken)
    assert [known.line(UUID(int=n)) for n in range(3)] == taken


def paced(gaps: list[float]) -> Pace:
    now, pace = 100.0, Pace()
    for gap in gaps:
        now += gap
        pace = pace.after(now)
    return pace


def test_a_burst_is_many_commits_in_a_row_at_once():
    quick = heads._AT_ONCE_S / 2
    assert not Pace().hurried(0.0)
    first, enough = [1.0], [quick] * heads._BURST
    assert not paced([*first, *enough[1:]]).hurried(100 + 1 + quick * heads._BURST)
    burst = paced([*first, *enough])
    last = burst.last
    assert burst.hurried(last + quick)
    assert not burst.hurried(last + heads._AT_ONCE_S * 1.01)
    assert not burst.after(last + 1).hurried(last + 1)
    assert not paced([heads._AT_ONCE_S * 1.01] * 100).hurried(100 + heads._AT_ONCE_S * 101)
