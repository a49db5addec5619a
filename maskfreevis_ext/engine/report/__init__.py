"""``report.html``: a training and its evaluation on one page, for a person to read."""

from __future__ import annotations

import datetime
import html
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from maskfreevis_ext.config import default_config
from maskfreevis_ext.data.categories import categories_by_label
from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.data.loaders import load_test_videos
from maskfreevis_ext.engine.evaluation_sets import inference_folder
from maskfreevis_ext.engine.report.clips import clips_html
from maskfreevis_ext.engine.report.figures import Figures, curve, read_metrics
from maskfreevis_ext.engine.report.page import html_page, html_table
from maskfreevis_ext.engine.report.svg import Series, line_chart
from maskfreevis_ext.evaluation.ground_truth import read_results
from maskfreevis_ext.files import atomic_write
from maskfreevis_ext.inference.result_views import read_predictions
from maskfreevis_ext.version import __version__

logger = logging.getLogger(__name__)

FILE_NAME = "report.html"
_OF_AUXILIARY_OUTPUT = re.compile(r"_\d+$")
#: Results of an evaluation: task -> name -> number, in percent.
Results = Mapping[str, Mapping[str, float]]


def try_report(
    cfg: CfgNode,
    results: Mapping[str, Any] | None,
    latest: Mapping[str, tuple[float, int]] | None = None,
) -> Path | None:
    """Write the report of OUTPUT_DIR if LOG.REPORT says so; a fault gives a warning, no error.

    Args:
        cfg: The config.
        results: What ``Trainer.test`` returned last, or None.
        latest: The newest figures of a training, (number, iteration) by name, which may not be in
            ``metrics.json`` yet.

    Returns:
        The file, or None if there is none.
    """
    if not cfg.LOG.REPORT:
        return None
    try:
        path = write_report(cfg, results, latest)
    except Exception as error:  # a report must never end a training
        logger.warning("%s was not written: %s: %s", FILE_NAME, type(error).__name__, error)
        if not isinstance(error, OSError):  # a full disk needs no traceback
            logger.debug("", exc_info=True)
        return None
    logger.info("Wrote the report %s.", path)
    return path


def write_report(
    cfg: CfgNode,
    results: Mapping[str, Any] | None,
    latest: Mapping[str, tuple[float, int]] | None = None,
) -> Path:
    """Write the report of OUTPUT_DIR.

    Args:
        cfg: As in ``try_report``.
        results: As in ``try_report``.
        latest: As in ``try_report``.

    Returns:
        The file.

    Raises:
        DataError: A file of the run or of a test set cannot be used.
        OSError: The report cannot be written.
    """
    folder = Path(cfg.OUTPUT_DIR)
    figures = read_metrics(folder / "metrics.json")
    for name, (number, iteration) in (latest or {}).items():
        figures.setdefault(iteration, {}).setdefault(name, number)
    figures = dict(sorted(figures.items()))
    by_set: dict[str, Results] = {}
    if results and len(cfg.DATASETS.TEST) == 1:
        by_set = {cfg.DATASETS.TEST[0]: results}
    elif results:
        by_set = {name: results[name] for name in cfg.DATASETS.TEST if results.get(name)}
    title = f"Report of {folder.resolve().name}"
    body = [f"<h1>{html.escape(title)}</h1>", _facts(cfg, figures)]
    for name in cfg.DATASETS.TEST:
        body += _evaluation(name, by_set.get(name))
    body += _curves(figures)
    for name in cfg.DATASETS.TEST:
        if os.path.isfile(_results_file(cfg, name)):
            body += _clips(cfg, name)
    body += _settings(cfg)
    path = folder / FILE_NAME
    with atomic_write(path) as file:
        file.write(html_page(title, body).encode())
    return path


def _facts(cfg: CfgNode, figures: Figures) -> str:
    done = max(figures, default=-1) + 1
    facts = [
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        f"{min(done, cfg.SOLVER.MAX_ITER)} of {cfg.SOLVER.MAX_ITER} iterations"
        if done
        else "evaluation only",
        f"trained on {', '.join(cfg.DATASETS.TRAIN)} from {_supervision(cfg)}",
        f"seed {cfg.SEED}" if cfg.SEED >= 0 else "no fixed seed",
        f"maskfreevis_ext {__version__}, PyTorch {torch.__version__}, {cfg.MODEL.DEVICE}",
    ]
    return f'<p class="facts">{html.escape(" · ".join(facts))}</p>'


def _supervision(cfg: CfgNode) -> str:
    return {"box": "boxes", "mask": "masks"}.get(cfg.INPUT.SUPERVISION, "masks where there are any")


def _evaluation(name: str, results: Results | None) -> list[str]:
    """Tables of one data set: the main numbers, and those of each class."""
    if not results:
        return []
    tasks = {task: dict(values) for task, values in results.items() if isinstance(values, Mapping)}
    tables = []
    per_class: dict[str, dict[str, float]] = {}
    for values in tasks.values():
        main = {key: value for key, value in values.items() if "-" not in key}
        tables.append(html_table([["", *main], ["%", *map(_number, main.values())]]))
        for key, value in values.items():
            metric, dash, label = key.partition("-")
            if dash:
                per_class.setdefault(label, {})[metric] = value
    parts = [
        f"<h2>Evaluation on {html.escape(name)}</h2>",
        f'<div class="beside">{"".join(tables)}</div>',
    ]
    if per_class:
        metrics = list(dict.fromkeys(metric for row in per_class.values() for metric in row))
        lines = [
            [label, *(_number(row.get(metric, math.nan)) for metric in metrics)]
            for label, row in sorted(per_class.items(), key=lambda item: _worst_last(item[1]))
        ]
        parts += ["<h3>By class</h3>", html_table([["class", *metrics], *lines])]
    return parts


def _worst_last(row: Mapping[str, float]) -> float:
    first = next(iter(row.values()))
    return -first if math.isfinite(first) else math.inf


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _curves(figures: Figures) -> list[str]:
    """Charts of the scores, losses and learning rate; nothing without a training."""
    names = list(dict.fromkeys(name for entry in figures.values() for name in entry))
    scores = [name for name in names if re.search(r"(^|/)(AP|AP50|HOTA|IDF1|J&F)$", name)]
    losses = [
        name
        for name in sorted(names)
        if name.startswith("loss_")
        and not _OF_AUXILIARY_OUTPUT.search(name)
        and any(value for _, value in curve(figures, name))
    ]
    charts = [line_chart("Scores (%)", [Series(name, curve(figures, name)) for name in scores])]
    for name in ("total_loss", *losses):
        charts.append(line_chart(name, [Series(name, curve(figures, name))]))
    charts.append(line_chart("Learning rate", [Series("lr", curve(figures, "lr"))]))
    charts.append(
        line_chart(
            "Seconds per iteration",
            [Series(name, curve(figures, name)) for name in ("time", "data_time")],
        )
    )
    shown = "".join(charts)
    if not shown:
        return []
    note = "By iteration. Losses are weighted, those of the last decoder output; medians of 20."
    return [
        "<h2>Training</h2>",
        f'<p class="note">{note}</p>',
        f'<div class="charts">{shown}</div>',
    ]


def _results_file(cfg: CfgNode, name: str) -> str:
    return f"{inference_folder(cfg, name)}/results.json"


def _clips(cfg: CfgNode, name: str) -> list[str]:
    path = _results_file(cfg, name)
    videos = load_test_videos(name, FrameRules.from_config(cfg))
    categories = categories_by_label(name)
    predictions = read_predictions(read_results(path), videos, categories, cfg.TEST.MIN_SCORE, path)
    names = [category.name for category in categories.values()]
    parts = clips_html(videos, predictions, names)
    heading = f"<h2>{html.escape(name)}</h2>" if len(cfg.DATASETS.TEST) > 1 else ""
    return [heading, *parts]


def _settings(cfg: CfgNode) -> list[str]:
    """Keys that are not at their defaults, and the whole config."""
    defaults = _flat(default_config())
    changed = [
        [f"`{name}`", f"`{value}`", f"`{defaults.get(name, '')}`"]
        for name, value in _flat(cfg).items()
        if value != defaults.get(name)
    ]
    return [
        "<h2>Settings</h2>",
        html_table([["key", "value", "default"], *changed], "text"),
        f"<details><summary>Whole config</summary><pre>{html.escape(cfg.dump())}</pre></details>",
    ]


def _flat(node: CfgNode, prefix: str = "") -> dict[str, str]:
    """Values as JSON by the whole names of their keys; tuples and lists are the same."""
    values: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, CfgNode):
            values.update(_flat(value, f"{prefix}{name}."))
        else:
            values[prefix + name] = json.dumps(value, ensure_ascii=False, default=str)
    return values
