"""The service with one thing taken out: ``python -m bench.reduced sealing|fencing serve``. What that saves is its cost.

The thing is replaced in this process alone, then the service's own command line runs here; the product has no such switch.

| taken out | what is there instead |
|---|---|
| `sealing` | what AES-256-GCM would encrypt is copied, the tag is zeros; nonce and associated data are made as ever |
| `fencing` | every commit is one plain statement that puts and deletes rows: nobody reads or writes the session's row, so \
that neither lease nor version, guard, mark and remembered keys are checked or moved; digests, weights, masks and the \
request's fingerprint are constants |

Without fencing a session must be open in one client alone, and cannot be opened again: its row still says that it is empty.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from service import __main__ as command
from service import records, vault
from service.records import Applied, Change
from service.sql import commit
from service.sql.pool import Connection
from service.store import auth_store, changes, heads

_TAG: Final = bytes(16)
_NEVER: Final = 1 << 30

# Digests have columns that want a value.
_ROWS_SQL: Final = """
WITH gone AS (
    DELETE FROM session_keys k USING unnest($5::uuid[], $6::bytea[]) AS g(sid, kh) WHERE k.sid = g.sid AND k.kh = g.kh
)
INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
SELECT r.sid, r.kh, r.ktype, 0, 0, r.sealed
FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::bytea[]) AS r(sid, kh, ktype, sealed)
ON CONFLICT (sid, kh) DO UPDATE SET sealed = excluded.sealed
"""


class Copying:
    """What the vault asks of AESGCM, over bytes as they are."""

    def __init__(self, _key: bytes) -> None:
        pass

    def encrypt(self, _nonce: bytes, data: bytes, _associated: bytes) -> bytes:
        return data + _TAG

    def decrypt(self, _nonce: bytes, data: bytes, _associated: bytes) -> bytes:
        return data[: -len(_TAG)]


async def write_rows(connection: Connection, changes: Sequence[Change]) -> list[Applied]:
    """Stores the rows of commits of different sessions, and answers as if they had applied."""
    if any(change.replace or change.entry is not None for change in changes):
        raise NotImplementedError("a session replaced or mirrored is no part of what is measured")
    # In one order by every lane, so that none waits for the other in a ring.
    rows = sorted(
        ((change.sid, row) for change in changes for row in change.rows), key=lambda pair: (pair[0], pair[1].kh)
    )
    put = [(sid, row.kh, row.ktype, row.sealed) for sid, row in rows if row.sealed is not None]
    gone = [(sid, row.kh) for sid, row in rows if row.sealed is None]
    await connection.execute(_ROWS_SQL, *_columns(put, 4), *_columns(gone, 2))
    return [Applied(change.expected + 1, change.lease_epoch or 0, len(change.rows)) for change in changes]


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(count)]


class _Replaced(NamedTuple):
    holder: object
    name: str
    by: object


_WITHOUT: Final[Mapping[str, Sequence[_Replaced]]] = {
    "sealing": (_Replaced(vault, "AESGCM", Copying),),
    "fencing": (
        _Replaced(auth_store, "commit_all", write_rows),
        _Replaced(commit, "commit_all", write_rows),
        _Replaced(vault.SessionVault, "_digest", lambda *_: bytes(16)),
        _Replaced(vault.SessionVault, "weights", lambda _, khs: [(0, 0)] * len(khs)),
        _Replaced(vault.SessionVault, "mask", lambda *_: 0),
        _Replaced(vault.SessionVault, "fingerprint", lambda *_: bytes(8)),
        _Replaced(vault.SessionVault, "fingerprint_of_rows", lambda *_: bytes(8)),
        # What only they are made from.
        _Replaced(changes, "_JOURNAL_FROM", _NEVER),
        _Replaced(heads, "_BURST", _NEVER),
        _Replaced(changes, "_weight", lambda _: 0),
        _Replaced(changes, "bind", lambda *_: b""),
        _Replaced(records, "bind", lambda *_: b""),
    ),
}
REDUCTIONS: Final = tuple(_WITHOUT)


def take_out(what: str) -> None:
    """From this process, for good."""
    for holder, name, by in _WITHOUT[what]:
        if not hasattr(holder, name):
            raise AttributeError(f"{name} is not there to be taken out")  # else a new name would cost nothing
        setattr(holder, name, by)


def main() -> None:
    """Runs the service's command line with what the first argument names taken out."""
    if len(sys.argv) < 3 or sys.argv[1] not in REDUCTIONS:
        sys.exit(f"usage: python -m bench.reduced {'|'.join(REDUCTIONS)} serve")
    take_out(sys.argv[1])
    os.environ["AUTHSTORE_WORKERS"] = "1"  # workers are processes begun anew, and would be whole
    sys.argv[:2] = ["authstore"]
    command.main()


if __name__ == "__main__":
    main()
