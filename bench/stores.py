"""Who takes part, on which servers, and what is left out because a program is missing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.afterwork import Afterwork
from bench.counters import Commands, Questions, Reader, Requests, Statements
from bench.servers import Missing
from bench.servers.mariadb import MariaDb
from bench.servers.postgres import Postgres, season
from bench.servers.redis import Redis
from bench.servers.service import Service

DIRECT: Final = "direct"
AGAIN: Final = "direct-again"
OURS: Final = "ours"
# Every store keeps its connections while the others run.
_ROOM_FOR_ALL: Final = {"max_connections": "200"}
# What is said of a store over Postgres until its fsyncs are counted.
_UNPROVEN: Final = "not proven"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A store under measurement. ``durable`` as its own documentation and settings have it; Postgres is also counted."""

    name: str
    label: str
    kind: str
    settings: dict[str, Any] = field(repr=False)
    durable: str
    counters: Sequence[Reader] = ()
    afterwork: Afterwork | None = None

    def wait(self) -> None:
        """Until nothing is left to do of what it has answered."""
        if self.afterwork is not None:
            self.afterwork.wait()

    @property
    def statements(self) -> Statements | None:
        """Its Postgres database, where it has one."""
        return next((counter for counter in self.counters if isinstance(counter, Statements)), None)


@dataclass(slots=True)
class Field:
    """Everybody on the start line. ``left_out``: label -> why."""

    contestants: list[Contestant] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def servers(self) -> list[Any]:
        """Each Postgres once."""
        return list({id(c.statements.sql): c.statements.sql for c in self.contestants if c.statements}.values())

    def season(self, say: Callable[[str], None]) -> None:
        """Lets every Postgres write until its log goes on in files that it has."""
        say("seasoning Postgres")
        for sql in self.servers:
            season(sql)


OUR_CONFIGURATIONS: Final = (OURS, "ours-no-memory", "ours-socket", "ours-bare", "ours-workers", "ours-embedded")
NAMES: Final = {
    *(
        "multi-file",
        "postgres-baileys",
        "mysql-baileys",
        "wa-auth-store",
        "redis-always",
        "redis-everysec",
        "redis-best",
    ),
    *(DIRECT, AGAIN, "direct-aes", "direct-usual", *OUR_CONFIGURATIONS),
}


@contextmanager
def line_up(folder: Path, only: Sequence[str] = ()) -> Iterator[Field]:
    """Starts what the wanted stores need; all of them when ``only`` is empty. Everything stops at the end.

    Raises ValueError for a name that no store has.
    """
    if unknown := set(only) - NAMES:
        raise ValueError(f"no store is called {', '.join(sorted(unknown))}: {', '.join(sorted(NAMES))}")
    with ExitStack() as stack:
        builder = _Builder(folder, stack, only)
        builder.files()
        builder.postgres_stores()
        builder.redis_stores()
        builder.mysql()
        builder.ours()
        yield builder.field


class _Builder:
    def __init__(self, folder: Path, stack: ExitStack, only: Sequence[str]) -> None:
        self._folder = folder
        self._stack = stack
        self._only = only
        self.field = Field()
        self._postgres = stack.enter_context(Postgres(self._room("postgres"), _ROOM_FOR_ALL))
        self._redis: dict[str, Redis] = {}
        self.field.versions["postgres"] = self._postgres.version

    def files(self) -> None:
        self._add(
            "multi-file", "Baileys' multi-file", "multi-file", {"folder": str(self._room("files"))}, "no: never fsyncs"
        )

    def postgres_stores(self) -> None:
        for name, label, settings in (
            (DIRECT, "direct", {}),
            (AGAIN, "direct, again", {}),
            ("direct-aes", "direct + AES-256-GCM", {"aes": True}),
            ("direct-usual", "direct, Baileys' own codec", {"codec": "usual"}),
        ):
            self._add_on_postgres(name, label, DIRECT, settings)
        self._add_on_postgres("postgres-baileys", "postgres-baileys", "postgres-baileys", {})

    def redis_stores(self) -> None:
        for fsync, durable in (("always", "yes: fsync always"), ("everysec", "no: may lose a second")):
            if not self._wants(f"redis-{fsync}", *(("redis-best", "wa-auth-store") if fsync == "always" else ())):
                continue
            try:
                redis = self._stack.enter_context(Redis(self._room(f"redis-{fsync}"), fsync))  # type: ignore[arg-type]
            except Missing as missing:
                self.field.left_out[f"Redis ({fsync})"] = f"{missing} is not installed"
                continue
            self._redis[fsync] = redis
            self.field.versions["redis"] = redis.version
            label = f"Redis, usual style, fsync {fsync}"
            self._add(f"redis-{fsync}", label, "redis-usual", {"url": redis.url}, durable, [Commands(redis)])
            if fsync == "always":
                label = "Redis, best by hand, fsync always"
                self._add("redis-best", label, "redis-best", {"url": redis.url}, durable, [Commands(redis)])
        if "always" in self._redis and self._wants("wa-auth-store"):
            redis = self._redis["always"]
            more = {"redisUrl": redis.url}
            self._add_on_postgres("wa-auth-store", "wa-auth-store", "wa-auth-store", more, [Commands(redis)])
        elif self._wants("wa-auth-store"):
            self.field.left_out["wa-auth-store"] = "needs redis-server"

    def mysql(self) -> None:
        if not self._wants("mysql-baileys"):
            return
        try:
            server = self._stack.enter_context(MariaDb(self._room("mariadb")))
        except Missing as missing:
            self.field.left_out["mysql-baileys"] = f"{missing} is not installed"
            return
        self.field.versions["mariadb"] = server.version
        self._add("mysql-baileys", "mysql-baileys", "mysql-baileys", server.settings, "no: MyISAM", [Questions(server)])

    def ours(self) -> None:
        """One service on the rivals' Postgres, one there with two processes, one with a Postgres of its own."""
        if self._wants(OURS, "ours-no-memory", "ours-socket", "ours-bare"):
            url = self._postgres.database(OURS)
            one = self._serve(OURS, url)
            counters: list[Reader] = [Statements(self._postgres.sql, OURS, url), Requests(one)]
            self._add_client(OURS, "**ours**", one, counters)
            self._add_client("ours-no-memory", "ours, no memory", one, counters, {"memoryBytes": 0})
            settings = {"url": f"unix:{one.socket}", "token": one.token}
            self._add_ours("ours-socket", "ours, unix socket", "client", settings, counters)
            settings = {"url": one.url, "token": one.token}
            self._add_ours("ours-bare", "ours, bare HTTP, no client", "bare-http", settings, counters)
        if self._wants("ours-workers"):
            url = self._postgres.database("ours-workers")
            two = self._serve("ours-workers", url, workers=2)
            more: list[Reader] = [Statements(self._postgres.sql, "ours-workers", url), Requests(two)]
            self._add_client("ours-workers", "ours, two processes", two, more)
        if self._wants("ours-embedded"):
            own = self._serve("ours-embedded", None)
            its: list[Reader] = [Statements(own.sql, "authstore", own.postgres_url), Requests(own)]
            self._add_client("ours-embedded", "ours, embedded Postgres", own, its)

    def _add_client(
        self, name: str, label: str, service: Service, counters: Sequence[Reader], options: dict[str, Any] | None = None
    ) -> None:
        settings = {"url": service.url, "token": service.token, "options": options or {}}
        self._add_ours(name, label, "client", settings, counters)

    def _add_ours(self, name: str, label: str, kind: str, settings: dict[str, Any], counters: Sequence[Reader]) -> None:
        statements = next(counter for counter in counters if isinstance(counter, Statements))
        self._add(name, label, kind, settings, _UNPROVEN, counters, Afterwork(statements))

    def _add_on_postgres(
        self, name: str, label: str, kind: str, settings: dict[str, Any], more: Sequence[Reader] = ()
    ) -> None:
        if self._wants(name):
            url = self._postgres.database(name)
            counters = [Statements(self._postgres.sql, name, url), *more]
            self._add(name, label, kind, {"url": url, **settings}, _UNPROVEN, counters)

    def _add(
        self,
        name: str,
        label: str,
        kind: str,
        settings: dict[str, Any],
        durable: str,
        counters: Sequence[Reader] = (),
        afterwork: Afterwork | None = None,
    ) -> None:
        if self._wants(name):
            self.field.contestants.append(Contestant(name, label, kind, settings, durable, counters, afterwork))

    def _serve(self, name: str, url: str | None, *, workers: int = 1) -> Service:
        service = self._stack.enter_context(Service(self._room(name), url, workers=workers))
        self.field.services[name] = service
        return service

    def _wants(self, *names: str) -> bool:
        return not self._only or any(name in self._only for name in names)

    def _room(self, name: str) -> Path:
        room = self._folder / name
        room.mkdir(mode=0o755)
        return room
