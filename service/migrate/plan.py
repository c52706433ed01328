"""What a source's rows mean and what will become of each. Pure: found rows in, a plan out.

Every row and fault of the source ends in exactly one place: a key of the plan, a twin of one (same meaning under a mangled
name), or the quarantine with a reason. `SessionPlan.accounted` says so in numbers.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from protocol.digest import combine, digest, verbatim
from protocol.errors import BadName, BadValue
from protocol.file_names import is_known
from protocol.repairs import ALL, Repair, Repaired, real_name, repair
from protocol.spelling import CREDS
from protocol.types import check_id, check_session_name, check_type
from service.migrate.source import Fault, FaultKind, Found, SourceRow

Name = tuple[str, str]
"""Type and id of a key; ``("", "")`` for creds."""

CREDS_NAME: Final[Name] = (CREDS, "")


class Why(StrEnum):
    """Why something is not moved."""

    unknown_type = "unknown-type"  # no Baileys release has this type; --keep-unknown moves it
    bad_name = "bad-name"  # type or id outside what the service can hold
    bad_value = "bad-value"  # its bytes cannot be read as the type needs them
    null = "null"  # JSON null, which means "deleted" everywhere
    superseded = "superseded"  # a mis-typed twin of a key that is there under its real name, with another value
    conflict = "conflict"  # several rows claim one key with different values and none has its real name
    expired = "expired"  # past its old expiry, and --skip-expired says to leave it
    torn = FaultKind.torn.value
    ambiguous = FaultKind.ambiguous.value
    foreign = FaultKind.foreign.value
    torn_creds = FaultKind.torn_creds.value


class Blocked(StrEnum):
    """Why a whole session is not moved."""

    torn_creds = "torn-creds"
    no_creds = "no-creds"  # keys without creds: a client would begin a new identity beside them
    bad_creds = "bad-creds"
    bad_name = "bad-name"  # the service cannot have a session of this name: give one with --map
    name_taken = "name-taken"  # another session of this source has the same name here
    unreadable = "unreadable"  # it changes too fast, or its part of the source is damaged; `why` says it


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose. ``names``: a session's name at the source -> its name here.

    ``verbatim``: for what came from here. A value that cannot be read as its type's goes as it is, and a session may have no
    creds.
    """

    repairs: frozenset[Repair] = ALL
    keep_unknown: bool = False
    skip_expired: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it will be stored. ``digest`` is of the text as the source has it."""

    text: bytes = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that is not moved. Type and id as found; ``raw`` is what stands at the source."""

    why: Why
    ktype: str
    key_id: str = field(repr=False)
    where: str = field(repr=False)
    raw: bytes | None = field(repr=False)


@dataclass(slots=True)
class SessionPlan:
    """One session: its keys as they will be, and everything that was found on the way. ``why``: more about ``blocked``."""

    source_name: str
    name: str
    keys: dict[Name, Key] = field(default_factory=dict, repr=False)
    found: int = 0
    twins: int = 0
    expired: int = 0
    spellings: "Counter[str]" = field(default_factory=Counter)
    repairs: "Counter[tuple[str, str]]" = field(default_factory=Counter)  # by repair and type
    quarantine: list[Quarantined] = field(default_factory=list, repr=False)
    blocked: Blocked | None = None
    why: str = ""

    @property
    def not_moved(self) -> str:
        """What keeps it from being moved, in words."""
        return self.why or str(self.blocked)

    @property
    def creds(self) -> bytes | None:
        key = self.keys.get(CREDS_NAME)
        return None if key is None else key.text

    @property
    def rows(self) -> Iterable[tuple[str, str, bytes]]:
        """Every key but the creds: type, id, text."""
        return ((ktype, key_id, key.text) for (ktype, key_id), key in self.keys.items() if ktype != CREDS)

    @property
    def by_type(self) -> dict[str, int]:
        counts = Counter(ktype for ktype, _ in self.keys if ktype != CREDS)
        return dict(sorted(counts.items()))

    @property
    def digests(self) -> dict[Name, bytes]:
        """Canonical digests of creds and every key."""
        return {name: key.digest for name, key in self.keys.items()}

    @property
    def digest(self) -> bytes:
        """One digest over creds and every key."""
        return combine((ktype, key_id, key.digest) for (ktype, key_id), key in self.keys.items())

    @property
    def accounted(self) -> bool:
        """Whether every row and fault found is a key, a twin or in the quarantine."""
        return self.found == len(self.keys) + self.twins + len(self.quarantine)


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: SourceRow
    real: bool
    key: Key


def plan_session(
    session: str, found: Found, options: Options, now: datetime, ours: Collection[Name] = ()
) -> SessionPlan:
    """The plan of one session. ``now``: rows with an earlier expiry count as expired.

    ``ours``: keys that live here and were written back. A row of such a name is that key, whatever its type or old expiry.
    """
    plan = SessionPlan(session, options.names.get(session, session))
    plan.found = len(found.rows) + len(found.faults) + (found.creds is not None)
    _take_creds(plan, found, options)
    for fault in found.faults:
        plan.quarantine.append(_from_fault(fault))
    candidates: dict[Name, list[_Candidate]] = {}
    by_name = replace(
        options, repairs=options.repairs - {Repair.types}, keep_unknown=True, skip_expired=False, verbatim=True
    )
    for row in found.rows:
        _take_row(plan, row, by_name if (row.ktype, row.key_id) in ours else options, now, candidates)
    for name, rivals in candidates.items():
        _settle(plan, name, rivals)
    plan.blocked = plan.blocked or _blocked(plan, options)
    return plan


def taken_names(plans: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Names here that several sessions of the source (``(source name, name here)``) would have."""
    claims: dict[str, list[str]] = {}
    for source_name, name in plans:
        claims.setdefault(name, []).append(source_name)
    return {name: sources for name, sources in claims.items() if len(sources) > 1}


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of sessions that may be one tenant under two names: ``<id>`` beside ``company_<id>``."""
    every = set(names)
    return sorted((name, f"company_{name}") for name in every if f"company_{name}" in every)


def _take_creds(plan: SessionPlan, found: Found, options: Options) -> None:
    if found.creds is None:
        return
    try:
        mended, key = _mended(CREDS, found.creds, options)
    except BadValue:
        mended, key = None, None
    if mended is None or key is None or not mended.text.lstrip().startswith(b"{"):
        plan.blocked = Blocked.bad_creds
        plan.quarantine.append(Quarantined(Why.bad_value, CREDS, "", "creds", found.creds))
        return
    plan.keys[CREDS_NAME] = key
    _count(plan, CREDS, mended)


def _take_row(
    plan: SessionPlan, row: SourceRow, options: Options, now: datetime, candidates: dict[Name, list[_Candidate]]
) -> None:
    named = real_name(row.ktype, row.key_id) if Repair.types in options.repairs else None
    ktype, key_id = (row.ktype, row.key_id) if named is None else (named.ktype, named.key_id)
    expired = row.expires_at is not None and row.expires_at < now
    plan.expired += expired
    why = _unfit(ktype, key_id, row, options) or (Why.expired if expired and options.skip_expired else None)
    if why is None:
        try:
            mended, key = _mended(ktype, row.text, options)
            candidate = _Candidate(row, named is None, key)
        except BadValue:
            why = Why.bad_value
    if why is not None:
        plan.quarantine.append(_from_row(why, row))
        return
    candidates.setdefault((ktype, key_id), []).append(candidate)
    _count(plan, ktype, mended)
    if named is not None:
        plan.repairs[Repair.types.value, ktype] += 1


def _unfit(ktype: str, key_id: str, row: SourceRow, options: Options) -> Why | None:
    try:
        check_type(ktype)
        check_id(key_id)
    except BadName:
        return Why.bad_name
    if not is_known(ktype) and not options.keep_unknown:
        return Why.unknown_type
    return Why.null if row.text.strip() == b"null" else None


def _mended(ktype: str, found: bytes, options: Options) -> tuple[Repaired, Key]:
    try:
        mended = repair(ktype, found, options.repairs)
        return mended, _key(ktype, found, mended)
    except BadValue:
        if not options.verbatim:
            raise
    return Repaired(found), Key(found, verbatim(ktype, found))


def _key(ktype: str, found: bytes, mended: Repaired) -> Key:
    """BadValue also when a repair changed what the value means: then the repair is wrong, and the row is not moved."""
    after = digest(ktype, mended.text)
    if Repair.double_json not in mended.repairs and mended.text is not found and digest(ktype, found) != after:
        raise BadValue("a repair would change the value")
    return Key(mended.text, after)


def _settle(plan: SessionPlan, name: Name, rivals: list[_Candidate]) -> None:
    """One row under its real name wins; without one all must mean the same."""
    real = [rival for rival in rivals if rival.real]
    chosen = (real or rivals)[0]
    if any(rival.key.digest != chosen.key.digest for rival in real or rivals):
        plan.quarantine += [_from_row(Why.conflict, rival.row) for rival in rivals]
        return
    plan.keys[name] = chosen.key
    for rival in rivals:
        if rival is chosen:
            continue
        if rival.key.digest == chosen.key.digest:
            plan.twins += 1
        else:
            plan.quarantine.append(_from_row(Why.superseded, rival.row))


def _blocked(plan: SessionPlan, options: Options) -> Blocked | None:
    try:
        check_session_name(plan.name)
    except BadName:
        return Blocked.bad_name
    if any(each.why is Why.torn_creds for each in plan.quarantine):
        return Blocked.torn_creds
    return Blocked.no_creds if plan.creds is None and not options.verbatim else None


def _count(plan: SessionPlan, ktype: str, mended: Repaired) -> None:
    plan.spellings.update({spelling.value: count for spelling, count in mended.met.items()})
    plan.repairs.update((made.value, ktype) for made in mended.repairs)


def _from_row(why: Why, row: SourceRow) -> Quarantined:
    return Quarantined(why, row.ktype, row.key_id, row.where, row.text)


def _from_fault(fault: Fault) -> Quarantined:
    return Quarantined(Why(fault.kind.value), "", "", fault.where, fault.raw)
