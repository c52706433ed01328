"""Examples of the calls people begin with, in an order in which they can be run one after the other on a new store."""

from typing import Any, Final

from msgspec import Struct

SESSION: Final = "try-1"
"""Stands for `{session}` in every example."""


class Example(Struct, frozen=True):
    """What is sent and what then comes back; ``headers`` beside those that every request has."""

    body: Any = None
    answer: Any = None
    headers: dict[str, str] = {}


_PHONE, _LID = "15550001111", "100000000000002"
_KEYS: Final = {"lid-mapping": {_PHONE: _LID, f"{_LID}_reverse": _PHONE}}

EXAMPLES: Final[dict[str, Example]] = {
    "commit": Example({"keys": _KEYS}, {"version": 1, "epoch": 0}),
    "commit_many": Example(
        {"commits": [{"session": SESSION, "keys": {"lid-mapping": {_PHONE: None}}}]},
        {"results": [{"version": 2, "epoch": 0}]},
    ),
    "put_state": Example({"creds": None, "keys": _KEYS}, {"version": 3, "epoch": 0}),
    "get_keys": Example({"lid-mapping": [_PHONE, "unknown"]}, {"lid-mapping": {_PHONE: _LID}}),
    "get_state": Example(answer={"session": SESSION, "version": 3, "epoch": 0, "keys": _KEYS, "creds": None}),
    "take_lease": Example(
        {"holder": "host-1:4711", "ttl_s": 60},
        {"session": SESSION, "epoch": 1, "expires_at": "2026-11-30T12:01:00.000000Z"},
    ),
    "release_lease": Example(headers={"Lease-Epoch": "1"}),
}
"""By the name of the call's handler."""

PROBLEM: Final = {
    "type": "urn:authstore:problem:fenced",
    "title": "Fenced",
    "status": 409,
    "detail": "The session is leased, and this request carries another epoch than the lease's.",
}
