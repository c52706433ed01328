"""States of real Baileys releases, as the fixtures hold them, and rows made of them."""

import copy
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "fixtures" / "state"
RELEASES = ("6.7.24", "6.17.16", "7.0.0-rc.4", "7.0.0-rc.9", "7.0.0-rc10", "7.0.0-rc14")

_read: dict[str, Any] = {}


def load(release: str) -> dict[str, Any]:
    """The state of a release: ``{"creds": {...}, "keys": {type: {id: value}}}``, one's own to change."""
    if release not in _read:
        _read[release] = json.loads((FOLDER / f"baileys-{release}.json").read_bytes())
    state: dict[str, Any] = copy.deepcopy(_read[release])
    return state


def creds_text(state: dict[str, Any]) -> bytes:
    """The creds as the store would hold them."""
    return text(state["creds"])


def rows(state: dict[str, Any]) -> list[tuple[str, str, bytes]]:
    """``(type, id, value text)`` of every key."""
    return [
        (ktype, key_id, text(value)) for ktype, members in state["keys"].items() for key_id, value in members.items()
    ]


def text(value: Any) -> bytes:
    """A value as ``JSON.stringify`` writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
