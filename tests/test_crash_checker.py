"""The crash test's checker: silent on a store without fault, and not on any other."""

import random
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace

import pytest
from crash.checker import UNKNOWN, Commit, History, Ref, Seen, check


def _left(commits: Iterable[Commit], values: Mapping[Ref, int] | None = None) -> dict[Ref, int]:
    """What these commits leave behind, one after the other."""
    left = dict(values or {})
    for commit in commits:
        kept = {} if commit.whole else {ref: stamp for ref, stamp in left.items() if ref not in commit.deleted}
        left = kept | dict.fromkeys(commit.stored, commit.stamp)
    return left


def _applied(history: History, read: Seen) -> list[Commit]:
    return [each for each in history.commits if each.session == read.session and each.answers]


def _good(seed: int) -> History:
    """A run of a store without fault, some commits of it refused, as the checker would see it."""
    rng = random.Random(seed)
    history = History()
    for session in ("one", "other"):
        values: dict[Ref, int] = {}
        version = 0
        for _ in range(rng.randint(20, 40)):
            stamp = history.tick() * 1000
            rows = [("sender-key", str(n)) for n in rng.sample(range(20), 10)]
            pair = [("session", "a"), ("identity-key", "a")]
            commit = Commit(session, stamp, frozenset(rows[:6] + pair), frozenset(rows[6:]), whole=rng.random() < 0.1)
            history.send(commit)
            if rng.random() < 0.2:
                commit.refused = "version-mismatch"
                continue
            version += 1
            history.answer(commit, version)
            values = _left([commit], values)
            if rng.random() < 0.5:
                history.seen.append(Seen(session, version, values, history.tick()))
        history.seen.append(Seen(session, version, values, history.tick(), final=True))
    return history


def _last(history: History, rng: random.Random) -> tuple[int, Seen, Commit]:
    """A last read, and a commit of its session whose rows it shows."""
    at, read = rng.choice([(at, read) for at, read in enumerate(history.seen) if read.final])
    shown = set(read.values.values())
    return at, read, rng.choice([each for each in history.commits if each.stamp in shown])


def _lose_one(history: History, rng: random.Random) -> None:
    at, read, lost = _last(history, rng)
    history.seen[at] = replace(read, values=_left([each for each in _applied(history, read) if each is not lost]))


def _lose_the_newest(history: History, rng: random.Random) -> None:
    at, read, _ = _last(history, rng)
    before = [each for each in history.seen if each.session == read.session and each.version < read.version]
    history.seen[at] = replace(before[-1], began=read.began, final=True)


def _lose_a_deletion(history: History, rng: random.Random) -> None:
    at, read, _ = _last(history, rng)
    applied = _applied(history, read)
    written = set().union(*(each.stored for each in applied))
    ref = min(written - read.values.keys())
    older = next(each for each in applied if ref in each.stored)
    history.seen[at] = replace(read, values={**read.values, ref: older.stamp})


def _tear(history: History, rng: random.Random) -> None:
    at, read, _ = _last(history, rng)
    history.seen[at] = replace(read, values={k: v for k, v in read.values.items() if k != ("session", "a")})


def _tear_a_pair(history: History, rng: random.Random) -> None:
    history.pairs.append(("one", 1000, 2000))


def _invent(history: History, rng: random.Random) -> None:
    at, read, _ = _last(history, rng)
    history.seen[at] = replace(read, values={**read.values, rng.choice(sorted(read.values)): UNKNOWN})


def _store_a_refused(history: History, rng: random.Random) -> None:
    at, read, _ = _last(history, rng)
    refused = rng.choice([each for each in history.commits if each.refused and each.session == read.session])
    history.seen[at] = replace(read, values={**read.values, **dict.fromkeys(refused.stored, refused.stamp)})


def _misplace(history: History, rng: random.Random) -> None:
    at, read, commit = _last(history, rng)
    history.seen[at] = replace(read, values={**read.values, ("session", "elsewhere"): commit.stamp})


def _apply_twice(history: History, rng: random.Random) -> None:
    """Once more than was answered: the versions after it are one too high."""
    at, read, _ = _last(history, rng)
    history.seen[at] = replace(read, version=read.version + 1)


def _answer_twice(history: History, rng: random.Random) -> None:
    commit = rng.choice([each for each in history.commits if each.answers])
    history.answer(commit, commit.answers[0] + 1)


def _share_a_version(history: History, rng: random.Random) -> None:
    one, other = rng.sample([each for each in history.commits if each.answers and each.session == "one"], 2)
    one.answers[:] = other.answers


def _read_the_past(history: History, rng: random.Random) -> None:
    read = next(each for each in history.seen if each.session == "one")
    history.seen.append(replace(read, began=history.tick(), final=False))


def _leave_open(history: History, rng: random.Random) -> None:
    history.send(Commit("one", history.tick() * 1000, frozenset({("session", "z")})))


_MUTATIONS: list[tuple[Callable[[History, random.Random], None], set[str]]] = [
    (_lose_one, {"lost"}),
    (_lose_the_newest, {"lost"}),
    (_lose_a_deletion, {"torn", "lost"}),
    (_tear, {"torn"}),
    (_tear_a_pair, {"torn"}),
    (_invent, {"phantom"}),
    (_store_a_refused, {"phantom"}),
    (_misplace, {"phantom"}),
    (_apply_twice, {"double"}),
    (_answer_twice, {"double"}),
    (_share_a_version, {"double"}),
    (_read_the_past, {"lost"}),
    (_leave_open, {"unanswered"}),
]


@pytest.mark.parametrize("seed", range(20))
def test_bad_histories_are_flagged(seed: int) -> None:
    good = _good(seed)
    assert check(good) == []
    for mutate, kinds in _MUTATIONS:
        bad = deepcopy(good)
        mutate(bad, random.Random(seed))
        assert kinds & {violation.kind for violation in check(bad)}, mutate.__name__
