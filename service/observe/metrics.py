"""Metrics for Prometheus. Labels come from code: route templates, outcomes; never from a request."""

import platform
import re
from collections import Counter as TallyOf
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from typing_extensions import override

from service.observe.fields import ROUTE

LeaseEvent = Literal["granted", "renewed", "taken_over", "refused", "released"]
PoolState = Literal["busy", "idle", "waiting"]

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The form of each label; a value of another form is counted as "other".
_FORMS: Final = {
    name: re.compile(pattern)
    for name, pattern in {
        "method": r"GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS",
        "route": ROUTE,
        "status": r"[1-5]\d\d",
    }.items()
}
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _Series(dict[tuple[str, ...], _Metric]):
    """A metric's series by their labels' values, each looked up in the library once."""

    def __init__(self, metric: _Metric, *labels: str) -> None:
        super().__init__()
        self._metric: _Metric = metric
        self._forms = [_FORMS.get(label, _NAME) for label in labels]

    def __missing__(self, values: tuple[str, ...]) -> _Metric:
        fitting = zip(values, self._forms, strict=True)
        counted = tuple(value if form.fullmatch(value) else "other" for value, form in fitting)
        series: _Metric = self._metric.labels(*counted) if counted else self._metric
        if counted == values:
            self[values] = series
        return series


class _Tally(Collector):
    """A histogram of whole numbers: counted by the thousand a second, put into buckets when somebody asks."""

    def __init__(self, name: str, text: str, bounds: Sequence[int]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._seen: TallyOf[int] = TallyOf()

    def add(self, values: Iterable[int]) -> None:
        self._seen.update(values)

    @override
    def collect(self) -> Iterable[Metric]:
        seen = sorted(self._seen.items())
        buckets = [(str(float(bound)), sum(n for value, n in seen if value <= bound)) for bound in self._bounds]
        buckets.append(("+Inf", sum(n for _, n in seen)))
        yield HistogramMetricFamily(self._name, self._text, buckets, sum(value * n for value, n in seen))


class Metrics:
    """The service's metrics, on a registry of their own. Safe on the hot path: every series is looked up once."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = _counter(registry, "requests", "Requests answered.", "method", "route", "status")
        self._request_s = _histogram(registry, "request_duration_seconds", "Request to answer.", _SECONDS, "route")
        self._commits = _counter(registry, "commits", "Commits by what became of them.", "outcome")
        self._rows = _Tally("authstore_commit_rows", "Keys in an applied commit.", _ROWS)
        registry.register(self._rows)
        self._pool = _gauge(registry, "pool_connections", "Connections, and callers waiting for one.", "state")
        self._lane_batch = _histogram(registry, "lane_batch_size", "Callers served by a statement.", _BATCH, "lane")
        self._leases = _counter(registry, "lease_events", "Leases by what happened to them.", "event")
        self._corrupt = _counter(registry, "corrupt", "Stored rows that did not open or did not match.")
        self._checks = _counter(registry, "integrity_checks", "Sessions checked, by verdict.", "verdict")
        self._findings = _gauge(registry, "open_findings", "Findings of the last checks, by rule.", "rule")
        self._restarts = _counter(registry, "postgres_restarts", "Restarts of the embedded Postgres.")
        self._mirrored = _gauge(
            registry, "mirror_waiting_sessions", "Sessions with commits that wait for their source."
        )
        self._mirror_s = _gauge(registry, "mirror_oldest_seconds", "Age of the commit that waits longest, 0 for none.")
        build = Gauge("authstore_build_info", "What runs.", ["version", "python"], registry=registry)
        build.labels(version, platform.python_version()).set(1)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. ``route`` is the template, or ``unmatched``; never the path."""
        self._requests[method, route, str(status)].inc()
        self._request_s[route,].observe(seconds)

    def refused(self, outcome: str) -> None:
        """Count a commit that was not applied, by the name of its refusal."""
        self._commits[outcome,].inc()

    def applied(self, rows: Sequence[int]) -> None:
        """Count commits that were applied, by the keys of each."""
        self._commits["applied",].inc(len(rows))
        self._rows.add(rows)

    def pool(self, *, busy: int, idle: int, waiting: int) -> None:
        """Say what the pool holds now."""
        for state, value in (("busy", busy), ("idle", idle), ("waiting", waiting)):
            self._pool[state,].set(value)

    def watch_pool(self, state: PoolState, read: Callable[[], float]) -> None:
        """Ask for a number of the pool when the metrics are read, instead of being told."""
        self._pool[state,].set_function(read)

    def lane_batch(self, lane: str, size: int) -> None:
        """Count a statement that a lane sent, with how many callers it served."""
        self._lane_batch[lane,].observe(size)

    def lease(self, event: LeaseEvent) -> None:
        """Count what happened to a lease."""
        self._leases[event,].inc()

    def corrupt(self) -> None:
        """Count a stored row that did not open or did not match."""
        self._corrupt[()].inc()

    def integrity_check(self, verdict: str) -> None:
        """Count a check of a session: ``good``, ``warnings`` or ``errors``."""
        self._checks[verdict,].inc()

    def open_findings(self, rules: Mapping[str, int]) -> None:
        """Say how many findings of each rule are open; rules left out have none."""
        for (rule,) in self._findings:
            self._findings[rule,].set(rules.get(rule, 0))
        for rule, count in rules.items():
            self._findings[rule,].set(count)

    def postgres_restart(self) -> None:
        """Count a restart of the embedded Postgres."""
        self._restarts[()].inc()

    def mirrors(self, sessions: int, oldest_s: float) -> None:
        """Say how many mirrored sessions have commits that wait for their source, and since when."""
        self._mirrored[()].set(sessions)
        self._mirror_s[()].set(oldest_s)

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> _Series[Counter]:
    return _Series(Counter(f"authstore_{name}", text, labels, registry=registry), *labels)


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> _Series[Gauge]:
    return _Series(Gauge(f"authstore_{name}", text, labels, registry=registry), *labels)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: Sequence[float], *labels: str
) -> _Series[Histogram]:
    return _Series(Histogram(f"authstore_{name}", text, labels, buckets=buckets, registry=registry), *labels)
