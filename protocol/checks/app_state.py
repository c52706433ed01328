"""App-state keys and collections."""

from collections.abc import Iterator
from typing import Any, Final

from protocol.checks.context import Context
from protocol.errors import BadValue
from protocol.lthash import lthash
from protocol.records import app_state_key, collection
from protocol.rules import CREDS, Finding

KEY: Final = "app-state-sync-key"
VERSION: Final = "app-state-sync-version"


def check_key(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One key."""
    context.has_paired_keys = True
    if key_id == context.my_app_state_key:
        context.my_app_state_key_met = True
    try:
        app_state_key(value)
    except BadValue as error:
        yield Finding("app-state-key", KEY, key_id, f"{error.pointer} {error}".strip())


def check_collection(_context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One collection: its parts, and its hash against its entries."""
    try:
        found = collection(value)
    except BadValue as error:
        yield Finding("app-state-version", VERSION, key_id, f"{error.pointer} {error}")
        return
    if lthash(found.macs) != found.hash:
        yield Finding("app-state-lthash", VERSION, key_id, f"{len(found.macs)} entries")


def check_my_key(context: Context) -> Iterator[Finding]:
    """The key this device writes with must be stored."""
    if context.my_app_state_key is not None and not context.my_app_state_key_met:
        yield Finding("my-app-state-key", CREDS)
