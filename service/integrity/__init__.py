"""Is a session whole? Reads it as it lies in the database, believes none of it, and streams what is wrong.

    stored rows ── `stored.py`: each opens, all of them and no others ──> plain rows ── `protocol.checks` ──> findings

| file | purpose |
|---|---|
| `report.py` | what a check found: counts, and findings up to a bound |
| `stored.py` | one session's rows against data key, digests, mark and columns |
| `check.py` | one session from snapshot to verdict, off the event loop |
| `sweep.py` | all sessions, one after the other, going on where it was cut off |
| `repair.py` | the exact repairs: planned, shown, archived, committed under the lease, undone |
| `archive.py` | what a repair replaced and what it wrote, sealed together |
| `diagnose.py` | a session for a bug report, without a byte of it |

Findings name types and ids, and go to who asked with the right to see them; logs and metrics get rules and counts alone.
What a check cannot see: a session put back whole to an older state that no check has seen newer; damage that
keeps every rule, as one random private key for another with its public one.
"""

from service.integrity.check import by_severity, check_session, open_findings
from service.integrity.report import Report

__all__ = ["Report", "by_severity", "check_session", "open_findings"]
