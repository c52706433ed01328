"""Shapes of the health answers, as the reference tells them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.http.wire import Time, TypeName


class Up(Struct):
    status: Literal["ok"]


class Down(Struct):
    """``reason``: a sentence."""

    status: Literal["unavailable"]
    reason: str


class Pool(Struct):
    """Connections, and requests that wait for one."""

    busy: int
    idle: int
    waiting: int


class DatabaseUp(Struct):
    """``backend``: PostgreSQL and its version; ``fsync``, ``synchronous_commit``: its settings; ``schema``: the number of the
    newest migration.
    """

    status: Literal["ok"]
    backend: str
    role: Literal["primary", "standby"]
    writable: bool
    latency_ms: float
    schema: int
    fsync: str
    synchronous_commit: str
    synchronous_standbys: bool
    pool: Pool


class DatabaseDown(Down):
    """``reason``: a sentence."""

    pool: Pool


class Findings(Struct):
    error: int
    warning: int


class Census(Struct):
    """``leased``: with a living lease. ``open_findings``: of the last check of each session."""

    status: Literal["ok"]
    sessions: int
    paired: int
    leased: int
    keys: Annotated[dict[TypeName, int], Meta(description="how many")]
    newest_write: Time | None
    open_findings: Annotated[Findings | None, Meta(description="null when no session was ever checked")]
