"""The refusals that protect an identity. Pure: what stands, what is to come, and the verdict as an exception.

Sources: a fresh identity over a paired one is how every other store loses sessions after a failed read; rolled-back
counters make Baileys issue pre-key ids again (`Bad MAC` at peers who hold the old bundle).
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from protocol.creds import regressed
from protocol.types import PRE_KEY
from service.errors import CounterRegressed, Fenced, IdentityReplaced
from service.records import Identity, SessionRow, Vacant
from service.store.request import Row

NO_PRE_KEYS: Final = -1
_PLAIN: Final = re.compile(rb"(?:(?:0|[1-9][0-9]{0,14})\0)+")
"""Ids that are numbers as Baileys writes them, far below 2^63, each with a NUL behind it, which no id holds."""


def judge(old: Identity, new: Identity, *, has_keys: bool) -> None:
    """Raises when ``new`` creds must not follow ``old`` ones. ``has_keys``: keys beside the creds are stored."""
    if old.paired and not new.paired:
        raise IdentityReplaced("these creds are not paired and the stored ones are", pointer="/creds/account")
    if old.tag is not None and old.tag != new.tag:
        if old.paired or has_keys:
            raise IdentityReplaced(pointer="/creds/signedIdentityKey")
        return  # never paired, no keys: a new start, with counters of its own
    for name in regressed(old.counters, new.counters):
        raise CounterRegressed(pointer="/creds/" + name.replace(".", "/"))


def fenced(given: int | None, found: SessionRow | Vacant | None) -> Fenced:
    """Why a request with this epoch is refused, as far as ``found`` was looked at; the epoch that counts is not told."""
    if found is None:
        return Fenced()
    if isinstance(found, Vacant):
        return Fenced("There is no such session, so there is no lease on it.")
    live = found.lease is not None and found.lease.live
    if given is None:
        return Fenced("The session is leased, and this request carries no epoch.")
    if given == found.head.epoch:
        return Fenced("The lease of this epoch is another holder's." if live else "The lease of this epoch has ended.")
    if live:
        return Fenced("The session is leased, and this request carries another epoch than the lease's.")
    return Fenced("The session has no lease, and this request carries an epoch that is not its last.")


class PreKeys(NamedTuple):
    """``top``: the highest pre-key id ever stored, None where not known. ``new``: what is put lies above all of before."""

    top: int | None
    new: bool


def pre_keys_after(top: int | None, rows: Iterable[Row]) -> PreKeys:
    """What a commit of these rows makes of the highest pre-key id.

    Baileys counts pre-keys up, so that those it makes lie above all that came before. Whether another one overwrites what
    is stored is left to the statement that looks at the stored rows.
    """
    put = [key_id for ktype, key_id, value in rows if ktype == PRE_KEY and value is not None]
    if not put:
        return PreKeys(top, new=True)
    if top is None or not _PLAIN.fullmatch(b"\0".join(put) + b"\0"):
        return PreKeys(None, new=False)
    numbers = [int(key_id) for key_id in put]
    return PreKeys(max(top, *numbers), min(numbers) > top)
