"""LID mappings, device lists, privacy tokens.

A mapping and its way back are written as a pair in one set. When a number gets another LID, the old way back stays: that is
by design and is not told. Pairs that agree are forgotten as soon as both halves were met.
"""

from collections.abc import Iterator
from typing import Any, Final

from protocol.checks.context import Context
from protocol.errors import BadValue
from protocol.records import REVERSE, TOKEN_INDEX, check_device_list, check_token, lid_mapping, token_index
from protocol.rules import Finding

LID_MAPPING: Final = "lid-mapping"
DEVICE_LIST: Final = "device-list"
TOKEN: Final = "tctoken"


def check_lid_mapping(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One mapping, either way."""
    try:
        other = lid_mapping(value)
    except BadValue as error:
        yield Finding("lid-mapping-unreadable", LID_MAPPING, key_id, str(error))
        return
    addresses = context.addresses
    if key_id.endswith(REVERSE):
        _meet(key_id.removesuffix(REVERSE), other, addresses.reverse, addresses.forward)
    else:
        addresses.mapped.add(key_id)
        _meet(key_id, other, addresses.forward, addresses.reverse)


def check_mappings(context: Context) -> Iterator[Finding]:
    """Halves whose other half says otherwise or is not there."""
    addresses = context.addresses
    for phone, lid in addresses.forward.items():
        back = addresses.reverse.get(lid)
        detail = "the way back is not there" if back is None else "the way back leads to another number"
        yield Finding("lid-mapping-pair", LID_MAPPING, phone, detail)
    for lid, phone in addresses.reverse.items():
        if phone not in addresses.mapped:
            yield Finding("lid-mapping-pair", LID_MAPPING, lid + REVERSE, "the way there is not there")


def check_devices(_context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One contact's devices."""
    try:
        check_device_list(value)
    except BadValue as error:
        yield Finding("device-list", DEVICE_LIST, key_id, str(error))


def check_privacy_token(_context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One token, or the index of all."""
    is_index = key_id == TOKEN_INDEX
    try:
        if is_index:
            token_index(value)
        else:
            check_token(value)
    except BadValue as error:
        rule = "tctoken-index" if is_index else "tctoken"
        yield Finding(rule, TOKEN, key_id, f"{error.pointer} {error}".strip())


def _meet(here: str, there: str, mine: dict[str, str], others: dict[str, str]) -> None:
    if others.get(there) == here:
        del others[there]
    else:
        mine[here] = there
