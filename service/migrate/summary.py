"""What a report says of a session, in lines for people: kinds, types, reasons and counts. Ids are in the whole report only.

Works on a session's members as they are written down (`SessionReport` as plain values), so that a run of the past is shown
like one that ends now.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from protocol.printable import printable
from protocol.repairs import Repair
from service.migrate.plan import Why

Plain = Mapping[str, Any]

_LISTED: Final = 12  # reasons of a kind, and types of a reason
_SESSIONS: Final = 20
_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")  # what may hold an id is none
_MARKS: Final = frozenset({"fingerprint"})

_REPAIRS: Final = {
    Repair.bytes: "bytes spelled as BufferJSON does",
    Repair.sender_key_bytes: "the same inside sender key records",
    Repair.lid_numbers: "a lid-mapping that is a number becomes a string",
    Repair.types: "rows under a wrong type get their real name",
    Repair.sender_key_arrays: "old sender key records take today's form",
    Repair.double_json: "JSON inside a JSON string is unwrapped",
}
_WHY: Final = {
    Why.unknown_type: "no Baileys release has this type; --keep-unknown moves it",
    Why.bad_name: "its type or id is none the service can hold",
    Why.bad_value: "its bytes cannot be read as its type needs them",
    Why.null: "JSON null, which means deleted",
    Why.superseded: "a mis-typed twin of a row that is there under its real name with another value",
    Why.conflict: "several rows claim one key with different values, and none can be told to be the real one",
    Why.expired: "past its old expiry, and --skip-expired was given",
    Why.torn: "cut off, or no JSON",
    Why.ambiguous: "a name that two keys can have",
    Why.foreign: "not part of a session",
    Why.torn_creds: "creds that are cut off or no JSON: guessing would make a new identity",
}


def summaries(sessions: Sequence[Plain], *, more: str) -> list[str]:
    """Lines for those that have anything to tell, the first twenty of them. ``more`` says where the rest is to be found."""
    told = [(each, lines) for each in sessions if (lines := summary(each))]
    shown = [line for each, lines in told[:_SESSIONS] for line in (f"{printable(each['session'])}:", *lines)]
    if len(told) > _SESSIONS:
        shown.append(f"and {len(told) - _SESSIONS} more sessions")
    return [*shown, more] if told else []


def summary(each: Plain) -> list[str]:
    """Indented lines about one session: repairs, what is set aside, what the rules find, and further facts."""
    lines = _repairs(each) + _quarantine(each) + _integrity(each.get("integrity") or ())
    differ = Counter((row["why"], row["type"]) for row in _rows(each, "differences"))
    lines += [f"  {why}: {_types(types)}" for why, types in _by(differ).items()]
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in each["facts"].items() if name not in _MARKS]
    return lines + ([f"  {', '.join(facts)}"] if facts else [])


def _repairs(each: Plain) -> list[str]:
    by_type: Mapping[str, Mapping[str, int]] = each.get("repaired") or {}
    return _bounded(
        f"  repair {kind}: {_types(by_type[kind]) if kind in by_type else count} - {_meaning(_REPAIRS, Repair, kind)}"
        for kind, count in each["repairs"].items()
    )


def _quarantine(each: Plain) -> list[str]:
    rows = _by(Counter((row["why"], row["type"]) for row in _rows(each, "quarantine")))
    return _bounded(
        f"  set aside, {why}: {_types(rows[why]) if why in rows else count} - {_meaning(_WHY, Why, why)}"
        for why, count in each["quarantined"].items()
    )


def _integrity(findings: Iterable[Plain]) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    severity, says = dict[str, str](), dict[str, str]()
    for each in findings:
        rule = each["rule"]
        counts[rule, each["type"]] += 1
        severity[rule] = each["severity"]
        says.setdefault(rule, each["message"])
    # Errors first.
    rules = sorted(_by(counts).items(), key=lambda each: severity[each[0]] != "error")
    return _bounded(f"  integrity {severity[rule]} {rule}: {_types(types)} - {says[rule]}" for rule, types in rules)


def _by(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (kind, ktype), count in counts.items():
        found.setdefault(kind, {})[ktype] = count
    return found


def _types(counts: Mapping[str, int]) -> str:
    """``9 (creds 1, session 8)``."""
    named = Counter[str]()
    for ktype, count in counts.items():
        named["creds" if not ktype else ktype if _TYPE.fullmatch(ktype) else "other"] += count
    most = named.most_common(_LISTED)
    rest = f", {len(named) - _LISTED} types more" if len(named) > _LISTED else ""
    return f"{named.total()} ({', '.join(f'{ktype} {count}' for ktype, count in most)}{rest})"


def _meaning(table: Mapping[Any, str], kinds: Any, name: str) -> str:
    """A run of another release may have had other kinds."""
    return table[kinds(name)] if name in set(kinds) else "not known to this release"


def _rows(each: Plain, name: str) -> Sequence[Plain]:
    """Rows that are listed; of a run whose details cannot be opened only a count is left."""
    rows = each.get(name)
    return rows if isinstance(rows, list) else ()


def _bounded(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    return every if len(every) <= _LISTED else [*every[:_LISTED], f"  and {len(every) - _LISTED} kinds more"]
