"""What the finished runs of an experiment found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from experiments.metrics import Statistic, statistic
from experiments.runs import Run
from experiments.spec import Experiment, Variant
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.ytvis import read_json
from maskfreevis_ext.engine.report.figures import curve, read_metrics
from maskfreevis_ext.errors import DataError, MaskFreeError
from maskfreevis_ext.evaluation.boundary import BoundaryScores, score_boundaries
from maskfreevis_ext.evaluation.ground_truth import NoMasksError, read_results
from maskfreevis_ext.files import write_json

#: Name of a figure in ``metrics.json`` → its heading. The first is the one that plots show.
FIGURES = {"segm/AP": "AP", "segm/AP50": "AP50", "segm/AP75": "AP75", "segm/AR10": "AR10"}
BOUNDARY, IOU, MINUTES = "boundary F", "best IoU", "minutes"
COLUMNS = (*FIGURES.values(), BOUNDARY, IOU, MINUTES)


@dataclass(frozen=True)
class RunResult:
    """What one finished run found.

    Attributes:
        run: The run.
        figures: Heading of each of ``COLUMNS`` → the last value, NaN where there is none.
        metrics: Iteration → name → figure, as in ``metrics.json``.
        supervision: INPUT.SUPERVISION.
        commit: Commit of the code that finished it.
    """

    run: Run
    figures: Mapping[str, float]
    metrics: dict[int, dict[str, float]]
    supervision: str
    commit: str


@dataclass(frozen=True)
class Row:
    """A variant with what its finished runs found.

    Attributes:
        variant: The variant.
        results: One for each finished seed.
        num_seeds: Seeds that were asked for.
    """

    variant: Variant
    results: Sequence[RunResult]
    num_seeds: int

    def statistic(self, heading: str) -> Statistic:
        """A figure over the seeds.

        Args:
            heading: One of ``COLUMNS``.
        """
        return statistic(result.figures[heading] for result in self.results)

    def curves(self, name: str) -> list[list[tuple[int, float]]]:
        """A figure of ``metrics.json`` by iteration, for each seed.

        Args:
            name: Its name there.
        """
        return [curve(result.metrics, name) for result in self.results]


def collect_rows(experiment: Experiment, runs: Sequence[Run]) -> list[Row]:
    """Read what the finished runs of each variant wrote.

    Args:
        experiment: The experiment.
        runs: Its runs.

    Returns:
        One row for each variant, in their order.

    Raises:
        DataError: A file of a finished run cannot be used.
    """
    rows = []
    for variant in experiment.variants:
        own = [run for run in runs if run.variant == variant]
        results = [read_run(run) for run in own if run.is_finished()]
        rows.append(Row(variant, results, len(own)))
    return rows


def read_run(run: Run) -> RunResult:
    """Read what a finished run wrote.

    Args:
        run: The run.

    Raises:
        DataError: A file of it cannot be used.
    """
    metrics, record = read_metrics(run.folder / "metrics.json"), run.record()
    try:
        cfg = load_config(str(run.folder / "config.yaml"))
    except MaskFreeError as error:
        raise DataError(f"{run.folder}: the config of the run cannot be read: {error}") from error
    figures = {
        heading: (curve(metrics, name) or [(0, math.nan)])[-1][1]
        for name, heading in FIGURES.items()
    }
    boundary = _boundary_scores(run, cfg)
    figures[BOUNDARY] = boundary.boundary_f if boundary else math.nan
    figures[IOU] = boundary.iou if boundary else math.nan
    figures[MINUTES] = float(record.get("seconds", math.nan)) / 60
    return RunResult(run, figures, metrics, cfg.INPUT.SUPERVISION, str(record.get("commit", "")))


def _boundary_scores(run: Run, cfg: CfgNode) -> BoundaryScores | None:
    """Boundary scores of a run's results, kept in ``boundary.json``; None without ground truth.

    Raises:
        DataError: The results or the ground truth cannot be used.
    """
    results, kept = run.folder / "inference" / "results.json", run.folder / "boundary.json"
    if not results.is_file():
        return None
    if kept.is_file() and kept.stat().st_mtime >= results.stat().st_mtime:
        return BoundaryScores(**json.loads(kept.read_text()))
    path = annotation_file(cfg)
    if path is None or not Path(path).is_file():
        return None
    ground_truth = read_json(path)
    if not ground_truth.get("annotations"):
        return None
    try:
        scores = score_boundaries(
            ground_truth, read_results(results), ground_truth_name=path, results_name=str(results)
        )
    except NoMasksError:
        return None
    if scores.num_objects:
        write_json(vars(scores), kept)
    return scores


def annotation_file(cfg: CfgNode) -> str | None:
    """The annotation file of the test set; None where there is not exactly one test set.

    Args:
        cfg: A config.
    """
    if len(cfg.DATASETS.TEST) != 1:
        return None
    name = cfg.DATASETS.TEST[0]
    files = {entry[0]: entry[1] for entry in cfg.INPUT.DATASETS}
    return files.get(name) or MetadataCatalog.get(name).get("json_file")
