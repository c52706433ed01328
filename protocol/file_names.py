"""Names of multi-file stores <-> ``(type, id)``: `Exact`, `Ambiguous` or `Foreign`, never a guess.

``useMultiFileAuthState`` writes ``<type>-<id>.json`` with ``/`` as ``__`` and ``:`` as ``-``, and other stores use the same
name as a column. The way back is not one-to-one: ``sender-key-`` begins ``sender-key-memory-`` too, ``-`` may stand for
itself. A name is `Exact` when, over all known types and all ways to undo the mangling, one single key of a type's grammar
comes out. Source: Baileys ``use-multi-file-auth-state.ts`` and ids measured with real releases.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

_USER: Final = r"[0-9A-Za-z]+(?:_[0-9]+)?"
_GROUP: Final = r"(?:[0-9][0-9-]*|status)@[a-z.]+"
_JID: Final = r"[0-9A-Za-z._-]+(?::[0-9]+)?@[a-z.]+"

GRAMMAR: Final = {
    "pre-key": re.compile(r"[0-9]{1,8}"),
    "session": re.compile(rf"{_USER}\.[0-9]+"),
    "sender-key": re.compile(rf"{_GROUP}::{_USER}::[0-9]+"),
    "sender-key-memory": re.compile(_GROUP),
    "app-state-sync-key": re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"),
    "app-state-sync-version": re.compile(r"critical_block|critical_unblock_low|regular_high|regular_low|regular"),
    "lid-mapping": re.compile(r"[0-9]+(?:_reverse)?"),
    "device-list": re.compile(r"[0-9]+"),
    "tctoken": re.compile(rf"__index|{_JID}"),
    "identity-key": re.compile(rf"{_USER}\.[0-9]+"),
}
"""Ids as Baileys makes them, by type: every type of every release so far."""

_MANGLED: Final = re.compile("__|-")
_MOST_PLACES: Final = 8  # ids of the grammar above have at most 5


@dataclass(frozen=True, slots=True)
class Exact:
    """The one key this name can be."""

    ktype: str
    key_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several keys have this name: which of them it was cannot be known."""

    keys: tuple[Exact, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Foreign:
    """No key of a known type has this name."""


def parse(name: str, *, mangled: bool = True) -> Exact | Ambiguous | Foreign:
    """What key ``<type>-<id>`` names (without ``.json``). ``mangled`` False: the id stands there as it is."""
    keys = sorted(set(_candidates(name, mangled=mangled)))
    if not keys:
        return Foreign()
    exact = [Exact(ktype, key_id) for ktype, key_id in keys]
    return exact[0] if len(exact) == 1 else Ambiguous(tuple(exact))


def file_name(ktype: str, key_id: str) -> str:
    """The name ``useMultiFileAuthState`` gives the key, with ``.json``."""
    return f"{mangle(f'{ktype}-{key_id}')}.json"


def mangle(name: str) -> str:
    """Baileys' ``fixFileName``."""
    return name.replace("/", "__").replace(":", "-")


def is_known(ktype: str) -> bool:
    """Whether a Baileys release has this type."""
    return ktype in GRAMMAR


def fits(ktype: str, key_id: str) -> bool:
    """Whether Baileys could have made this id for this type. False for types no release has."""
    grammar = GRAMMAR.get(ktype)
    return grammar is not None and grammar.fullmatch(key_id) is not None


def _candidates(name: str, *, mangled: bool) -> Iterator[tuple[str, str]]:
    for ktype in GRAMMAR:
        if not name.startswith(f"{ktype}-"):
            continue
        rest = name[len(ktype) + 1 :]
        for key_id in _undone(ktype, rest) if mangled else (rest,):
            if fits(ktype, key_id):
                yield ktype, key_id


def _undone(ktype: str, rest: str) -> Iterator[str]:
    """Every text that is mangled to ``rest``, those that cannot fit the type's grammar left out early."""
    original: dict[str, tuple[str, ...]] = {"__": ("__", "/"), "-": ("-", ":")}
    if ktype not in {"app-state-sync-key", "tctoken", "sender-key"}:
        original = {"__": ("__",), "-": ("-",)}  # ids without / and :
    places = _MANGLED.findall(rest)
    if len(places) > _MOST_PLACES:
        return
    parts = _MANGLED.split(rest)
    for chosen in product(*(original[place] for place in places)):
        yield "".join(part + mark for part, mark in zip(parts, (*chosen, ""), strict=True))
