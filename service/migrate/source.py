"""What a source is: another store of sessions that is read in one snapshot, watched, and (going back) written.

A source hands over what it holds **as found**: it repairs nothing, skips nothing and guesses nothing. Names and values
become canonical in `plan`, for every source alike. What cannot be handed over as a row is a `Fault`, so that rows and
faults together account for everything the source holds of a session.

Every source passes one contract suite (`tests/source_contract.py`) against the real thing. Its duties:

1. ``snapshot`` writes nothing, not even a lock file or a table that "should" be there, and takes no lock others wait for.
2. Inside a snapshot the same session reads the same, whoever writes meanwhile, wherever the store can do that; where it
   cannot, ``consistent`` is False and a cutover reads only after the old writer has stopped.
3. ``text`` is the value's JSON text, byte for byte where the store keeps text, as the server prints it where it does not
   (jsonb). A value that is no JSON is a Fault, never a row.
4. A store that is away, refuses the password or is laid out otherwise raises SourceAway, SourceRefused, WrongSource. An
   error never becomes "no such row". No error text holds a value, an id, a password or a DSN.
5. ``fingerprint`` looks outside any snapshot, costs no transfer of values, and is another one after any write to the
   session: insert, update to other content, delete.
6. ``write`` is one transaction where the store has them, is durable when it returns, and idempotent: the same call twice
   leaves the same state. Texts come in the base64 spelling; the source re-spells them as its own writers do
   (`protocol.repairs.spell`). Deleting what is not there is no error. Nothing that one had under way arrives after a later
   one, whoever writes that: not when it was cancelled, nor when its process died.
7. Memory: one session at a time. ``sessions`` streams.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from service.errors import ServiceError

Within = Mapping[str, Any]
"""Plain values, lists and sets by name."""


TRIAL: Final = ("lid-mapping", "000000000000001")
"""Type and id of a key that no session has: what `Source.rehearse` writes."""


class SourceError(ServiceError):
    """The source cannot be used."""


class SourceAway(SourceError):
    """The source cannot be reached, or went away in between; nothing is known to have changed there."""


class SourceRefused(SourceError):
    """The source refused the user, the password or the permission."""


class WrongSource(SourceError):
    """The source is not laid out as any store we know."""


def away(error: BaseException) -> SourceAway:
    """SourceAway, with the reason where the system gives one."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, ConnectionRefusedError):
            return SourceAway("the source cannot be reached: the connection is refused, nothing listens at that port")
        if isinstance(each, socket.gaierror):
            return SourceAway("the source cannot be reached: its host is not known")
        each = each.__cause__ or each.__context__
    return SourceAway()


class FaultKind(StrEnum):
    """Why something found is not a row. Only ``torn_creds`` keeps its session from being migrated."""

    torn_creds = "torn-creds"  # creds whose text is cut off or no JSON: guessing would make a new identity
    torn = "torn"  # a value whose text is cut off or no JSON
    ambiguous = "ambiguous"  # a name that two keys can have
    foreign = "foreign"  # not part of a session: a stranger's file, table row or field


@dataclass(frozen=True, slots=True)
class Fault:
    """Something found that is not a row. ``where`` names the place as its owner would look it up (it may hold an id);
    ``why`` is a sentence without ids or values; ``raw`` is what stands there, for the quarantine file."""

    kind: FaultKind
    where: str = field(repr=False)
    why: str
    raw: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A value as found. ``ktype`` and ``key_id`` as the source's own names say, right or wrong.

    ``expires_at``: when the source would have forgotten it, None for never. ``where`` as in Fault.
    """

    ktype: str
    key_id: str = field(repr=False)
    text: bytes = field(repr=False)
    expires_at: datetime | None = None
    where: str = field(default="", repr=False)


@dataclass(slots=True)
class Found:
    """Everything a source holds of one session. ``creds`` is JSON text as found, None when there are none (or torn)."""

    creds: bytes | None = field(default=None, repr=False)
    rows: list[SourceRow] = field(default_factory=list, repr=False)
    faults: list[Fault] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Write:
    """A row to be written back, under its canonical name. ``text`` None deletes it, and whatever else the source would
    take for the same key (a mis-typed twin)."""

    ktype: str
    key_id: str = field(repr=False)
    text: bytes | None = field(repr=False)


class Snapshot(ABC):
    """The source at one moment, as long as its context is open."""

    consistent: ClassVar[bool] = True
    """False: a read may see part of a write that happens meanwhile."""

    @abstractmethod
    def sessions(self) -> AsyncIterator[str]:
        """Names of every session that has creds or any row, each once, in a stable order."""

    @abstractmethod
    async def read(self, session: str) -> Found:
        """All of one session; an empty Found when the source does not know it."""


class Source(ABC):
    """Another store, open. A context manager: leaving it releases everything."""

    kind: ClassVar[str]
    """A short name for reports: ``legacy-postgres``, ``files``."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for reports: host and database, or a path. No password, no query."""

    @property
    def within(self) -> Within | None:
        """What tells it from other stores at that place: how it is laid out, in which database. No user, no password.

        None where the place says it all.
        """
        return None

    @property
    def only_session(self) -> str | None:
        """The name of the only session it can have, where nothing but the place gives it one: a folder that is a session."""
        return None

    @abstractmethod
    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """The source at this moment. Several may be open, one after the other or at once."""

    @abstractmethod
    async def fingerprint(self, session: str) -> str:
        """A few characters that change with any write to the session. Of an unknown session too."""

    async def standby(self) -> bool | None:
        """Whether it follows another server, and so may lag behind what its writers were told is stored. None: it cannot be
        told."""
        return False

    @abstractmethod
    async def write(self, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool = False) -> None:
        """Applies a commit. ``creds`` None leaves them; ``whole`` first removes every row (and creds) of the session."""

    async def rehearse(self, session: str, creds: bytes) -> None:
        """Tries everything that a mirror or a rollback does to the session, and takes it back. ``creds``: what it holds there.

        Raises what `write` would; where writing cannot be taken back nothing is tried.
        """
        del session, creds

    async def keep(self, session: str, *, expired: bool = True) -> None:
        """Clears whatever would make the store forget a row of the session later; of rows past it already if ``expired``.

        For a session that others keep now, dates set by its old writer mean nothing, and a clean-up job goes by them.
        """
        del session, expired  # most stores forget nothing

    @abstractmethod
    async def close(self) -> None:
        """Releases everything; also after an error, and twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
