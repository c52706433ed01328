"""What several statements that write a session have in common: text, the columns they are given, what they answer."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import asyncpg

from protocol.types import PRE_KEY
from service.records import Applied, Identity, NotApplied, SealedRow

FRESH_FROM: Final = 8
"""Rows held to be new from which on they are worth a statement of their own."""

Column = Sequence[Any]

_CREDS: Final = ""  # the type of their row
_values: Final = attrgetter("kh", "ktype", "sealed", "digest", "weights")  # a large commit has thousands of rows


def lease_after(given: str) -> str:
    """What becomes of the lease. ``given``: the epoch a commit names, NULL for none."""
    # A write without an epoch over an expired lease ends that lease: its owner's late writes are fenced.
    return f"""
        epoch = CASE WHEN {given} IS NULL AND s.lease_holder IS NOT NULL THEN s.epoch + 1 ELSE s.epoch END,
        lease_holder = CASE WHEN {given} IS NOT NULL THEN s.lease_holder END,
        lease_expires = CASE WHEN {given} IS NOT NULL THEN s.lease_expires END"""


def may_write(given: str) -> str:
    return f"""
        CASE WHEN {given} IS NULL THEN s.lease_expires IS NULL OR s.lease_expires <= now() ELSE s.epoch = {given} END"""


def mark_after(delta: str) -> str:
    return f"""
        mark = mod(mod(s.mark + {delta} - coalesce(was.weight, 0), 2305843009213693951) + 2305843009213693951,
                   2305843009213693951)::bigint"""


def mark_moved(delta: str) -> str:
    """The same where no stored row changes; ``delta`` is reduced."""
    return f"mark = mod(s.mark + {delta}, 2305843009213693951)"


def weight(first: str, second: str) -> str:
    """A stored row's share of the mark, by the two weights of its place."""
    return f"k.d_hi::numeric * {first} + k.d_lo::numeric * {second}"


def differs(high: str, low: str) -> str:
    """Whether a stored row's digest is another than this one."""
    return f"(k.d_hi <> {high} OR k.d_lo <> {low})"


def stored(sid: str, kh: str) -> str:
    """The row of a name, ``k``, behind whatever names it."""
    # OFFSET keeps the planner from turning the look-up round: a plan made while there are few rows would go through all
    # of them, and goes on doing so when there are many.
    return f"LATERAL (SELECT * FROM session_keys k WHERE k.sid = {sid} AND k.kh = {kh} OFFSET 0) k"


UPSERTED: Final = """
    ON CONFLICT (sid, kh) DO UPDATE SET d_hi = excluded.d_hi, d_lo = excluded.d_lo, sealed = excluded.sealed"""


CHANGE_COLUMNS: Final = (
    ("sid", "uuid"),
    ("expected", "bigint"),
    ("dek_id", "int"),
    ("lease_epoch", "bigint"),
    ("mark_delta", "bigint"),
    ("recent", "bytea"),
)
"""What every statement of many commits is given of each, by its name in `records.Change`."""
IDENTITY_COLUMNS: Final = (
    ("identity_tag", "bytea"),
    ("paired", "bool"),
    ("next_pre_key", "bigint"),
    ("first_unuploaded", "bigint"),
    ("account_sync", "bigint"),
    ("signed_pre_key", "bigint"),
)


def identity_columns(identity: Identity) -> tuple[Any, ...]:
    """The values of `IDENTITY_COLUMNS`."""
    return identity.tag, identity.paired, *identity.counters


def columns_to_insert(rows: Sequence[SealedRow]) -> list[Column]:
    kh, ktype, sealed, high, low, _, _ = columns_to_look(rows)
    return [kh, ktype, high, low, sealed]


def columns_to_look(rows: Sequence[SealedRow]) -> list[Column]:
    """Of rows whose former ones are looked for: with their weights, ``w1, w2``."""
    if not rows:
        return [()] * 7
    kh, ktype, sealed, digests, weights = zip(*map(_values, rows), strict=True)
    return [kh, ktype, sealed, *zip(*digests, strict=True), *zip(*weights, strict=True)]


def parted(rows: Sequence[SealedRow], *, keyless: bool) -> tuple[list[SealedRow], list[SealedRow]]:
    """Rows held to be new, and the others. ``keyless``: the session has no rows of keys."""
    fresh: list[SealedRow] = []
    rest: list[SealedRow] = []
    for row in rows:
        new = row.sealed is not None and (row.ktype == PRE_KEY or (keyless and row.ktype != _CREDS))
        (fresh if new else rest).append(row)
    return fresh, rest


def outcome(answer: asyncpg.Record) -> Applied | NotApplied:
    """Of a row ``(version, epoch, rows, clash)``, version NULL when nothing was applied."""
    if answer["version"] is None:
        return NotApplied(clash=answer["clash"])
    return Applied(answer["version"], answer["epoch"], answer["rows"])
