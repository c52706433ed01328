"""What holds for every row: its size, the grammar of its id, the spelling of its bytes."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from protocol.errors import BadValue
from protocol.file_names import fits, is_known
from protocol.rules import CREDS, Finding
from protocol.spelling import CREDS as CREDS_SHAPE
from protocol.spelling import Spelling, respell, spelling_of

_KIB: Final = 1024
# Measured: own sender keys end at 446 KB, sessions of 1,000 turns at 106 KB, collections grow by 132 bytes an entry.
_MOST_BYTES: Final = {"session": 512 * _KIB, "app-state-sync-version": 16 * _KIB * _KIB}
_MOST_OTHERWISE: Final = 1024 * _KIB

_MAYBE_NUMBERS: Final = re.compile(rb'"(?:data"\s*:\s*\[|0"\s*:)')


def check_row(ktype: str, key_id: str, text: bytes) -> Iterator[Finding]:
    """Size and id of a row."""
    if len(text) > _MOST_BYTES.get(ktype, _MOST_OTHERWISE):
        yield Finding("oversized", ktype, key_id, f"{len(text)} bytes")
    if ktype != CREDS and is_known(ktype) and not fits(ktype, key_id):
        yield Finding("id-grammar", ktype, key_id)


def check_spelling(ktype: str, key_id: str, text: bytes, value: Any) -> Iterator[Finding]:
    """Bytes as lists or objects of numbers, where bytes are expected or tagged."""
    if not _MAYBE_NUMBERS.search(text) or not (ktype == CREDS or is_known(ktype)):
        return
    try:
        odd = _odd_places(ktype, value)
    except BadValue:
        return  # told by the rules of the type
    if odd:
        yield Finding("bytes-spelling", ktype, key_id, f"{odd} places")


def _odd_places(ktype: str, value: Any) -> int:
    if ktype == "sender-key":
        # Inside its bytes Baileys itself writes octets.
        return int(isinstance(value, dict) and spelling_of(value) is not Spelling.base64)
    met: Counter[Spelling] = Counter()
    respell(CREDS_SHAPE if ktype == CREDS else ktype, value, Spelling.base64, met)
    return met[Spelling.octets] + met[Spelling.indexed]
