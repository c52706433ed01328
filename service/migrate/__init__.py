"""Moving sessions in from another store, proving every value, cutting over live, and going back without loss.

    source ── reading ── plan ── copy ── verify ── cutover ── mirror ⇄ rollback         every run kept

| file | purpose |
|---|---|
| `source.py` | what a source is: snapshot, fingerprint, writer; its errors |
| `sources/` | one file a kind of store; `open_source` finds the right one |
| `export.py` | the way out: lines of JSON, or folders that Baileys opens |
| `reading.py` | sessions of one snapshot, one after another |
| `plan.py` | pure: what becomes of each row, and what is in the way |
| `target.py` | our side, read in one snapshot |
| `copy.py` | in one statement a session, or not at all |
| `verify.py` | both sides read again and compared, both ways; `integrity.py` asks the rules |
| `leases.py` | a run's own name in leases, and what a killed run left; `alive.py` knows that its process is gone |
| `cutover.py` | a living session moves; `holding.py` keeps its lease meanwhile |
| `fence.py` | the lease that keeps a session closed here once it was given back |
| `mirror.py` | later commits back to the source, in order |
| `mirror_state.py` | how far each mirror is behind, and what keeps it |
| `rollback.py` | the session back to its source, with everything committed here |
| `origin.py`, `runs.py` | what is remembered: where a session came from, what was run |
| `report.py` | what is shown and written down; `summary.py`: of that, what a terminal shows |

Source rows are taken as they are found; `protocol.repairs` says what they mean, `protocol.digest` when two values are the
same. The source is only written by a mirror or a rollback, in its own spelling.

A serving process learns where to mirror to from the session itself: its origin is sealed under its data key. Nobody needs
to configure a source there, a database dump gives no password away, and purging the session forgets it.
"""
