"""What the sources share: rows kept under one name (``pre-key-12``), and the look at a value before it may be a row."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from protocol.errors import BadValue
from protocol.file_names import GRAMMAR, Ambiguous, Exact, Foreign, mangle, parse
from protocol.spelling import dump, whole_characters
from protocol.spelling import parse as parse_json
from service.migrate.source import Fault, FaultKind, Found, SourceError, SourceRow

_MAYBE_REFUSED: Final = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_REFUSED: Final = re.compile(r"[\ud800-\udfff]|(?<!\\)(?:\\\\)*\\u0000")


def put_creds(found: Found, text: bytes, where: str) -> None:
    """The creds, or a fault that keeps the session where it is: beside torn creds a client begins a new identity."""
    if found.creds is not None:
        found.faults.append(Fault(FaultKind.torn_creds, where, "a second row of creds", text))
    elif is_json(text):
        found.creds = text
    else:
        found.faults.append(Fault(FaultKind.torn_creds, where, "the creds are cut off or no JSON", text))


def put_row(found: Found, row: SourceRow) -> None:
    """A row of a known type and id, or a fault."""
    if is_json(row.text):
        found.rows.append(row)
    else:
        found.faults.append(Fault(FaultKind.torn, row.where, "a value that is cut off or no JSON", row.text))


def put_named(
    found: Found, name: str, text: bytes, where: str, *, mangled: bool, expires_at: datetime | None = None
) -> None:
    """A row under one name: a key when it can be only that one, else a fault."""
    named = parse(name, mangled=mangled)
    if isinstance(named, Exact):
        put_row(found, SourceRow(named.ktype, named.key_id, text, expires_at, where))
    elif isinstance(named, Ambiguous):
        found.faults.append(Fault(FaultKind.ambiguous, where, "a name that several keys can have", text))
    else:
        found.faults.append(Fault(FaultKind.foreign, where, "a name that no key has", text))


def name_of(ktype: str, key_id: str, *, mangled: bool) -> str:
    """The one name of a key."""
    name = f"{ktype}-{key_id}"
    return mangle(name) if mangled else name


def owner(full: str, creds: str, *, separator: str = ":", mangled: bool) -> tuple[str, str] | None:
    """``session<separator>name`` -> session and name; None when the name cannot be told from the session.

    Sessions and ids may hold the separator themselves: only a cut that leaves ``creds`` or a key's name is one.
    """
    found = [cut for cut in _cuts(full, separator) if cut[1] == creds or _is_key(cut[1], mangled=mangled)]
    return found[0] if len(found) == 1 else None


def for_jsonb(ktype: str, text: bytes) -> str:
    """The text as jsonb can hold it. SourceError, naming the kind of value, when it cannot but for a display name."""
    if not _MAYBE_REFUSED.search(text):
        return text.decode()
    value = parse_json(text)
    whole = whole_characters(value)
    if _REFUSED.search(json.dumps(whole, ensure_ascii=False)):
        raise SourceError(f"{ktype or 'creds'} hold half of a character, or NUL, and jsonb cannot: these wait")
    return text.decode() if whole == value else dump(whole).decode()


def is_json(text: bytes) -> bool:
    """Whether it is JSON text in UTF-8, as ``JSON.parse`` takes it."""
    try:
        text.decode()
        parse_json(text)
    except (UnicodeDecodeError, BadValue):
        return False
    return not text.startswith(b"\xef\xbb\xbf") and b"\0" not in text


def _cuts(full: str, separator: str) -> Iterator[tuple[str, str]]:
    at = full.find(separator, 1)  # a session has a name
    while at >= 0:
        yield full[:at], full[at + len(separator) :]
        at = full.find(separator, at + 1)


def _is_key(name: str, *, mangled: bool) -> bool:
    return name.startswith(tuple(f"{ktype}-" for ktype in GRAMMAR)) and not isinstance(
        parse(name, mangled=mangled), Foreign
    )
