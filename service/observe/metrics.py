"""Metrics for Prometheus. Labels come from code: route templates, statement names, outcomes; never from a request."""

import platform
from collections.abc import Callable, Mapping
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.observe.tallies import Counts, Spread, counted_as

LeaseEvent = Literal["granted", "renewed", "taken_over", "refused", "released"]
PoolState = Literal["busy", "idle", "waiting"]

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Gauges(dict[tuple[str, ...], Gauge]):
    """A gauge's series by their labels' values, each looked up in the library once."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, label: str) -> None:
        super().__init__()
        self._labels = (label,)
        self._gauge = Gauge(f"authstore_{name}", text, self._labels, registry=registry)

    def __missing__(self, values: tuple[str, ...]) -> Gauge:
        shown = counted_as(self._labels, values)
        series = self._gauge.labels(*shown)
        if shown == values:
            self[values] = series
        return series


class Metrics:
    """The service's metrics, on a registry of their own. Safe on the hot path: counting is a look-up."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counts(registry, "requests", "Requests answered.", "method", "route", "status")
        self._request_s = Spread(registry, "request_duration_seconds", "Request to answer.", _SECONDS, "route")
        self._commits = Counts(registry, "commits", "Commits by what became of them.", "outcome")
        self._rows = Spread(registry, "commit_rows", "Keys in an applied commit.", _ROWS)
        self._statement_s = Spread(
            registry, "statement_duration_seconds", "Statement to result.", _SECONDS, "statement"
        )
        self._pool = _Gauges(registry, "pool_connections", "Connections, and callers waiting for one.", "state")
        self._lane_batch = Spread(registry, "lane_batch_size", "Callers served by a statement.", _BATCH, "lane")
        self._leases = Counts(registry, "lease_events", "Leases by what happened to them.", "event")
        self._corrupt = Counts(registry, "corrupt", "Stored rows that did not open or did not match.")
        self._checks = Counts(registry, "integrity_checks", "Sessions checked, by verdict.", "verdict")
        self._findings = _Gauges(registry, "open_findings", "Findings of the last checks, by rule.", "rule")
        self._restarts = Counts(registry, "postgres_restarts", "Restarts of the embedded Postgres.")
        build = Gauge("authstore_build_info", "What runs.", ["version", "python"], registry=registry)
        build.labels(version, platform.python_version()).set(1)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. ``route`` is the template, or ``unmatched``; never the path."""
        self._requests.add(method, route, str(status))
        self._request_s.observe(seconds, route)

    def commit(self, outcome: str, rows: int) -> None:
        """Count a commit by its outcome: ``applied``, ``replayed`` or a refusal's name; and its keys when applied."""
        self._commits.add(outcome)
        if outcome == "applied":
            self._rows.observe(rows)

    def statement(self, name: str, seconds: float) -> None:
        """Count a statement by its name."""
        self._statement_s.observe(seconds, name)

    def pool(self, *, busy: int, idle: int, waiting: int) -> None:
        """Say what the pool holds now."""
        for state, value in (("busy", busy), ("idle", idle), ("waiting", waiting)):
            self._pool[state,].set(value)

    def watch_pool(self, state: PoolState, read: Callable[[], float]) -> None:
        """Ask for a number of the pool when the metrics are read, instead of being told."""
        self._pool[state,].set_function(read)

    def lane_batch(self, lane: str, size: int) -> None:
        """Count a statement that a lane sent, with how many callers it served."""
        self._lane_batch.observe(size, lane)

    def lease(self, event: LeaseEvent) -> None:
        """Count what happened to a lease."""
        self._leases.add(event)

    def corrupt(self) -> None:
        """Count a stored row that did not open or did not match."""
        self._corrupt.add()

    def integrity_check(self, verdict: str) -> None:
        """Count a check of a session: ``good``, ``warnings`` or ``errors``."""
        self._checks.add(verdict)

    def open_findings(self, rules: Mapping[str, int]) -> None:
        """Say how many findings of each rule are open; rules left out have none."""
        for (rule,) in self._findings:
            self._findings[rule,].set(rules.get(rule, 0))
        for rule, count in rules.items():
            self._findings[rule,].set(count)

    def postgres_restart(self) -> None:
        """Count a restart of the embedded Postgres."""
        self._restarts.add()

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
