"""The history of a run and its judge. Pure: it knows neither HTTP nor how anything was stored.

A store that keeps its promise behaves, session by session, like one list of commits: the n-th applied commit answers
version n, and whoever reads at version n sees exactly what the first n left behind. `check` replays that list beside
everything that was answered and seen; what differs is

- ``lost``: an acknowledged commit that is not there, or a read older than what was acknowledged before it began
- ``torn``: a part of a commit
- ``phantom``: something nobody sent, or that was refused
- ``double``: one commit with two versions, two with one, or versions that no commit answers to
- ``unanswered``, ``fault``: a commit without an answer at the end; an answer that must not be
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Ref = tuple[str, str]
"""``(type, id)``; creds are ``("", "")``."""

Kind = Literal["lost", "torn", "phantom", "double", "unanswered", "fault"]

UNKNOWN = -1
"""The stamp of a value that no commit can have written."""


@dataclass(frozen=True, slots=True)
class Violation:
    kind: Kind
    session: str
    says: str


@dataclass(slots=True, eq=False)
class Commit:
    """One distinct commit, however often it was sent. ``stamp`` is unique in the run and in every value it writes.

    ``answers``: the versions it was answered, one for every answer. ``acked_at``: the history's tick at the first one.
    """

    session: str
    stamp: int
    stored: frozenset[Ref]
    deleted: frozenset[Ref] = frozenset()
    whole: bool = False
    answers: list[int] = field(default_factory=list)
    acked_at: int | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole session as it was read at ``version``; ``values``: the stamp of each. ``began``: the tick before."""

    session: str
    version: int
    values: Mapping[Ref, int]
    began: int
    final: bool = False


@dataclass(slots=True)
class History:
    """Everything that was sent, answered and seen."""

    commits: list[Commit] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    pairs: list[tuple[str, int, int]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    ticks: int = 0

    def tick(self) -> int:
        """A moment: what has a smaller number was over before."""
        self.ticks += 1
        return self.ticks

    def send(self, commit: Commit) -> Commit:
        """A commit about to be sent for the first time."""
        self.commits.append(commit)
        return commit

    def answer(self, commit: Commit, version: int) -> None:
        """The service said yes."""
        commit.answers.append(version)
        if commit.acked_at is None:
            commit.acked_at = self.tick()

    def acknowledged(self) -> int:
        """How many distinct commits were answered."""
        return sum(bool(commit.answers) for commit in self.commits)


def check(history: History) -> list[Violation]:
    """What is wrong with a finished run: nothing is under way any more, and every session was seen once with ``final``."""
    found = [Violation("fault", session, says) for session, says in history.faults]
    found += [
        Violation("torn", name, f"a pair of {one} and {other}") for name, one, other in history.pairs if one != other
    ]
    commits: defaultdict[str, list[Commit]] = defaultdict(list)
    seen: defaultdict[str, list[Seen]] = defaultdict(list)
    for commit in history.commits:
        commits[commit.session].append(commit)
    for read in history.seen:
        seen[read.session].append(read)
    for session in sorted(commits.keys() | seen.keys()):
        found += _check_answers(session, commits[session])
        found += _check_versions(session, commits[session], seen[session])
        found += _check_values(session, commits[session], seen[session])
    return found


def _check_answers(session: str, commits: Sequence[Commit]) -> Iterator[Violation]:
    """Every commit has one answer, however often it was given."""
    for commit in commits:
        if not commit.answers and commit.refused is None:
            yield Violation("unanswered", session, f"commit {commit.stamp}")
        if len(set(commit.answers)) > 1:
            yield Violation("double", session, f"commit {commit.stamp} was answered versions {set(commit.answers)}")
        if commit.answers and commit.refused is not None:
            yield Violation("double", session, f"commit {commit.stamp} was applied and refused ({commit.refused})")


def _check_versions(session: str, commits: Sequence[Commit], seen: Sequence[Seen]) -> Iterator[Violation]:
    """The acknowledged commits are the versions 1 to the last, and no read is older than what was acknowledged before."""
    answered = Counter(commit.answers[0] for commit in commits if commit.answers)
    for version, times in answered.items():
        if times > 1:
            yield Violation("double", session, f"{times} commits were answered version {version}")
    newest = max(answered, default=0)
    missing = set(range(1, newest + 1)) - answered.keys()
    if missing:
        yield Violation("double", session, f"no commit answers to versions {sorted(missing)[:5]}")
    finals = [read for read in seen if read.final]
    if len(finals) != 1:
        yield Violation("fault", session, f"{len(finals)} last reads")
    for read in finals:
        if read.version > newest:
            yield Violation(
                "double", session, f"stands at {read.version}, and {newest} is the last acknowledged version"
            )
    acked = sorted((commit.acked_at, commit.answers[0]) for commit in commits if commit.acked_at is not None)
    at = known = 0
    for read in sorted(seen, key=lambda read: read.began):
        while at < len(acked) and acked[at][0] < read.began:
            known = max(known, acked[at][1])
            at += 1
        if read.version < known:
            yield Violation("lost", session, f"version {known} was acknowledged, then {read.version} was read")


class _Replay:
    """What a session must hold after its first n commits. ``made``: who wrote or removed each ref last."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._commits = sorted((each for each in commits if each.answers), key=lambda each: each.answers[0])
        self._at = 0
        self.values: dict[Ref, int] = {}
        self.made: dict[Ref, int] = {}

    def advance(self, version: int) -> None:
        """Goes on to the last commit of this version."""
        while self._at < len(self._commits) and self._commits[self._at].answers[0] <= version:
            commit = self._commits[self._at]
            gone = self.values.keys() - commit.stored if commit.whole else self.values.keys() & commit.deleted
            for ref in gone:
                del self.values[ref]
            self.values |= dict.fromkeys(commit.stored, commit.stamp)
            self.made |= dict.fromkeys([*commit.stored, *gone], commit.stamp)
            self._at += 1


def _check_values(session: str, commits: Sequence[Commit], seen: Sequence[Seen]) -> Iterator[Violation]:
    """Each read shows what the commits up to its version left, all of it and nothing else."""
    replay = _Replay(commits)
    by_stamp = {commit.stamp: commit for commit in commits}
    for read in sorted(seen, key=lambda read: read.version):
        replay.advance(read.version)
        if replay.values != read.values:
            yield from _explain(read, replay, by_stamp)


def _explain(read: Seen, replay: _Replay, by_stamp: Mapping[int, Commit]) -> Iterator[Violation]:
    where = f"read at version {read.version}"
    wrong = {ref for ref in replay.values.keys() | read.values.keys() if replay.values.get(ref) != read.values.get(ref)}
    for ref in wrong & read.values.keys():
        stamp, commit = read.values[ref], by_stamp.get(read.values[ref])
        if commit is None:
            yield Violation("phantom", read.session, f"{where}: nobody sent {stamp}")
        elif not commit.answers:
            yield Violation("phantom", read.session, f"{where}: {stamp} was not acknowledged ({commit.refused})")
        elif commit.answers[0] > read.version:
            yield Violation("torn", read.session, f"{where}: {stamp} is of version {commit.answers[0]}")
        elif ref not in replay.made:
            yield Violation("phantom", read.session, f"{where}: {stamp} where it was not sent to")
    made: defaultdict[int, set[Ref]] = defaultdict(set)
    for ref, stamp in replay.made.items():
        made[stamp].add(ref)
    for stamp in {replay.made[ref] for ref in wrong & replay.made.keys()}:
        # A deletion proves little: a later one of the same row hides that it is missing.
        telling = {ref for ref in made[stamp] if ref in replay.values} or made[stamp]
        kind: Kind = "lost" if telling <= wrong else "torn"
        yield Violation(
            kind, read.session, f"{where}: {len(made[stamp] & wrong)} of {len(made[stamp])} rows of {stamp}"
        )
