"""What is counted with every request, at the price of a look-up: the event loop's thread alone counts, so no lock is taken.

The library's own counters and histograms lock for each number, and check for each what was true when they were made.
Here they are made into its form when somebody reads them.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from service.observe.fields import ROUTE

# The form of each label; a value of another form is counted as "other".
_FORMS: Final = {
    name: re.compile(pattern)
    for name, pattern in {
        "method": r"GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS",
        "route": ROUTE,
        "status": r"[1-5]\d\d",
    }.items()
}
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_INFINITE: Final = "+Inf"

Values = tuple[str, ...]


def counted_as(labels: Sequence[str], values: Values) -> Values:
    """The values of labels as they may be shown."""
    fitting = zip(labels, values, strict=True)
    return tuple(value if _FORMS.get(label, _NAME).fullmatch(value) else "other" for label, value in fitting)


class Counts(Collector):
    """A counter. One without labels is shown from the start."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"authstore_{name}", text, labels
        self._counts: dict[Values, int] = {} if labels else {(): 0}
        registry.register(self)

    def add(self, *values: str) -> None:
        """Count one."""
        try:
            self._counts[values] += 1
        except KeyError:
            shown = counted_as(self._labels, values)
            self._counts[shown] = self._counts.get(shown, 0) + 1

    @override
    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


class Spread(Collector):
    """A histogram: of each series how many fell under each bound, beyond the last, and their sum."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, bounds: Sequence[float], *labels: str
    ) -> None:
        self._name, self._text, self._labels = f"authstore_{name}", text, labels
        self._bounds = bounds
        self._shown_bounds = [*(str(float(bound)) for bound in bounds), _INFINITE]
        self._cells: dict[Values, list[float]] = {}
        if not labels:
            self._start(())
        registry.register(self)

    def observe(self, amount: float, *values: str) -> None:
        """Count an amount."""
        cells = self._cells.get(values) or self._start(counted_as(self._labels, values))
        cells[bisect_left(self._bounds, amount)] += 1
        cells[-1] += amount

    def _start(self, values: Values) -> list[float]:
        return self._cells.setdefault(values, [0.0] * (len(self._bounds) + 2))

    @override
    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, cells in self._cells.items():
            up_to = [sum(cells[: place + 1]) for place in range(len(self._shown_bounds))]
            family.add_metric(values, list(zip(self._shown_bounds, up_to, strict=True)), cells[-1])
        yield family
