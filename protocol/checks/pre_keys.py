"""Pre-keys, and the window that the counters of the creds open: ``firstUnuploadedPreKeyId <= id < nextPreKeyId`` waits for its
upload, everything below may have been used. Gaps are used pre-keys and normal.
"""

from collections.abc import Iterator
from typing import Any, Final

from protocol.checks.context import Context
from protocol.curve import check_pair, is_clamped
from protocol.errors import BadKeyPair, BadValue
from protocol.pre_key import MOST_ID
from protocol.records import key_pair
from protocol.rules import CREDS, Finding
from protocol.types import PRE_KEY

_ID_DIGITS: Final = 8  # more do not fit the grammar: told by it


def check_pre_key(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One pre-key."""
    if key_id.isascii() and key_id.isdigit() and len(key_id) <= _ID_DIGITS:
        if int(key_id) <= MOST_ID:
            _remember(context, int(key_id))
        else:
            yield Finding("pre-key-id", PRE_KEY, key_id)
    try:
        private, public = key_pair(value)
        check_pair(private, public)
    except BadKeyPair:
        yield Finding("pre-key-pair", PRE_KEY, key_id)
    except BadValue as error:
        yield Finding("pre-key-unreadable", PRE_KEY, key_id, f"{error.pointer} {error}".strip())
    else:
        if not is_clamped(private):
            yield Finding("key-unclamped", PRE_KEY, key_id)


def _remember(context: Context, number: int) -> None:
    met = context.pre_keys
    met.count += 1
    met.highest = max(met.highest, number)
    if context.next_pre_key is None:
        return
    met.newest_met = met.newest_met or number == context.next_pre_key - 1
    if context.first_unuploaded is not None and context.first_unuploaded <= number < context.next_pre_key:
        met.waiting += 1


def check_window(context: Context) -> Iterator[Finding]:
    """All pre-keys against the counters. Nothing is said where a counter is missing: that is told already."""
    met, following, first = context.pre_keys, context.next_pre_key, context.first_unuploaded
    if following is None:
        return
    if met.count and met.highest >= following:
        detail = f"the highest is {met.highest}, nextPreKeyId is {following}"
        yield Finding("pre-key-beyond-counter", CREDS, detail=detail)
        return
    waiting = 0 if first is None else following - max(first, 1)
    if waiting < 0:
        yield Finding("first-unuploaded-beyond-next", CREDS, detail=f"{first} and {following}")
    if not met.count:
        if following > 1:
            yield Finding("pre-keys-gone", CREDS, detail=f"nextPreKeyId is {following}")
    elif met.waiting < waiting:
        yield Finding("unuploaded-missing", CREDS, detail=f"{waiting - met.waiting} of {waiting}")
    elif not met.newest_met:
        yield Finding("pre-key-newest-missing", PRE_KEY, str(following - 1))
