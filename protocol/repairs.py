"""Rows of other stores -> what they mean. Each repair has a name and can be switched off.

| repair | what it mends | seen in |
|---|---|---|
| `bytes` | bytes spelled otherwise than ``{"type":"Buffer","data":"<base64>"}`` at places of bytes | every store that \
does not use BufferJSON; 7.x does not read them |
| `sender-key-bytes` | the same inside sender key records, which Baileys itself writes as octets; 7.x does not read \
its own skipped message keys back | all releases |
| `lid-numbers` | a ``lid-mapping`` that is a number -> the string of its digits | scripts that copied JSON as values |
| `types` | ``pre``/``key-12`` -> ``pre-key``/``12`` and its like; the row under the real name wins over such a twin | a \
file importer that split names at the first dash |
| `sender-key-arrays` | the array form of sender key records -> the form 7.x reads | 6.17.16 and up to 6.7.18 |
| `double-json` | a value that is the JSON text of the value, as a string | drivers given text where they encode |

A repair never changes what a value means: the canonical digest before and after is the same (`protocol.digest`); of
``double-json``, that of the text inside. A repaired name must fit the real type's grammar, or the row stays unknown.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from protocol.errors import BadValue
from protocol.file_names import Exact, is_known, mangle
from protocol.file_names import parse as parse_name
from protocol.spelling import CREDS, RECORD, Leaf, Spelling, dump, parse, read, respell, spell, spelling_of, walk


class Repair(StrEnum):
    """The repairs, by the name under which they are reported and switched."""

    bytes = "bytes"
    sender_key_bytes = "sender-key-bytes"
    lid_numbers = "lid-numbers"
    types = "types"
    sender_key_arrays = "sender-key-arrays"
    double_json = "double-json"


ALL: Final = frozenset(Repair)

_SENDER_KEY: Final = "sender-key"
_LID_MAPPING: Final = "lid-mapping"
# Types whose value is a string, or may be anything: JSON text in a string is their business.
_MAY_BE_TEXT: Final = frozenset({_LID_MAPPING})


@dataclass(slots=True)
class Repaired:
    """A value as it should be stored. ``text`` is the text found when nothing had to be mended."""

    text: bytes = field(repr=False)
    repairs: frozenset[Repair] = frozenset()
    met: "Counter[Spelling]" = field(default_factory=Counter)


def real_name(ktype: str, key_id: str) -> Exact | None:
    """The key that a mis-typed row is (``pre``/``key-12``), None when it cannot be told or nothing is wrong."""
    if is_known(ktype) or ktype == CREDS:
        return None
    named = parse_name(f"{ktype}-{key_id}")
    return named if isinstance(named, Exact) else None


def mistyped(ktype: str, key_id: str) -> Exact:
    """The name that the file importer gave the key: split at the first dash of the file's name."""
    first, _, rest = mangle(f"{ktype}-{key_id}").partition("-")
    return Exact(first, rest)


def repair(ktype: str, text: bytes, enabled: frozenset[Repair] = ALL) -> Repaired:
    """A value (creds: the empty type) mended. BadValue when it cannot be a value of its type, or is nested too deep."""
    try:
        return _repaired(ktype, text, enabled)
    except RecursionError:
        raise BadValue("nested too deep") from None


def _repaired(ktype: str, text: bytes, enabled: frozenset[Repair]) -> Repaired:
    value = parse(text)
    made: set[Repair] = set()
    if Repair.double_json in enabled and isinstance(value, str) and is_known_value(ktype):
        value = _unwrapped(value, made)
    if ktype == _LID_MAPPING and type(value) is int and Repair.lid_numbers in enabled:
        value = str(value)
        made.add(Repair.lid_numbers)
    met: Counter[Spelling] = Counter()
    if ktype == _SENDER_KEY:
        value = _sender_key(value, enabled, made, met)
    else:
        respelled = respell(ktype, value, Spelling.base64, met)
        if respelled != value and Repair.bytes in enabled:
            value = respelled
            made.add(Repair.bytes)
    return Repaired(dump(value) if made else text, frozenset(made), met)


def spelled(ktype: str, text: bytes, spelling: Spelling) -> bytes:
    """A value with its bytes written as a store's own writers do; the text itself when that changes nothing, or when bytes
    of it cannot be read: who writes a value back is no judge of it."""
    value = parse(text)
    try:
        respelled = respell(ktype, value, spelling)
    except BadValue:
        return text
    return text if respelled == value else dump(respelled)


def is_known_value(ktype: str) -> bool:
    """Whether values of this type are objects or bytes, never strings."""
    return ktype == CREDS or (is_known(ktype) and ktype not in _MAY_BE_TEXT)


def _unwrapped(value: str, made: set[Repair]) -> Any:
    try:
        inside = parse(value.encode())
    except (BadValue, UnicodeEncodeError):
        return value
    if not isinstance(inside, dict | list):
        return value
    made.add(Repair.double_json)
    return inside


def _sender_key(value: Any, enabled: frozenset[Repair], made: set[Repair], met: "Counter[Spelling]") -> Any:
    if isinstance(value, list):
        if Repair.sender_key_arrays not in enabled:
            return value
        made.add(Repair.sender_key_arrays)
        return spell(dump(_new_record(value, met)), Spelling.base64)
    respelled = respell(_SENDER_KEY, value, Spelling.base64, met)
    outside = spell(read(value), Spelling.base64)
    wanted = respelled if Repair.sender_key_bytes in enabled else outside
    if respelled != outside and Repair.sender_key_bytes in enabled:
        made.add(Repair.sender_key_bytes)
    if spelling_of(value) is not Spelling.base64:
        if Repair.bytes not in enabled:
            return value
        made.add(Repair.bytes)
    return wanted


def _new_record(states: list[Any], met: "Counter[Spelling]") -> list[Any]:
    """States of the array form as ``SenderKeyRecord.deserialize`` of new releases takes them."""

    def visit(found: Any, _leaf: Leaf, pointer: str) -> Any:
        met[spelling_of(found)] += 1
        return spell(read(found, pointer), Spelling.base64)

    return [_new_state(state) for state in walk(states, RECORD, visit)]


def _new_state(state: Any) -> Any:
    if not isinstance(state, dict):
        raise BadValue("a sender key state is an object")
    keys = state.get("senderMessageKeys")
    pair = state.get("senderSigningKey")
    if not isinstance(pair, dict):
        raise BadValue("a sender key state has a signing key")
    if pair.get("private") is None:
        pair = {**pair, "private": spell(b"", Spelling.base64)}
    kept = [key for key in keys if key != {}] if isinstance(keys, list) else []
    return {**state, "senderSigningKey": pair, "senderMessageKeys": kept}
