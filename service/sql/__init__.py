"""Everything that speaks SQL, and the only importer of asyncpg (with the migration sources of Postgres).

| file | purpose |
|---|---|
| `pool.py` | connections, their settings; driver errors seen once |
| `lanes.py` | what waits together leaves together, and fails alone |
| `commit.py`, `commit_one.py` | the commit statement: of many sessions, of one |
| `journal.py` | large commits, and those of a burst, as one entry each |
| `settle.py` | how entries become rows: of one session, of several |
| `whole.py` | sessions that are new or replaced whole |
| `fragments.py` | what statements that write a session have in common |
| `keys.py` | reading rows |
| `sids.py` | sessions' uuids as the driver has them |
| `sessions.py` | reading, leasing, deleting, purging sessions |
| `access.py` | tokens and master keys |
| `integrity.py` | a session as it lies there; verdicts, runs and archive of checks |
| `schema.py`, `migrations/*.sql` | the schema and its history |
| `privileges.py` | what a role lacks, and what to run |

No advisory locks, no LISTEN, no session state: every statement works behind a transaction pooler.
"""
