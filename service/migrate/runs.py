"""Every run kept: who ran what against which source, when, and what became of each session.

Counts and one digest a session stand in clear; whatever names ids of keys is sealed under the session's data key. A run
that was killed stays in the list without an end.
"""

import hashlib
import json
import os
import pwd
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID, uuid4

from protocol.types import session_uuid
from service.errors import Corrupt, Deleted, NoSession
from service.migrate import alive
from service.migrate.leases import holder
from service.migrate.plan import Options, SessionPlan
from service.migrate.report import Report, SessionReport
from service.migrate.source import Source
from service.sql import runs as sql
from service.store import AuthStore, Caller

_LISTED: Final = 100
_SOURCE_CHARS: Final = 500
_NAME_CHARS: Final = 500
_MARK_BYTES: Final = 8
_USER: Final = re.compile("//[^/]*@")  # as the statement that compares sources leaves it out


@dataclass(slots=True)
class Run:
    """A run under way. ``report`` is filled as it goes."""

    store: AuthStore
    caller: Caller
    id: UUID
    report: Report = field(repr=False)

    @classmethod
    async def begin(cls, store: AuthStore, caller: Caller, verb: str, source: str, options: Mapping[str, Any]) -> Self:
        """Notes that it began."""
        tenant = caller.need("admin")
        run, by = uuid4(), operator()
        noted = json.dumps({**options, "process": alive.mark()})
        async with store.database.connection() as connection:
            started = await sql.begin(connection, run, tenant, verb, source[:_SOURCE_CHARS], by, noted)
        return cls(store, caller, run, Report(verb, source, tenant, str(run), by, started))

    @property
    def holder(self) -> str:
        """Its name in leases."""
        return holder(self.id, self.report.by)

    async def intend(self, each: SessionReport, version: int, digest: bytes) -> None:
        """Keeps what is about to be committed: a run that dies right after it is still known to be ours."""
        await self._keep(each, "copying", version, digest, None)

    async def intend_back(self, each: SessionReport, version: int, digest: bytes) -> None:
        """Keeps what is about to be written at the source. It says nothing of who wrote it here."""
        await self._keep(each, "giving-back", version, digest, None)

    async def note(self, each: SessionReport, version: int | None, digest: bytes | None) -> None:
        """Keeps what became of a session; ``version`` and ``digest`` as it stands here now."""
        each.version, each.digest = version, None if digest is None else digest.hex()
        self.report.sessions.append(each)
        await self._keep(each, each.outcome, version, digest, await self._seal(each))

    async def end(self) -> Report:
        """Notes how it ended."""
        async with self.store.database.connection() as connection:
            self.report.ended_at = await sql.end(connection, self.id, self.report.verdict)
        return self.report

    async def _keep(
        self, each: SessionReport, outcome: str, version: int | None, digest: bytes | None, sealed: bytes | None
    ) -> None:
        counts = {
            "keys": each.by_type,
            "repairs": each.repairs,
            "quarantined": each.quarantined,
            "expired": each.expired,
            "twins": each.twins,
            "differences": len(each.differences),
            "facts": each.facts,
        }
        sid = session_uuid(self.caller.tenant, each.session)
        names = each.session[:_NAME_CHARS], each.source_name[:_NAME_CHARS]
        async with self.store.database.connection() as connection:
            await sql.note_session(
                connection, sid, self.id, names, outcome, (version, digest), json.dumps(counts, default=str), sealed
            )

    async def _seal(self, each: SessionReport) -> bytes | None:
        details = json.dumps(asdict(each), default=str).encode()
        try:
            return await self.store.mirrors.seal_note(self.caller, each.session, str(self.id), details)
        except (NoSession, Deleted, Corrupt):
            return None  # not moved: there is no key that opens to seal it under, and the counts say what matters


async def left_so(store: AuthStore, caller: Caller, plan: SessionPlan, source: str, stands: tuple[int, bytes]) -> bool:
    """Whether a run of ours left the session as it ``stands`` (version, digest), taken from this session of that source."""
    sid = session_uuid(caller.need("admin"), plan.name)
    version, digest = stands
    async with store.database.connection() as connection:
        return await sql.left_so(
            connection, sid, version, digest, source[:_SOURCE_CHARS], plan.source_name[:_NAME_CHARS]
        )


async def known_digest(store: AuthStore, caller: Caller, name: str, digest: bytes) -> bool:
    """Whether a run of ours moved these values of the session, either way."""
    sid = session_uuid(caller.need("admin"), name)
    async with store.database.connection() as connection:
        return await sql.known_digest(connection, sid, digest)


@dataclass(frozen=True, slots=True)
class Given:
    """When a session was rolled back, and to which source, as runs name it."""

    at: datetime
    source: str = field(repr=False)

    @property
    def says(self) -> str:
        return f"it was given back at {self.at.isoformat(timespec='seconds')}; nothing here is newer"


async def given_back(
    store: AuthStore, caller: Caller, name: str, version: int, digest: bytes | None = None
) -> Given | None:
    """That the session was rolled back, if nothing was committed here since.

    It stands at ``version``, with ``digest``: with that too, what runs have copied from the same source since counts as
    nothing.
    """
    sid = session_uuid(caller.need("admin"), name)
    async with store.database.connection() as connection:
        found = await sql.given_back(connection, sid, version, digest)
    return None if found is None else Given(*found)


async def list_runs(store: AuthStore, caller: Caller) -> list[dict[str, Any]]:
    """The tenant's last 100 runs, newest first."""
    async with store.database.connection() as connection:
        return [dict(record) for record in await sql.list_runs(connection, caller.need("admin"), _LISTED)]


async def show_run(store: AuthStore, caller: Caller, run: UUID) -> list[dict[str, Any]]:
    """What a run did to each session, details opened where the session still is."""
    async with store.database.connection() as connection:
        records = await sql.run_sessions(connection, run, caller.need("admin"))
    shown = []
    for record in records:
        details: Any = None
        if record["sealed"] is not None:
            try:
                details = json.loads(await store.mirrors.open_note(caller, record["name"], str(run), record["sealed"]))
            except (NoSession, Deleted, Corrupt):
                details = None
        shown.append(_shown(dict(record), details))
    return shown


def as_reported(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A session of `show_run` with the members of a `SessionReport`, as far as they are kept."""
    return {**shown, "by_type": shown["keys"], **(shown["details"] or {})}


def called(source: Source) -> str:
    """A source as runs name it: one that is another store has another name, whoever logs in to it."""
    plain, within = f"{source.kind} {source.place}", source.within
    if within is None and len(plain) <= _SOURCE_CHARS:
        return plain
    about = json.dumps([_USER.sub("//", plain), within], sort_keys=True, default=sorted)
    mark = hashlib.blake2b(about.encode(), digest_size=_MARK_BYTES).hexdigest()
    return f"{plain[: _SOURCE_CHARS - len(mark) - 2]} #{mark}"


def options_plain(options: Options) -> dict[str, Any]:
    """Options as JSON members."""
    return {
        "repairs": sorted(options.repairs),
        "keep_unknown": options.keep_unknown,
        "skip_expired": options.skip_expired,
        "names": dict(options.names),
        "verbatim": options.verbatim,
    }


def operator() -> str:
    """Who runs this: user and machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's made-up user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:200]


def _shown(record: Mapping[str, Any], details: Any) -> dict[str, Any]:
    at: datetime = record["at"]
    return {
        "session": record["name"],
        "at the source": record["source_name"],
        "outcome": record["outcome"],
        "version": record["version"],
        "digest": None if record["digest"] is None else record["digest"].hex(),
        "at": at,
        **json.loads(record["counts"]),
        "details": details,
    }
