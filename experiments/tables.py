"""Tables of an experiment as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Sequence

from experiments.collect import COLUMNS, Row
from experiments.spec import Experiment, Variant

MAIN = COLUMNS[0]  #: The figure that variants are compared by.

EXPLANATION = (
    "Mean ± sample standard deviation over the seeds. AP, AP50, AP75 and AR10 are YouTube-VIS's, "
    "in percent. Boundary F (DAVIS; tolerance 0.8 % of the image diagonal) and best IoU are means "
    "over all objects, in percent, each with the predicted track that overlaps it most, whatever "
    "its class and score. Minutes are those of one run, training and evaluation, with one thread."
)


def summary_table(experiment: Experiment, rows: Sequence[Row]) -> list[list[str]]:
    """The main table: heading, then one line for each variant.

    Args:
        experiment: The experiment.
        rows: Its rows.
    """
    reference = next((row for row in rows if row.variant.name == experiment.reference), None)
    heading = ["", "seeds", *COLUMNS]
    if reference is not None:
        heading.insert(3, f"{MAIN} / {reference.variant.title}")
    table = [heading]
    for row in rows:
        cells = [row.variant.title, _seeds(row)]
        cells += [row.statistic(column).text() for column in COLUMNS]
        if reference is not None:
            cells.insert(3, _share(row, reference))
        table.append(cells)
    return table


def _seeds(row: Row) -> str:
    done = len(row.results)
    return str(done) if done == row.num_seeds else f"{done} of {row.num_seeds}"


def _share(row: Row, reference: Row) -> str:
    """Mean AP of a row in percent of the reference's."""
    own, other = row.statistic(MAIN).mean, reference.statistic(MAIN).mean
    return f"{100 * own / other:.0f} %" if other > 0 and not math.isnan(own) else "–"


def settings_table(rows: Sequence[Row]) -> list[list[str]]:
    """How each row can be repeated: its command without SEED and OUTPUT_DIR, and its commits.

    Args:
        rows: The rows.
    """
    table = [["", "command", "commit"]]
    for row in rows:
        commits = sorted({result.commit for result in row.results if result.commit})
        table.append([row.variant.title, f"`{command_of(row.variant)}`", ", ".join(commits) or "–"])
    return table


def command_of(variant: Variant) -> str:
    """The command of a variant's runs, without SEED and OUTPUT_DIR.

    Args:
        variant: The variant.
    """
    words = ["python", "tools/train_net.py", "--config-file", variant.config, *variant.options]
    return shlex.join(words)


def markdown(table: Sequence[Sequence[str]]) -> str:
    r"""A table as Markdown.

    Args:
        table: Heading and lines.

    >>> print(markdown([["", "AP"], ["a|b", "1.0"]]))
    |  | AP |
    |---|---|
    | a\|b | 1.0 |
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def summary_csv(rows: Sequence[Row]) -> str:
    """One line for each variant: mean, standard deviation and count of every figure.

    Args:
        rows: The rows.
    """
    heading = ["variant", *(f"{c} {what}" for c in COLUMNS for what in ("mean", "sd", "seeds"))]
    lines: list[list[object]] = []
    for row in rows:
        numbers: list[object] = []
        for column in COLUMNS:
            value = row.statistic(column)
            numbers += [_number(value.mean), _number(value.deviation), value.count]
        lines.append([row.variant.name, *numbers])
    return _csv([heading, *lines])


def runs_csv(rows: Sequence[Row]) -> str:
    """One line for each finished run.

    Args:
        rows: The rows.
    """
    lines: list[Sequence[object]] = [["variant", "seed", "supervision", "commit", *COLUMNS]]
    for row in rows:
        for result in row.results:
            figures = [_number(result.figures[column]) for column in COLUMNS]
            own = [row.variant.name, result.run.seed, result.supervision, result.commit]
            lines.append([*own, *figures])
    return _csv(lines)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
