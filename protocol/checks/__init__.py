"""The integrity rules as functions: bad data becomes findings, in a stream, and never an exception.

| file | judges |
|---|---|
| `session_state.py` | a whole session: `check`, and `StateCheck` for rows that come one by one |
| `context.py` | what is remembered between rows: ids, counts, 33-byte keys; never values |
| `creds.py` | identity, signatures, counters |
| `pre_keys.py` | pre-keys, and the window the counters open |
| `sessions.py` | session records and identity keys |
| `sender_keys.py` | sender keys, and who is said to have one's own |
| `app_state.py` | app-state keys and collections |
| `addresses.py` | LID mappings, device lists, privacy tokens |
| `any_row.py` | what holds for every row: size, grammar of its id, spelling of bytes |

A rule is judged in one place; what breaks two rules by one cause is told once, by the rule that names the cause.
"""

from protocol.checks.session_state import StateCheck, check

__all__ = ["StateCheck", "check"]
