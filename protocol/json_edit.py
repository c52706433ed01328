"""Changing members of a JSON object in its text, so that every other byte stays as it was sent."""

import json
from collections.abc import Mapping
from typing import Final

from protocol.errors import BadValue

_SPACE: Final = " \t\n\r"
_DECODER: Final = json.JSONDecoder(parse_int=float)  # values are skipped, not kept: no number is too long


def set_members(text: bytes, members: Mapping[str, int]) -> bytes:
    """The object's text with these members of its top level set to whole numbers; missing ones are put at the end.

    BadValue when the text is no object.
    """
    source = text.decode("utf-8", "surrogatepass")
    try:
        spans, end = _spans(source)
    except (ValueError, IndexError, RecursionError):
        raise BadValue("not a JSON object") from None
    parts: list[str] = []
    at = 0
    for name, start, stop in spans:
        if name in members:
            parts += (source[at:start], str(members[name]))
            at = stop
    met = {name for name, _, _ in spans}
    added = [f"{json.dumps(name)}:{number}" for name, number in members.items() if name not in met]
    comma = "," if spans and added else ""
    return "".join((*parts, source[at:end], comma, ",".join(added), source[end:])).encode("utf-8", "surrogatepass")


def _spans(source: str) -> tuple[list[tuple[str, int, int]], int]:
    """``(name, start, end)`` of every member's value, and where the last one ends or the first would begin."""
    at = _skip(source, 0)
    if source[at] != "{":
        raise ValueError
    spans: list[tuple[str, int, int]] = []
    end = at + 1
    at = _skip(source, end)
    while source[at] != "}":
        name, at = _DECODER.raw_decode(source, at)
        at = _skip(source, at)
        start = _skip(source, at + 1)
        _, end = _DECODER.raw_decode(source, start)
        spans.append((name, start, end))
        at = _skip(source, end)
        if source[at] == ",":
            at = _skip(source, at + 1)
    return spans, end


def _skip(source: str, at: int) -> int:
    while source[at] in _SPACE:
        at += 1
    return at
