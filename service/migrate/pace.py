"""How much of a mirror's backlog is carried in one write, and how long its source may take for that.

A source that does not answer and one at the end of a slow link look alike until the first confirms something: so what was
called off is tried again smaller and with more time for its size, and a link that is only slow gets it done.
"""

from dataclasses import dataclass
from typing import Final, Self

_ENTRIES: Final = 200
_SMALLER: Final = 4
_PATIENCE: Final = 16


@dataclass(frozen=True, slots=True)
class Pace:
    """``entries``: at most so many commits in one write. ``patience``: how often the usual time that a write's size may take;
    what it may take whatever its size stays as it is."""

    entries: int = _ENTRIES
    patience: int = 1

    def called_off(self) -> Self:
        """The pace after a write that took too long."""
        return type(self)(max(1, self.entries // _SMALLER), min(_PATIENCE, self.patience * 2))

    def confirmed(self) -> Self:
        """The pace after one that did not: a little more each time, or every other write would be called off again."""
        return type(self)(min(_ENTRIES, self.entries + self.entries // 4 + 1), self.patience)
