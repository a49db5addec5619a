"""Means of figures over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
