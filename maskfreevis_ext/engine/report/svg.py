"""Line charts as SVG that stands in an HTML page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

#: Colour-blind safe: Okabe and Ito, "Color Universal Design", 2008.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_WIDTH, _HEIGHT = 360, 210  # units of the drawing
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 30  # margins
_MAX_POINTS = 300
_MAX_DOTS = 40  # curves with more points are drawn without dots


@dataclass(frozen=True)
class Series:
    """A curve: its name, and (x, y) points with rising x and finite values."""

    name: str
    points: Sequence[Point]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover a range evenly.

    Args:
        low: Smallest value.
        high: Largest value, at least ``low``.
        count: About how many steps.

    Returns:
        Rising; the first is at most ``low`` and the last at least ``high``.

    >>> ticks(0.3, 2.2)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    >>> ticks(5, 5)
    [4.0, 5.0, 6.0]
    """
    if high <= low:
        step = abs(low) or 1.0
        low, high, count = low - step / 5, low + step / 5, 2
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def thin_out(points: Sequence[Point], most: int = _MAX_POINTS) -> list[Point]:
    """Means of neighbouring points, so that there are at most ``most``.

    Args:
        points: The points.
        most: Largest number of points that are returned.

    >>> thin_out([(0, 1), (1, 3), (2, 5), (3, 7)], 2)
    [(0.5, 2.0), (2.5, 6.0)]
    """
    size = -(-len(points) // most)
    groups = [points[start : start + size] for start in range(0, len(points), max(size, 1))]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def line_chart(title: str, series: Sequence[Series], zero: bool = True) -> str:
    """A chart with a title, axes, and a legend where there are several curves.

    Args:
        title: What is shown.
        series: The curves; those without a point are left out.
        zero: Let the vertical axis begin at 0 where all values are positive.

    Returns:
        A ``figure`` element; "" where no curve has two points.
    """
    shown = [Series(one.name, thin_out(one.points)) for one in series if one.points]
    if max((len(one.points) for one in shown), default=0) < 2:
        return ""
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    low = 0.0 if zero and min(ys) >= 0 else min(ys)
    y_ticks = ticks(low, max(ys))
    x_ticks = [x for x in ticks(min(xs), max(xs)) if min(xs) <= x <= max(xs)]
    scale = _Scale(min(xs), max(xs), y_ticks[0], y_ticks[-1])
    parts = _axes(scale, x_ticks, y_ticks)
    for index, one in enumerate(shown):
        parts.append(_curve(scale, one, COLORS[index % len(COLORS)]))
    legend = "".join(
        f'<span><i style="background:{COLORS[index % len(COLORS)]}"></i>{html.escape(one.name)}'
        "</span>"
        for index, one in enumerate(shown)
        if len(shown) > 1
    )
    name = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{name}{legend}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        + "".join(parts)
        + "</svg></figure>"
    )


def bar_chart(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """A histogram with a name below each bar.

    Args:
        title: What is counted.
        counts: Name and height of each bar; at least one.

    Returns:
        A ``figure`` element.
    """
    y_ticks = ticks(0, max(count for _, count in counts))
    scale = _Scale(0, len(counts), 0, y_ticks[-1])
    parts = _axes(scale, (), y_ticks)
    step = -(-len(counts) // 9)  # names that have room
    for index, (name, count) in enumerate(counts):
        left, right, top = scale.x(index + 0.1), scale.x(index + 0.9), scale.y(count)
        parts.append(
            f'<rect x="{left}" y="{top}" width="{right - left:.1f}"'
            f' height="{scale.y(0) - top:.1f}" style="fill:{COLORS[0]}">'
            f"<title>{html.escape(f'{name}: {count}')}</title></rect>"
        )
        if index % step == 0:
            parts.append(
                f'<text x="{scale.x(index + 0.5)}" y="{_HEIGHT - 10}" text-anchor="middle">'
                f"{html.escape(name)}</text>"
            )
    name = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{name}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        + "".join(parts)
        + "</svg></figure>"
    )


@dataclass(frozen=True)
class _Scale:
    """From values to places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1.0)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _axes(scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for value in y_ticks:
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_text(value)}</text>')
    for value in x_ticks:
        parts.append(
            f'<text x="{scale.x(value)}" y="{_HEIGHT - 10}" text-anchor="middle">'
            f"{_text(value)}</text>"
        )
    return parts


def _curve(scale: _Scale, series: Series, color: str) -> str:
    places = [(scale.x(x), scale.y(y)) for x, y in series.points]
    line = " ".join(f"{x},{y}" for x, y in places)
    parts = [f'<polyline points="{line}" style="stroke:{color}"/>']
    if len(places) <= _MAX_DOTS:
        for (x, y), (iteration, value) in zip(places, series.points, strict=True):
            label = html.escape(f"{series.name}: {value:.4g} at {iteration:g}")
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="2.5" style="fill:{color}">'
                f"<title>{label}</title></circle>"
            )
    return "".join(parts)


def _text(value: float) -> str:
    """A tick, at most seven letters long."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    if abs(value) >= 1e4:
        return f"{value / 1000:g}k"
    return f"{value:g}"
