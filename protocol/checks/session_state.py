"""A whole session: creds first, then its rows in any order, then what only all of them together show.

One pass; what is kept between rows is in `context.py`, so a session of any size is judged in little memory.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from protocol.checks.addresses import (
    DEVICE_LIST,
    LID_MAPPING,
    TOKEN,
    check_devices,
    check_lid_mapping,
    check_mappings,
    check_privacy_token,
)
from protocol.checks.any_row import check_row, check_spelling
from protocol.checks.app_state import KEY, VERSION, check_collection, check_key, check_my_key
from protocol.checks.context import Context, EndCheck, RowCheck
from protocol.checks.creds import check_creds, check_paired
from protocol.checks.pre_keys import check_pre_key, check_window
from protocol.checks.sender_keys import MEMORY, SENDER_KEY, check_memories, check_memory, check_sender_key
from protocol.checks.sessions import IDENTITY_KEY, SESSION, check_identity_key, check_orphans, check_session
from protocol.errors import BadValue
from protocol.json_text import parse
from protocol.rules import CREDS, Finding
from protocol.types import PRE_KEY

_ROWS: Final[dict[str, RowCheck]] = {
    PRE_KEY: check_pre_key,
    SESSION: check_session,
    IDENTITY_KEY: check_identity_key,
    SENDER_KEY: check_sender_key,
    MEMORY: check_memory,
    KEY: check_key,
    VERSION: check_collection,
    LID_MAPPING: check_lid_mapping,
    DEVICE_LIST: check_devices,
    TOKEN: check_privacy_token,
}
_ENDS: Final[tuple[EndCheck, ...]] = (
    check_paired,
    check_window,
    check_my_key,
    check_memories,
    check_mappings,
    check_orphans,
)


def check(creds: bytes | None, rows: Iterable[tuple[str, str, bytes]]) -> Iterator[Finding]:
    """Findings of a session: creds text (None: it has none) and ``(type, id, value text)`` rows. Never raises on bad data."""
    state = StateCheck()
    if creds is not None:
        yield from state.creds(creds)
    for ktype, key_id, text in rows:
        yield from state.row(ktype, key_id, text)
    yield from state.finish()


class StateCheck:
    """The same for rows that come one by one: `creds` first, where there are any, then `row` for each, then `finish`."""

    def __init__(self) -> None:
        self._context = Context()

    @property
    def highest_pre_key(self) -> int:
        """The highest id of a pre-key so far, 0 without any."""
        return self._context.pre_keys.highest

    def creds(self, text: bytes) -> Iterator[Finding]:
        """Judges the creds."""
        yield from check_row(CREDS, "", text)
        self._context.has_creds = True
        try:
            value = parse(text)
        except (ValueError, BadValue):
            value = None
        if not isinstance(value, dict):
            yield Finding("creds-unreadable", CREDS)
            return
        yield from check_creds(value, self._context)
        yield from check_spelling(CREDS, "", text, value)

    def row(self, ktype: str, key_id: str, text: bytes) -> Iterator[Finding]:
        """Judges one row. A type no release has is as good as any other."""
        self._context.rows += 1
        yield from check_row(ktype, key_id, text)
        try:
            value: Any = parse(text)
        except (ValueError, BadValue):
            yield Finding("value-unreadable", ktype, key_id)
            return
        judge = _ROWS.get(ktype)
        if judge is not None:
            yield from judge(self._context, key_id, value)
        yield from check_spelling(ktype, key_id, text, value)

    def finish(self, *, creds_lost: bool = False) -> Iterator[Finding]:
        """Judges what all rows together show. ``creds_lost``: creds are stored and could not be given."""
        if not self._context.has_creds and not creds_lost and self._context.rows:
            yield Finding("creds-missing", CREDS)
        for judge in _ENDS:
            yield from judge(self._context)
