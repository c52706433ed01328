"""The command line, one file per verb group.

| file | verbs |
|---|---|
| `main.py` | common options, exit codes |
| `tree.py` | the commands by name, each imported when it is asked for |
| `surroundings.py` | settings, and a store on the running or a started database |
| `serving.py` | serve |
| `health.py`, `doctor.py` | health, doctor |
| `asking.py` | where the running service is, and how |
| `container.py` | whether this is inside a container |
| `check.py` | check |
| `export.py` | export, import |
| `bench.py`, `bench_state.py` | bench |
| `tokens.py` | token create, list, revoke |
| `keys.py` | key rotate, status |
| `sessions.py` | sessions list, show, release, delete, deleted, restore |
| `migrate.py`, `migrate_options.py` | migrate plan, copy, verify, cutover, mirror, rollback, list, show |
| `schema.py` | schema apply, status |
| `output.py` | table or JSON |
"""
