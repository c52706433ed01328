"""What is remembered between rows of one session: ids, counts and 33-byte keys, never values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from protocol.rules import Finding


@dataclass(slots=True)
class PreKeys:
    """Pre-keys met so far. ``waiting``: those the counters say are not uploaded yet."""

    count: int = 0
    highest: int = 0
    newest_met: bool = False
    waiting: int = 0


@dataclass(slots=True)
class Addresses:
    """LID mappings met so far whose way back was not met yet; phone numbers that have a LID; what waits for its other half."""

    forward: dict[str, str] = field(default_factory=dict, repr=False)
    reverse: dict[str, str] = field(default_factory=dict, repr=False)
    mapped: set[str] = field(default_factory=set, repr=False)
    by_phone: list[str] = field(default_factory=list, repr=False)
    session_identities: dict[str, bytes] = field(default_factory=dict, repr=False)
    known_identities: dict[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class Groups:
    """Groups with a sender key of one's own, under any of one's names, and groups that are said to have it."""

    own: set[str] = field(default_factory=set, repr=False)
    told: list[str] = field(default_factory=list, repr=False)


@dataclass(slots=True)
class Context:
    """One session while it is judged. What creds say is None where they do not say it.

    ``paired``: whether they hold an account; ``has_paired_keys``: keys are stored that only a paired device has.
    ``me``: user parts of one's own addresses, without domain; ``device``: one's own device number.
    """

    has_creds: bool = False
    paired: bool | None = None
    has_paired_keys: bool = False
    me: frozenset[str] = field(default=frozenset(), repr=False)
    device: int = 0
    next_pre_key: int | None = None
    first_unuploaded: int | None = None
    my_app_state_key: str | None = field(default=None, repr=False)
    my_app_state_key_met: bool = False
    rows: int = 0
    pre_keys: PreKeys = field(default_factory=PreKeys)
    addresses: Addresses = field(default_factory=Addresses)
    groups: Groups = field(default_factory=Groups)

    def is_mine(self, user: str, device: int) -> bool:
        """Whether an address is one's own, by phone number or LID."""
        return device == self.device and user.partition("_")[0] in self.me


RowCheck = Callable[[Context, str, Any], Iterator[Finding]]
"""``(context, id, value) -> findings``; remembers in the context what later rows or the end need."""
EndCheck = Callable[[Context], Iterator[Finding]]
