"""Sender key records (a sender's keys in a group), in both forms, viewed for judging.

| form | stored as | written by |
|---|---|---|
| `bytes` | bytes of the JSON text of a list of states | 6.7.19 and later, 7.x |
| `array` | the list itself; skipped message keys come out as ``{}`` | up to 6.7.18, and 6.17.16 |

A state: ``{senderKeyId, senderChainKey: {iteration, seed}, senderSigningKey: {public, private}, senderMessageKeys: [{iteration,
seed}]}``. An empty list is a record that was made and has no key yet. Source: Baileys ``sender-key-record.ts`` and
``sender-key-state.ts``; measured on 6.7.24, 6.17.16 and 7.0.0-rc.4 to rc14.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from protocol.curve import KEY_BYTES, bare
from protocol.errors import BadValue
from protocol.json_text import parse
from protocol.spelling import read

MOST_STATES: Final = 5

_NAME: Final = re.compile(r"(.+)::([^:]+)::(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """Whose key in which group. ``user`` is the user part of the sender's address, with its domain if it has one."""

    group: str
    user: str
    device: int


@dataclass(frozen=True, slots=True)
class Record:
    """The states of a record; ``array``: in the old form."""

    states: list[Any]
    array: bool


def parse_name(key_id: str) -> Name | None:
    """The parts of ``<group>::<user>::<device>``, None for any other id."""
    found = _NAME.fullmatch(key_id)
    if found is None or len(found[3]) > 9:  # noqa: PLR2004 - no device has such a number
        return None
    return Name(found[1], found[2], int(found[3]))


def parse_record(value: Any) -> Record:
    """The record in either form. BadValue when it is none."""
    if isinstance(value, list):
        return Record(value, array=True)
    if isinstance(value, str):
        raise BadValue("text is no sender key record")
    try:
        found = parse(read(value))
    except ValueError:
        raise BadValue("the bytes are no JSON") from None
    if not isinstance(found, list):
        raise BadValue("a sender key record is a list")
    return Record(found, array=False)


def chain_iteration(state: Any) -> int:
    """Where the chain stands. BadValue when its seed or iteration is not what it must be."""
    chain = _object(state, "senderChainKey")
    iteration = chain.get("iteration")
    if type(iteration) is not int or iteration < 0:
        raise BadValue("an iteration is a whole number", "/senderChainKey/iteration")
    _seed(chain, "/senderChainKey/seed")
    return iteration


def check_key_id(state: Any) -> None:
    """BadValue unless the state has a numeric id."""
    found = state.get("senderKeyId") if isinstance(state, dict) else None
    if type(found) is not int or found < 0:
        raise BadValue("a key id is a whole number", "/senderKeyId")


def signing_key(state: Any) -> tuple[bytes, bytes]:
    """``(private, public)``: private is empty where there is none, public has 32 bytes. BadValue when damaged."""
    pair = _object(state, "senderSigningKey")
    public = bare(read(pair.get("public"), "/senderSigningKey/public"), "/senderSigningKey/public")
    private = b"" if pair.get("private") is None else read(pair["private"], "/senderSigningKey/private")
    if len(private) not in (0, KEY_BYTES):
        raise BadValue(f"{len(private)} bytes instead of {KEY_BYTES}", "/senderSigningKey/private")
    return private, public


def message_keys(state: Any, iteration: int) -> tuple[int, int]:
    """``(kept, lost)``: skipped message keys, and those the old form lost. BadValue when one cannot be of this chain."""
    keys = state.get("senderMessageKeys", [])
    if not isinstance(keys, list):
        return 0, 0  # what it was is lost already; Baileys starts an empty list
    lost = 0
    for key in keys:
        if key == {}:
            lost += 1
            continue
        at = key.get("iteration") if isinstance(key, dict) else None
        if type(at) is not int or not 0 <= at < iteration:
            raise BadValue("a message key is of an earlier message", "/senderMessageKeys")
        _seed(key, "/senderMessageKeys")
    return len(keys) - lost, lost


def _seed(holder: dict[str, Any], pointer: str) -> None:
    seed = read(holder.get("seed"), pointer)
    if len(seed) != KEY_BYTES:
        raise BadValue(f"{len(seed)} bytes instead of {KEY_BYTES}", pointer)


def _object(holder: Any, name: str) -> dict[str, Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(found, dict):
        raise BadValue("not an object", f"/{name}")
    return found
