"""Plots of an experiment as PNG. matplotlib is imported here alone, and only to draw them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from experiments.collect import BOUNDARY, IOU, Row
from experiments.metrics import mean_curve
from experiments.tables import MAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour-blind safe: Okabe and Ito, "Color Universal Design", 2008.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_OF_AUXILIARY_OUTPUT = re.compile(r"_\d+$")
_MAX_LOSSES = 11  # beside the total


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_plots(rows: Sequence[Row]) -> dict[str, bytes]:
    """Draw all plots that the finished runs have values for.

    Args:
        rows: The rows of the table.

    Returns:
        File name without ending → PNG. Empty without a finished run.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [(row, _COLORS[i % len(_COLORS)]) for i, row in enumerate(rows) if row.results]
    plots: dict[str, Callable[[Sequence[tuple[Row, str]]], Figure]] = {
        "ap_by_iteration": _ap_by_iteration,
        "ap_by_supervision": _ap_by_supervision,
        "losses": _losses,
        "boundary": _boundary,
    }
    return {name: _png(draw(shown)) for name, draw in plots.items()} if shown else {}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})
    return data.getvalue()


def _curves(axes: Axes, shown: Sequence[tuple[Row, str]], name: str, marker: str) -> None:
    """Mean over seeds as a line, smallest to largest value as a band."""
    for row, color in shown:
        points = mean_curve(row.curves(name))
        if points:
            iterations, means, low, high = zip(*points, strict=True)
            axes.plot(iterations, means, marker, color=color, label=row.variant.title, lw=1.5)
            axes.fill_between(iterations, low, high, color=color, alpha=0.15, lw=0)
    axes.grid(alpha=0.3)


def _ap_by_iteration(shown: Sequence[tuple[Row, str]]) -> Figure:
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    _curves(axes, shown, "segm/AP", "o-")
    axes.set(xlabel="iteration", ylabel="AP (%)", title="AP over iterations: mean and range")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _bars(axes: Axes, shown: Sequence[tuple[Row, str]], column: str, colors: list[str]) -> None:
    """Mean as a bar, standard deviation as a whisker, the seeds as points."""
    for place, ((row, _), color) in enumerate(zip(shown, colors, strict=True)):
        value = row.statistic(column)
        if value.count:
            error = value.deviation if value.count > 1 else None
            axes.barh(place, value.mean, xerr=error, color=color, alpha=0.7, height=0.6, capsize=4)
            seeds = [result.figures[column] for result in row.results]
            axes.plot(seeds, [place] * len(seeds), "o", color="black", ms=3)
            axes.annotate(
                value.text(),
                (0, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_yticks(range(len(shown)), [row.variant.title for row, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)


def _ap_by_supervision(shown: Sequence[tuple[Row, str]]) -> Figure:
    from matplotlib.patches import Patch

    kinds = sorted({row.results[0].supervision for row, _ in shown})
    color_of = {kind: _COLORS[index % len(_COLORS)] for index, kind in enumerate(kinds)}
    figure = _figure(8, 1.5 + 0.45 * len(shown))
    axes = figure.subplots()
    _bars(axes, shown, MAIN, [color_of[row.results[0].supervision] for row, _ in shown])
    axes.set(xlabel="AP (%)", title="AP by supervision: mean, standard deviation, seeds")
    handles = [Patch(color=color_of[kind], alpha=0.7, label=kind) for kind in kinds]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    return figure


def _boundary(shown: Sequence[tuple[Row, str]]) -> Figure:
    figure = _figure(10, 1.5 + 0.45 * len(shown))
    for axes, column in zip(figure.subplots(1, 2, sharey=True), (BOUNDARY, IOU), strict=True):
        _bars(axes, shown, column, [color for _, color in shown])
        axes.set(xlabel=f"{column} (%)", title=f"{column}: best track of each object")
    figure.axes[0].invert_yaxis()  # the axis is shared and was turned twice
    return figure


def loss_names(rows: Sequence[Row]) -> list[str]:
    """The total and the terms of the last decoder output that are not zero throughout.

    Args:
        rows: Rows with finished runs.
    """
    names: dict[str, None] = {}
    for row in rows:
        for entry in row.results[0].metrics.values():
            names.update(dict.fromkeys(name for name, value in entry.items() if value != 0))
    terms = [
        name
        for name in sorted(names)
        if name.startswith("loss_") and not _OF_AUXILIARY_OUTPUT.search(name)
    ]
    return [*(["total_loss"] if "total_loss" in names else []), *terms[:_MAX_LOSSES]]


def _losses(shown: Sequence[tuple[Row, str]]) -> Figure:
    names = loss_names([row for row, _ in shown]) or ["total_loss"]
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = _figure(4 * columns, 0.6 + 2.6 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index < len(names):
            _curves(axes, shown, names[index], "-")
            axes.set_title(names[index], fontsize="medium")
        else:
            axes.set_axis_off()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    return figure
