"""``leak_scene_service.py SEED scrubbed|plain ARGUMENTS...``: the `authstore` command with marked data keys and faults.

The last part of a session's name asks for a fault that cannot be made from outside: a bug in a handler, a failing task,
thread, finalizer or housekeeping, each with secrets in arguments and locals. ``scrubbed`` is otherwise the service as it
is. ``plain`` is the control: Sentry and logging as they come, errors told to the caller, metrics labelled by the path.
"""

import asyncio
import itertools
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from leak_scene_marks import DATA_KEYS, MASTER, Marked

from service import process
from service.cli import main as command
from service.config import Settings
from service.http import edge, failures, problems, server
from service.observe import logs, metrics, reports
from service.store import AuthStore, commits, sessions
from service.store.request import CommitRequest
from service.vault import new_data_key


class Faults:
    """Faults by the last part of a session's name."""

    def __init__(self, marked: Marked) -> None:
        self._master = marked.secrets.key(MASTER)
        self._names: dict[str, Callable[[str, CommitRequest, AuthStore], None]] = {
            "bug": self.in_a_handler,
            "task": self.in_a_task,
            "callback": self.in_a_callback,
            "thread": self.in_a_thread,
            "finalizer": self.in_a_finalizer,
            "house": self.in_housekeeping,
        }

    def install(self) -> None:
        """Puts them in the way of every commit."""
        real, named = AuthStore.commit, self._names

        async def commit(store: AuthStore, caller: Any, name: str, request: CommitRequest) -> Any:
            fault = named.get(name.rpartition("-")[2])
            if fault is not None:
                fault(name, request, store)
            return await real(store, caller, name, request)

        AuthStore.commit = commit  # type: ignore[method-assign]

    def in_a_handler(self, name: str, request: CommitRequest, _: AuthStore) -> None:
        master, held = self._master, [(row.key_id, row.value) for row in request.rows]
        raise RuntimeError("a bug", name, request.creds, held, len(master))

    def in_a_task(self, name: str, request: CommitRequest, store: AuthStore) -> None:
        async def lost() -> None:
            self.in_a_handler(name, request, store)

        asyncio.get_running_loop().create_task(lost(), name=name)

    def in_a_callback(self, name: str, request: CommitRequest, store: AuthStore) -> None:
        asyncio.get_running_loop().call_soon(self.in_a_handler, name, request, store)

    def in_a_thread(self, name: str, request: CommitRequest, store: AuthStore) -> None:
        threading.Thread(target=self.in_a_handler, args=(name, request, store), name=name).start()

    def in_a_finalizer(self, name: str, request: CommitRequest, store: AuthStore) -> None:
        in_a_handler = self.in_a_handler

        class Finalized:
            def __del__(self) -> None:
                in_a_handler(name, request, store)

        Finalized()

    def in_housekeeping(self, name: str, request: CommitRequest, store: AuthStore) -> None:
        def refresh() -> bool:
            del store.masters.refresh  # type: ignore[method-assign]
            raise ValueError(name, request.creds, self._master)

        store.masters.refresh = refresh  # type: ignore[method-assign]


def mark_data_keys(marked: Marked) -> None:
    """Every data key is a needle."""
    numbers = itertools.count(DATA_KEYS)

    def marked_data_key() -> tuple[int, bytes]:
        return new_data_key()[0], marked.secrets.key(next(numbers))

    commits.new_data_key = sessions.new_data_key = marked_data_key


def uncover() -> None:
    """The control."""

    def prepare(settings: Settings) -> None:
        logging.basicConfig(level=logging.DEBUG, force=True)
        assert settings.sentry_dsn is not None
        reports.setup_sentry(settings.sentry_dsn.get_secret_value(), scrub=False)

    def emit(log: Any, number: int, _level: str, event: str, exc: Any, given: dict[str, object]) -> None:
        logging.getLogger("plain").log(number, "%s %r", event, given, exc_info=exc)

    def told(error: Exception, request_id: str | None = None) -> problems.Problem:
        problem = problem_of(error, request_id)
        problem.detail = "".join(traceback.format_exception(error)) + repr(error.__dict__)
        return problem

    problem_of = problems.problem_of
    failures.problem_of = server.problem_of = told
    edge.route_of = failures.route_of = lambda request: request.path
    metrics._FORMS["route"] = re.compile(".*")
    logs.Log._emit = emit  # type: ignore[method-assign]
    process.prepare_process = prepare
    process.loop_exception_handler = lambda loop, context: loop.default_exception_handler(context)
    command.install_hooks = lambda: None


def main(seed: str, scrubbed: bool, arguments: list[str]) -> None:
    marked = Marked(seed)
    mark_data_keys(marked)
    Faults(marked).install()
    if not scrubbed:
        uncover()
    sys.argv = ["authstore", *arguments]
    command.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "scrubbed", sys.argv[3:])
