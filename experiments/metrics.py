"""Reading what runs wrote, and means over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 1 << 16  # several lines of metrics.json


@dataclass(frozen=True)
class Statistic:
    """A figure over the seeds of a variant.

    Attributes:
        mean: Mean; NaN without a value.
        deviation: Sample standard deviation (divided by n - 1); NaN with fewer than two values.
        count: Seeds that have the figure.
    """

    mean: float
    deviation: float
    count: int

    def text(self, digits: int = 1) -> str:
        """The figure for a table: "52.6 ± 4.9", "52.6" for one seed, "–" for none.

        Args:
            digits: Digits behind the point.

        >>> statistic([50.0, 52.0]).text()
        '51.0 ± 1.4'
        >>> statistic([]).text()
        '–'
        """
        if not self.count:
            return "–"
        if self.count == 1:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.deviation:.{digits}f}"


def statistic(values: Iterable[float]) -> Statistic:
    """Mean and standard deviation of the values that are finite.

    Args:
        values: One figure for each seed.

    >>> statistic([1.0, 3.0, float("nan")])
    Statistic(mean=2.0, deviation=1.4142135623730951, count=2)
    """
    known = [value for value in values if math.isfinite(value)]
    return Statistic(
        mean=statistics.fmean(known) if known else math.nan,
        deviation=statistics.stdev(known) if len(known) > 1 else math.nan,
        count=len(known),
    )


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """The figures of each iteration in a ``metrics.json`` of Detectron2.

    A run that was killed and went on from a checkpoint has some iterations twice; the later line
    counts. A line that a kill has cut short is left out.

    Args:
        path: The file; there need not be one.

    Returns:
        Iteration → name → figure, iterations rising.
    """
    found: dict[int, dict[str, float]] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _parse(line)
        if entry is not None:
            iteration = int(entry.pop("iteration"))
            found.setdefault(iteration, {}).update(entry)
    return dict(sorted(found.items()))


def last_iteration(path: Path) -> int:
    """Iterations that were done when the last line of a ``metrics.json`` was written.

    Args:
        path: The file; there need not be one.

    Returns:
        The number; 0 without a line.
    """
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    entries = (_parse(line) for line in reversed(lines))
    return next((int(entry["iteration"]) + 1 for entry in entries if entry is not None), 0)


def _parse(line: str) -> dict[str, float] | None:
    """A line as numbers; None where it is no whole line."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("iteration"), int):
        return None
    return {name: value for name, value in entry.items() if isinstance(value, (int, float))}


def curve(metrics: dict[int, dict[str, float]], name: str) -> list[tuple[int, float]]:
    """The finite values of a figure by iteration.

    Args:
        metrics: Of ``read_metrics``.
        name: Name of the figure.
    """
    return [
        (iteration, entry[name])
        for iteration, entry in metrics.items()
        if math.isfinite(entry.get(name, math.nan))
    ]


def mean_curve(
    curves: Sequence[Sequence[tuple[int, float]]],
) -> list[tuple[int, float, float, float]]:
    """Mean, smallest and largest value over seeds, at iterations that all of them have.

    Args:
        curves: One for each seed.

    Returns:
        (iteration, mean, smallest, largest), iterations rising.

    >>> mean_curve([[(0, 1.0), (20, 3.0)], [(20, 5.0)]])
    [(20, 4.0, 3.0, 5.0)]
    """
    tables = [dict(one) for one in curves if one]
    shared = set.intersection(*(set(table) for table in tables)) if tables else set()
    points = []
    for iteration in sorted(shared):
        values = [table[iteration] for table in tables]
        points.append((iteration, statistics.fmean(values), min(values), max(values)))
    return points
