"""Canonical digest of a value: equal exactly when Baileys would read the same thing, however it is spelled.

What is the same: every spelling of bytes at a place of bytes; order of members; ``1.0`` and ``1``; a ``lid-mapping`` that a
copy script turned into a number; the array form of old sender key records and the form of new ones; half a character in a
display name and U+FFFD, which is what is shown of it. What differs is everything else: a byte, a member, ``null`` instead
of nothing.

Used on the text of both sides as it stands there, before and after any repair: a repair that changed a meaning would show.
Digests are of secrets and of phone numbers: compare them, never log or store one of a single value.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from protocol.errors import BadValue
from protocol.spelling import RECORD, SHAPES, Leaf, parse, read, walk, whole_characters

SIZE: Final = 32

_BYTES: Final = "\0bytes"  # no member of a value has this name: jsonb and Baileys know no NUL
_NUMBER: Final = float("nan")  # nothing that parses prints so: a number is a list that begins with it
_AS_SAID: Final = b"said"
_AS_WRITTEN: Final = b"verbatim"
_LID_MAPPING: Final = "lid-mapping"


def digest(ktype: str, text: bytes) -> bytes:
    """32 bytes of BLAKE2b over type and canonical form. BadValue when the text is no JSON, or no value of its type."""
    try:
        canonical = json.dumps(_canonical(ktype, parse(text)), sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise BadValue("nested too deep") from None
    return hashlib.blake2b(f"{ktype}\0{canonical}".encode(), digest_size=SIZE).digest()


def verbatim(ktype: str, text: bytes) -> bytes:
    """32 bytes for a value without a canonical form, equal to no `digest`: of what its JSON says, member by member and each
    number exactly, however it is printed (a jsonb prints its own text); of the text itself where that is no JSON."""
    try:
        said = json.dumps(
            whole_characters(_EXACT.decode(text.decode())), sort_keys=True, separators=(",", ":")
        ).encode()
        person = _AS_SAID
    except (ValueError, RecursionError):
        said, person = text, _AS_WRITTEN
    return hashlib.blake2b(f"{ktype}\0".encode() + said, digest_size=SIZE, person=person).digest()


def combine(members: Iterable[tuple[str, str, bytes]]) -> bytes:
    """One digest (32 bytes) over ``(type, id, digest)`` members, whatever their order."""
    whole = hashlib.blake2b(digest_size=SIZE)
    for ktype, key_id, each in sorted(members):
        for part in (ktype.encode(), key_id.encode("utf-8", "surrogatepass"), each):
            whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()


def _canonical(ktype: str, value: Any) -> Any:
    if ktype == _LID_MAPPING and type(value) is int:
        value = str(value)
    return _plain(whole_characters(walk(value, SHAPES.get(ktype, Leaf.any), _mark)))


def _mark(value: Any, leaf: Leaf, pointer: str) -> Any:
    if leaf is Leaf.record:
        return {_BYTES: _record(value, pointer)}
    try:
        return {_BYTES: read(value, pointer).hex()}
    except BadValue:
        if leaf is Leaf.bytes_or_text and isinstance(value, str):
            return value
        raise


def _record(value: Any, pointer: str) -> Any:
    """A sender key record, old form or new, as states; bytes that are no record as hexadecimal digits."""
    states = value
    if not isinstance(value, list):
        data = read(value, pointer)
        try:
            states = parse(data)
        except BadValue:
            states = None
        if not isinstance(states, list):
            return data.hex()
    return [_state(state) for state in walk(states, RECORD, _mark, pointer)]


def _state(state: Any) -> Any:
    """Old releases lose skipped message keys as ``{}`` and leave the private half out where there is none."""
    if not isinstance(state, dict):
        return state
    state = dict(state)
    keys = state.get("senderMessageKeys")
    state["senderMessageKeys"] = [key for key in keys if key != {}] if isinstance(keys, list) else []
    pair = state.get("senderSigningKey")
    if isinstance(pair, dict) and pair.get("private") is None:
        state["senderSigningKey"] = {**pair, "private": {_BYTES: ""}}
    return state


def _plain(value: Any) -> Any:
    """Numbers as JavaScript sees them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _exact(number: str) -> list[float | str]:
    """A number as its digits without zeros at either end and a power of ten: ``1.50e2``, ``150`` -> ``15e1``."""
    mantissa, _, power = number.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    short = digits.rstrip("0")
    if not short:
        return [_NUMBER, "0"]  # also where it was -0: jsonb knows one zero
    sign = "-" if number.startswith("-") else ""
    return [_NUMBER, f"{sign}{short}e{int(power or 0) - len(fraction) + len(digits) - len(short)}"]


def _no_constant(name: str) -> None:
    raise ValueError(name)


_EXACT: Final = json.JSONDecoder(parse_int=_exact, parse_float=_exact, parse_constant=_no_constant)
