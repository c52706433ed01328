"""The marked secrets of the leak scene, the same in every process that knows its seed."""

import base64
import itertools
from typing import Any

from api import creds
from needles import Needles

MASTER, NEXT_MASTER, WRONG_MASTER, TOKEN, BAD_TOKEN = range(5)
DATA_KEYS = 10
DATA_KEYS_KNOWN = 200
VALUES = 1000


class Marked:
    """``secrets`` may be nowhere. ``names`` (sessions, labels) are in clear in the database, to be found by prefix."""

    def __init__(self, seed: str) -> None:
        self.secrets = Needles(seed)
        self.names = Needles(f"{seed} names")
        self._next = itertools.count(VALUES)
        for number in [MASTER, NEXT_MASTER, WRONG_MASTER, *range(DATA_KEYS, DATA_KEYS + DATA_KEYS_KNOWN)]:
            self.secrets.key(number)

    def master(self, number: int) -> str:
        """A master key as a setting."""
        return base64.b64encode(self.secrets.key(number)).decode()

    def token(self, number: int = TOKEN) -> str:
        return self.secrets.word(number)

    def session(self, fault: str) -> str:
        """A session's name that ends in what shall happen to it."""
        return f"{self.names.word(next(self._next))}-{fault}"

    def key_id(self) -> str:
        """A key's id, as it would hold a phone number."""
        return f"{self.secrets.word(next(self._next))}:1@s.whatsapp.net"

    def value(self) -> dict[str, Any]:
        """A value that holds a key in several spellings."""
        key = self.secrets.key(next(self._next))
        return {
            "private": {"type": "Buffer", "data": base64.b64encode(key).decode()},
            "hex": key.hex(),
            "list": list(key),
            "text": key.decode("latin-1"),
        }

    def creds(self, identity: int = 1, **more: Any) -> dict[str, Any]:
        return creds(identity, noiseKey=self.value(), **more)

    def body(self) -> dict[str, Any]:
        """A commit: creds and keys."""
        keys = {
            "session": {self.key_id(): self.value() for _ in range(3)},
            "app-state-sync-key": {"AAA=": self.value()},
        }
        return {"creds": self.creds(), "keys": keys}
