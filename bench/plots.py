"""Plots as SVG: ratios as dots, costs as lines. Logarithmic, readable on a light and on a dark page."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from bench.stores import AGAIN, DIRECT

# Told apart also in print; reds are ours alone.
_COLORS: Final = (
    "#1f77b4",
    "#2ca02c",
    "#9467bd",
    "#ff9f1c",
    "#17becf",
    "#8c564b",
    "#5c6b73",
    "#bcbd22",
    "#1b4965",
    "#7f7f7f",
)
_OURS: Final = ("#d62728", "#f28482", "#9d0208", "#e85d75", "#f4a3a3", "#6a040f")
_TICKS: Final = (1, 2, 5)


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._shapes: list[str] = []

    def text(
        self, x: float, y: float, said: str, *, anchor: str = "start", bold: bool = False, color: str = "#222"
    ) -> None:
        weight = ' font-weight="bold"' * bold
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{weight}>{escape(said)}</text>'
        )

    def line(
        self, points: Sequence[tuple[float, float]], color: str, width: float = 1.0, *, dashed: bool = False
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="5 4"' * dashed
        self._shapes.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>')

    def dot(self, x: float, y: float, color: str, title: str, radius: float = 4.5) -> None:
        said = f"<title>{escape(title)}</title>"
        self._shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}" fill-opacity="0.85">{said}</circle>'
        )

    def svg(self) -> str:
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        )
        style = ' font-family="system-ui,sans-serif" font-size="12">'
        ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
        return head + style + ground + "".join(self._shapes) + "</svg>\n"


class _Scale:
    """Values to places, logarithmically."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._low, self._high = math.log10(min(positive)), math.log10(max(positive))
        if self._high - self._low < 0.2:
            self._low, self._high = self._low - 0.1, self._high + 0.1
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        part = (math.log10(max(value, 1e-9)) - self._low) / (self._high - self._low)
        return self._first + part * (self._last - self._first)

    def ticks(self) -> list[float]:
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        every = [step * 10.0**decade for decade in decades for step in _TICKS]
        inside = [value for value in every if self._low - 1e-9 <= math.log10(value) <= self._high + 1e-9]
        return inside if len(inside) <= 9 else [value for value in inside if math.log10(value) % 1 < 1e-9]


def ratios(results: Mapping[str, Any], workloads: Mapping[str, str], by_rate: frozenset[str]) -> str:
    """Each workload a row, each store a dot: how many times slower or faster than `direct`."""
    stores = {name: store for name, store in results["stores"].items() if name not in {DIRECT, AGAIN}}
    shown = [workload for workload in workloads if workload not in results["void"]]
    names = {name: store["label"].strip("*") for name, store in stores.items()}
    left, row, top = 250, 34, 46
    legend_top = top + row * len(shown) + 34
    canvas = _Canvas(960, legend_top + 20 * math.ceil(len(stores) / 3) + 8)
    slower = {
        (name, workload): _slower(store["workloads"][workload]["ratio"], inverted=workload in by_rate)
        for name, store in stores.items()
        for workload in shown
        if workload in store["workloads"]
    }
    scale = _Scale([*slower.values(), 1.0], left, 930)
    bottom = top + row * len(shown)
    for tick in scale.ticks():
        canvas.line([(scale(tick), top - 8), (scale(tick), bottom - 8)], "#222" if tick == 1 else "#ddd")
        canvas.text(scale(tick), bottom + 8, f"{tick:g}×", anchor="middle", color="#666")
    canvas.text(left, 20, "time, as a multiple of direct (left is faster)", bold=True)
    colors = _colors(list(stores))
    for place, workload in enumerate(shown):
        y = top + row * place + 8
        canvas.text(8, y + 4, f"{workload} {workloads[workload]}")
        canvas.line([(left, y), (930, y)], "#eee")
        for name in sorted(stores, key=lambda name: (name.startswith("ours"), name == "ours")):
            if (name, workload) in slower:
                value = slower[name, workload]
                canvas.dot(
                    scale(value), y, colors[name], f"{names[name]}: {value:.2f}×", 6.5 if name == "ours" else 4.5
                )
    _legend(canvas, [(names[name], colors[name]) for name in stores], legend_top, 960)
    return canvas.svg()


Curves = Mapping[str, Mapping[float, float]]


def lines(title: str, unit: str, across: str, ours: Curves, direct: Curves) -> str:
    """Curves by what they measure, {x: y} each, both axes logarithmic; those of `direct` dashed."""
    series = {f"ours, {name}": curve for name, curve in ours.items()}
    series |= {f"direct, {name}": curve for name, curve in direct.items()}
    colors = dict(zip(ours, (_OURS[0], *_COLORS), strict=False))
    canvas = _Canvas(720, 360 + 20 * math.ceil(len(ours) / 3))
    xs = sorted({x for curve in series.values() for x in curve})
    horizontal = _Scale(xs, 70, 690)
    vertical = _Scale([y for curve in series.values() for y in curve.values()], 300, 50)
    canvas.text(70, 22, f"{title} ({unit})", bold=True)
    for tick in vertical.ticks():
        canvas.line([(70, vertical(tick)), (690, vertical(tick))], "#ddd")
        canvas.text(62, vertical(tick) + 4, f"{tick:g}", anchor="end", color="#666")
    for x in xs:
        canvas.line([(horizontal(x), 50), (horizontal(x), 300)], "#eee")
        canvas.text(horizontal(x), 318, f"{x:,.0f}", anchor="middle", color="#666")
    canvas.text(380, 336, across, anchor="middle", color="#666")
    entries = []
    for label, curve in series.items():
        store, _, measure = label.partition(", ")
        color = colors[measure]
        points = [(horizontal(x), vertical(y)) for x, y in sorted(curve.items())]
        canvas.line(points, color, 2, dashed=store == "direct")
        for (x, y), value in zip(points, (y for _, y in sorted(curve.items())), strict=True):
            canvas.dot(x, y, color, f"{label}: {value:g} {unit}", 3.5)
        if store == "ours":
            entries.append((measure, color))
    canvas.text(690, 22, "ours: solid, direct: dashed", anchor="end", color="#666")
    _legend(canvas, entries, 360, 720)
    return canvas.svg()


def _slower(ratio: float, *, inverted: bool) -> float:
    return 1 / ratio if inverted else ratio


def _colors(names: Sequence[str]) -> dict[str, str]:
    """Ours in reds, the plainest for the store as it ships."""
    ours = sorted(name for name in names if name.startswith("ours"))
    others = [name for name in names if not name.startswith("ours")]
    return dict(zip(ours, _OURS * 3, strict=False)) | dict(zip(others, _COLORS * 3, strict=False))


def _legend(canvas: _Canvas, entries: Sequence[tuple[str, str]], top: float, width: int) -> None:
    for n, (label, color) in enumerate(entries):
        x, y = 12 + n % 3 * (width / 3), top + n // 3 * 20
        canvas.dot(x, y - 4, color, label)
        canvas.text(x + 12, y, label)
