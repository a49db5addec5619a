"""Reads the figures of a training from its ``metrics.json``."""

from __future__ import annotations

import math
from pathlib import Path

from maskfreevis_ext.engine.metric_writers import parse_row

_TAIL_BYTES = 1 << 16  # several lines of metrics.json

#: Iteration -> name -> figure, iterations rising.
Figures = dict[int, dict[str, float]]


def read_metrics(path: Path) -> Figures:
    """The figures of each iteration in a ``metrics.json``.

    A run that was killed and went on from a checkpoint has some iterations twice; the later line
    counts. A line that a kill has cut short is left out.

    Args:
        path: The file; there need not be one.

    Returns:
        Iteration → name → figure, iterations rising.
    """
    found: Figures = {}
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
    """The numbers of a row; None where it is no whole row."""
    row = parse_row(line)
    return row and {k: value for k, value in row.items() if isinstance(value, (int, float))}


def curve(metrics: Figures, name: str) -> list[tuple[int, float]]:
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
