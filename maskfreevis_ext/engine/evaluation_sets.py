"""Checks of the data sets and their classes, which come before any long work."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from maskfreevis_ext.data.frame_check import check_frame_files
from maskfreevis_ext.data.loaders import load_test_videos
from maskfreevis_ext.errors import ConfigError, first_few
from maskfreevis_ext.evaluation import build_evaluator, evaluator_names
from maskfreevis_ext.evaluation.class_matching import check_classes
from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator

logger = logging.getLogger(__name__)


def inference_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where the predictions for a data set are: OUTPUT_DIR/inference, or a folder in it.

    Args:
        cfg: The config. With several data sets in DATASETS.TEST, each has a folder with its name.
        dataset_name: One of DATASETS.TEST.
    """
    folder = f"{cfg.OUTPUT_DIR}/inference"
    return f"{folder}/{dataset_name}" if len(cfg.DATASETS.TEST) > 1 else folder


def check_test_sets(cfg: CfgNode) -> list[str]:
    """Check that the data sets of DATASETS.TEST can be read and scored.

    Annotations, frames (that they exist, and their headers), TEST.EVALUATORS, and the masks that
    predictions are compared with. A ground truth that cannot be scored (no annotations, boxes only)
    gives a line in the log.

    Args:
        cfg: The config.

    Returns:
        Names of the metrics that evaluations will give, such as ``segm/AP``; "" for those of
        evaluators that do not tell theirs.

    Raises:
        ConfigError: An evaluator or a file does not exist.
        DataError: Something in a file cannot be used.
    """
    known: list[str] = []
    for name in cfg.DATASETS.TEST:
        path = MetadataCatalog.get(name).get("json_file")
        if path and not os.path.isfile(path):
            raise ConfigError(
                f"DATASETS.TEST: the annotation file of {name} does not exist: "
                f"{os.path.abspath(path)}. Put it there, or train without evaluation: "
                'DATASETS.TEST "()".'
            )
        logger.info("Checking the test set %s.", name)
        check_frame_files(cfg, load_test_videos(name), f"DATASETS.TEST {name}")
        prefix = f"{name}/" if len(cfg.DATASETS.TEST) > 1 else ""
        evaluator = build_evaluator(name, None, evaluator_names(cfg, name))
        for part in getattr(evaluator, "_evaluators", [evaluator]):  # of DatasetEvaluators
            if isinstance(part, YTVISEvaluator):
                known += [prefix + metric for metric in part.check_ground_truth()]
            else:
                known.append("")
    return known


def check_best_metric(cfg: CfgNode, known: Sequence[str]) -> None:
    """Check that the evaluations of a training will give TEST.BEST_METRIC.

    Args:
        cfg: The config.
        known: Of ``check_test_sets``.

    Raises:
        ConfigError: They will not.
    """
    metric = cfg.TEST.BEST_METRIC
    if metric and metric not in known and "" not in known:
        shown = ", ".join(name for name in known if "-" not in name) or "none"
        raise ConfigError(
            f"TEST.BEST_METRIC: expected a metric of DATASETS.TEST ({shown}), got {metric!r}."
        )


def check_test_classes(cfg: CfgNode, class_names: Sequence[str] | None) -> None:
    """Check that each data set of DATASETS.TEST has classes that the model predicts, by name.

    Args:
        cfg: The config. The data sets must have been loaded, which sets their metadata.
        class_names: Names of the model's classes; None: unknown, and nothing is checked.

    Raises:
        ConfigError: No class of a data set is a class of the model; names both lists.
    """
    for name in cfg.DATASETS.TEST:
        check_classes(name, class_names)


def check_label_space(cfg: CfgNode) -> None:
    """Compare the model's classes with those of the data set it trains on.

    Args:
        cfg: The config. The training sets must have been loaded, which sets their metadata. Of
            several training sets the last one has the classes that the model predicts.

    Raises:
        ConfigError: The numbers differ; names both.
    """
    name = cfg.DATASETS.TRAIN[-1]
    classes = getattr(MetadataCatalog.get(name), "thing_classes", None)
    wanted = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if classes is not None and len(classes) != wanted:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES: expected {len(classes)}, the number of classes of "
            f"the training set {name} ({first_few(classes)}), got {wanted}."
        )
