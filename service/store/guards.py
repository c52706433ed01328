"""The refusals that protect an identity. Pure: what stands, what is to come, and the verdict as an exception.

Sources: a fresh identity over a paired one is how every other store loses sessions after a failed read; rolled-back
counters make Baileys issue pre-key ids again (`Bad MAC` at peers who hold the old bundle).
"""

from protocol.creds import regressed
from service.errors import CounterRegressed, IdentityReplaced
from service.records import Identity


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
