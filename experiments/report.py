"""``report``: tables and plots of an experiment as Markdown, CSV, PNG and one HTML file."""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from experiments.collect import Row, collect_rows
from experiments.plots import draw_plots, has_matplotlib
from experiments.runs import Run, plan_runs
from experiments.spec import Experiment, Variant
from experiments.tables import (
    EXPLANATION,
    markdown,
    runs_csv,
    settings_table,
    summary_csv,
    summary_table,
)
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.engine.report.page import html_page, html_table
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import atomic_write, check_outputs, mark_outputs, write_json

logger = logging.getLogger(__name__)

NAME = "report"
HELP = "write the tables and plots of an experiment anew, also while it runs"
EXAMPLE = "    python tools/experiment.py report output/experiments/quickstart_supervision"

#: Name of a plot → what it shows.
CAPTIONS = {
    "ap_by_iteration": "AP over iterations; the band reaches from the worst to the best seed.",
    "ap_by_supervision": "AP at the end, by what the masks were supervised with.",
    "losses": "Weighted losses of the last decoder output; the band is that of the seeds.",
    "boundary": "How well outlines fit, and how much the masks overlap.",
}

#: File with what an experiment is.
EXPERIMENT_FILE = "experiment.json"
#: Files of a report beside the plots.
_PAGES = ("summary.csv", "runs.csv", "report.md", "report.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, help="folder of the experiment")
    add_overwrite(parser)


def check_report(folder: Path, overwrite: bool, inputs: Sequence[str] = ()) -> None:
    """Check that the files of a report can be written.

    Args:
        folder: Folder of the experiment.
        inputs: All files and folders that are read.
        overwrite: Whether files of other origin may be replaced.

    Raises:
        DataError: A file is there that was not made by a report or was changed since, or the
            folder cannot be written.
    """
    names = [*_PAGES, *(f"{name}.png" for name in CAPTIONS)]
    check_outputs([folder / name for name in names], inputs, overwrite=overwrite)


def check_experiment_file(folder: Path, overwrite: bool, inputs: Sequence[str]) -> None:
    """Check that ``save_experiment`` replaces nothing but the file of an earlier call.

    Args:
        folder: Folder of the experiment.
        overwrite: Whether a file of other origin may be replaced.
        inputs: All files and folders that are read.

    Raises:
        DataError: The file is an input or of other origin, or cannot be written.
    """
    is_own = False
    with contextlib.suppress(DataError):
        load_experiment(folder)
        is_own = True
    check_outputs([folder / EXPERIMENT_FILE], inputs, overwrite=overwrite or is_own)


def run(args: argparse.Namespace) -> int:
    """Write the report of a folder.

    Raises:
        DataError: The folder is not that of an experiment, or a file in it cannot be used.
    """
    experiment, iterations = load_experiment(args.folder)
    check_report(args.folder, args.overwrite)
    runs = plan_runs(experiment, args.folder, iterations)
    print(write_report(experiment, runs, args.folder))
    return 0


def save_experiment(experiment: Experiment, iterations: Sequence[int], folder: Path) -> None:
    """Keep what an experiment is in ``experiment.json``, for a report without its YAML file.

    Args:
        experiment: The experiment.
        iterations: SOLVER.MAX_ITER of each variant.
        folder: Its folder.
    """
    content = {"experiment": experiment.as_dict(), "iterations": list(iterations)}
    write_json(content, folder / EXPERIMENT_FILE, indent=2)


def load_experiment(folder: Path) -> tuple[Experiment, list[int]]:
    """Read ``experiment.json``.

    Args:
        folder: Folder of the experiment.

    Returns:
        The experiment, and SOLVER.MAX_ITER of each variant.

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    path = folder / EXPERIMENT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = content["experiment"]
        variants = tuple(
            Variant(**{**entry, "options": tuple(entry["options"])}) for entry in fields["variants"]
        )
        changed = {**fields, "variants": variants, "seeds": tuple(fields["seeds"])}
        return Experiment(**changed), list(content["iterations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the file that 'tools/experiment.py grid' writes: {error}"
        ) from error


def write_report(experiment: Experiment, runs: Sequence[Run], folder: Path) -> str:
    """Write report.md, report.html, summary.csv, runs.csv and the plots.

    Without matplotlib there are no plots; a line of the log says how to get them.

    Args:
        experiment: The experiment.
        runs: Its runs; those that are not finished are left out of all figures.
        folder: Where to.

    Returns:
        The main table as Markdown, and where the report is.

    Raises:
        DataError: A file of a finished run cannot be used.
    """
    rows = collect_rows(experiment, runs)
    plots: dict[str, bytes] = {}
    if has_matplotlib():
        plots = draw_plots(rows)
    else:
        logger.warning(
            "No plots: matplotlib is missing. Install it: "
            'pip install -c constraints.txt -e ".[experiments]"'
        )
    files = {f"{name}.png": data for name, data in plots.items()}
    files["summary.csv"] = summary_csv(rows).encode()
    files["runs.csv"] = runs_csv(rows).encode()
    files["report.md"] = _markdown_page(experiment, rows, list(plots)).encode()
    files["report.html"] = _html_page(experiment, rows, plots).encode()
    for name, data in files.items():
        with atomic_write(folder / name) as file:
            file.write(data)
    mark_outputs([folder / name for name in files])
    return f"{markdown(summary_table(experiment, rows))}\n\nreport: {folder / 'report.html'}"


def _markdown_page(experiment: Experiment, rows: Sequence[Row], plots: Sequence[str]) -> str:
    parts = [f"# {experiment.title}", markdown(summary_table(experiment, rows)), EXPLANATION]
    parts += [f"![{CAPTIONS[name]}]({name}.png)" for name in plots]
    parts += ["## Commands", "Each with SEED and OUTPUT_DIR.", markdown(settings_table(rows))]
    return "\n\n".join(parts) + "\n"


def _html_page(experiment: Experiment, rows: Sequence[Row], plots: dict[str, bytes]) -> str:
    """One file: style and pictures are inside, and nothing is loaded from elsewhere."""
    title = html.escape(experiment.title)
    figures = [
        f'<figure><img alt="{html.escape(CAPTIONS[name])}" src="data:image/png;base64,'
        f'{base64.b64encode(data).decode("ascii")}">'
        f"<figcaption>{html.escape(CAPTIONS[name])}</figcaption></figure>"
        for name, data in plots.items()
    ]
    body = [
        f"<h1>{title}</h1>",
        html_table(summary_table(experiment, rows)),
        f"<p>{html.escape(EXPLANATION)}</p>",
        *figures,
        "<h2>Commands</h2><p>Each with SEED and OUTPUT_DIR.</p>",
        html_table(settings_table(rows), "text"),
    ]
    return html_page(experiment.title, body)
