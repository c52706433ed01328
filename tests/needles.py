"""Marked secrets, and the search for them in whatever the service let out.

A needle is 32 bytes (the size of a Signal key) or a word (an id, a name, a token). Every needle of a set begins and
ends with the set's mark, so a needle that was cut is still found, and one pass tells whether any is there at all.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

_MARK = 9
_BODY = 14


@dataclass(frozen=True)
class Hit:
    """A needle in the searched bytes. ``needle`` is its number, None when only its mark is known to be there."""

    form: str
    offset: int
    needle: int | None


class Needles:
    """A set of needles that depends on its seed alone: two processes can make the same set."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        # Words must pass wherever names, ids and tokens do: lower-case hexadecimal of the mark, between letters.
        self._word_mark = f"ndl{self._bytes(b'word', 6).hex()}"
        self.mark = self._bytes(b"mark", _MARK)
        self._made: dict[int, bytes] = {}

    def key(self, number: int) -> bytes:
        """Needle number ``number`` as 32 bytes."""
        made = self.mark + self._bytes(b"key%d" % number, _BODY) + self.mark
        return self._made.setdefault(number, made)

    def word(self, number: int) -> str:
        """Needle number ``number`` as 34 characters of ``[a-z0-9]``: a session, an id, a token."""
        made = f"{self._word_mark}n{number:03d}{self._word_mark}"
        self._made[number] = made.encode()
        return made

    def find_in(self, data: bytes) -> list[Hit]:
        """Every place where a needle's mark stands, in any form; the whole needle is named where all of it is there."""
        marks = [(form, pattern) for form, pattern in self._mark_forms if pattern in data]
        if not marks:
            return []
        whole = [
            Hit(form, offset, number)
            for number, raw in self._made.items()
            for form, pattern in forms(raw)
            for offset in _places(data, pattern)
        ]
        cut = [Hit(form, offset, None) for form, pattern in marks for offset in _places(data, pattern)]
        return [*whole, *cut]

    def is_in(self, data: bytes) -> bool:
        """Whether any needle, or a piece of one, stands anywhere in any form."""
        return any(pattern in data for _, pattern in self._mark_forms)

    @cached_property
    def _mark_forms(self) -> list[tuple[str, bytes]]:
        return [*forms(self.mark), *forms(self._word_mark.encode())]

    def _bytes(self, label: bytes, length: int) -> bytes:
        made = hashlib.shake_256(self._seed + b"/" + label).digest(length)
        # Some bytes that no text encoding leaves alone, so that every escaped form differs from the raw one.
        return b"\x00\xff\\\n"[: max(0, length - 5)] + made[4:] if label == b"mark" else made


def forms(raw: bytes) -> list[tuple[str, bytes]]:
    """What these bytes look like wherever they may surface, each form once; short ends of base64 are left off."""
    python = repr(raw)[2:-1]
    text = raw.decode("latin-1")
    listed = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "hex escapes": "".join(f"\\x{byte:02x}" for byte in raw).encode(),
        "python repr": python.encode(),
        "python repr in JSON": json.dumps(python)[1:-1].encode(),
        "python repr in JSON in JSON": json.dumps(json.dumps(python)[1:-1])[1:-1].encode(),
        "text repr": repr(text)[1:-1].encode(),
        "latin-1 text": text.encode(),
        "JSON escapes": json.dumps(text)[1:-1].encode(),
        "JSON escapes, UTF-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "number list": ", ".join(map(str, raw)).encode(),
        "compact number list": ",".join(map(str, raw)).encode(),
        "URL escapes": quote(raw, safe="").encode(),
        "octal escapes": "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\{b:03o}" for b in raw).encode(),
    }
    for shift in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            listed[f"{name} at {shift}"] = _inside_base64(encode(b"\0" * shift + raw), shift, len(raw))
    unique: dict[bytes, str] = {}
    for form, pattern in listed.items():
        unique.setdefault(pattern, form)
    return [(form, pattern) for pattern, form in unique.items()]


def _inside_base64(encoded: bytes, shift: int, length: int) -> bytes:
    """The characters that these bytes alone decide, whatever stands before and after them."""
    first = -(-shift * 8 // 6)
    return encoded[first : (shift + length) * 8 // 6]


def _places(data: bytes, pattern: bytes) -> list[int]:
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found
