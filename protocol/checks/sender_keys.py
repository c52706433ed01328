"""Sender keys, and who is said to have one's own."""

from collections.abc import Iterator
from typing import Any, Final

from protocol.checks.context import Context
from protocol.curve import check_pair, is_clamped
from protocol.errors import BadKeyPair, BadValue
from protocol.records import has_members
from protocol.rules import Finding
from protocol.sender_key import (
    MOST_STATES,
    chain_iteration,
    check_key_id,
    message_keys,
    parse_name,
    parse_record,
    signing_key,
)

SENDER_KEY: Final = "sender-key"
MEMORY: Final = "sender-key-memory"

_MANY_KEYS: Final = 500


def check_sender_key(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One record. A record of one's own that has no state yet counts as none: the full one may stand under another name."""
    name = parse_name(key_id)
    mine = name is not None and context.is_mine(name.user, name.device)
    try:
        record = parse_record(value)
    except BadValue as error:
        if name is not None and mine and value is not None:
            context.groups.own.add(name.group)  # told by its own rule
        yield Finding("sender-key-unreadable", SENDER_KEY, key_id, str(error))
        return
    if name is not None and mine and record.states:
        context.groups.own.add(name.group)
    if record.array:
        yield Finding("sender-key-legacy", SENDER_KEY, key_id)
    if len(record.states) > MOST_STATES:
        yield Finding("sender-key-states", SENDER_KEY, key_id, f"{len(record.states)} states")
    for number, state in enumerate(record.states, 1):
        yield from _state(context, key_id, state, mine=mine, where=f"state {number} of {len(record.states)}")


def check_memory(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One group's list of who has one's sender key."""
    try:
        if has_members(value):
            context.groups.told.append(key_id)
    except BadValue as error:
        yield Finding("sender-key-memory-unreadable", MEMORY, key_id, str(error))


def check_memories(context: Context) -> Iterator[Finding]:
    """Groups that are said to have a key which is gone."""
    if not context.me:
        return
    for group in context.groups.told:
        if group not in context.groups.own:
            yield Finding("sender-key-memory-stale", MEMORY, group)


def _state(context: Context, key_id: str, state: Any, *, mine: bool, where: str) -> Iterator[Finding]:
    def bad(rule: str, error: BadValue) -> Finding:
        return Finding(rule, SENDER_KEY, key_id, f"{where}: {error.pointer} {error}")

    try:
        check_key_id(state)
    except BadValue as error:
        yield bad("sender-key-unreadable", error)
        return
    try:
        iteration = chain_iteration(state)
    except BadValue as error:
        yield bad("sender-key-chain", error)
    else:
        yield from _message_keys(key_id, state, iteration, mine=mine, where=where)
    try:
        private, public = signing_key(state)
        if private:
            check_pair(private, public)
    except BadKeyPair:
        yield Finding("sender-key-pair", SENDER_KEY, key_id, where)
    except BadValue as error:
        yield bad("sender-key-pair", error)
    else:
        yield from _owner(context, key_id, private, mine=mine, where=where)


def _owner(context: Context, key_id: str, private: bytes, *, mine: bool, where: str) -> Iterator[Finding]:
    if private and not is_clamped(private):
        yield Finding("key-unclamped", SENDER_KEY, key_id, where)
    if not context.me:
        return
    if mine and not private:
        yield Finding("own-sender-key-private", SENDER_KEY, key_id, where)
    if private and not mine:
        yield Finding("sender-key-foreign-private", SENDER_KEY, key_id, where)


def _message_keys(key_id: str, state: Any, iteration: int, *, mine: bool, where: str) -> Iterator[Finding]:
    try:
        kept, lost = message_keys(state, iteration)
    except BadValue as error:
        yield Finding("sender-key-message-keys", SENDER_KEY, key_id, f"{where}: {error.pointer} {error}")
        return
    if lost and not mine:
        yield Finding("sender-key-lost-keys", SENDER_KEY, key_id, f"{where}: {lost} keys")
    if mine and kept + lost > _MANY_KEYS:
        yield Finding("sender-key-growth", SENDER_KEY, key_id, f"{where}: {kept + lost} keys")
