"""From a config and a checkpoint to something that predicts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from maskfreevis_ext import describe_provider
from maskfreevis_ext.data.categories import categories_by_label
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.inference.predictor import VideoPredictor

logger = logging.getLogger(__name__)


def start_log() -> logging.Logger:
    """Send the log of this package and of checkpoint loading to the terminal, the provider first.

    Returns:
        The package's logger.
    """
    setup_logger(name="fvcore")
    package_logger = setup_logger(name="maskfreevis_ext", abbrev_name="mfvis")
    package_logger.info(describe_provider())
    return package_logger


def build_predictor(cfg: CfgNode) -> VideoPredictor:
    """Build a config's model, load MODEL.WEIGHTS, and wrap it for prediction.

    Args:
        cfg: A config of ``load_config``.

    Returns:
        The predictor, on MODEL.DEVICE.

    Raises:
        ConfigError: MODEL.WEIGHTS is empty.
        CheckpointError: The weights cannot be used.
    """
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError(
            "MODEL.WEIGHTS: expected a checkpoint to predict with, got none. Add --opts"
            " MODEL.WEIGHTS FILE."
        )
    model = build_model(cfg)
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    return VideoPredictor.from_config(cfg, model)


def find_class_names(cfg: CfgNode, given: Sequence[str] | None = None) -> list[str] | None:
    """Names of the classes that a model predicts.

    Args:
        cfg: The config; the first of DATASETS.TEST, else of DATASETS.TRAIN, whose names are known
            is asked.
        given: Names that the user gave; these are taken if there are any.

    Returns:
        One name per class, or None where they are not known.

    Raises:
        ConfigError: The user gave another number of names than the model has classes.
    """
    wanted = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if given:
        if len(given) != wanted:
            raise ConfigError(
                f"--classes: expected {wanted} names (MODEL.SEM_SEG_HEAD.NUM_CLASSES), got"
                f" {len(given)}: {', '.join(given)}."
            )
        return list(given)
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = categories_by_label(dataset)
        if len(categories) == wanted:
            return [category.name for category in categories.values()]
    logger.warning(
        "The names of the %d classes are not known; numbers are drawn. Name them by --classes.",
        wanted,
    )
    return None


def category_ids(cfg: CfgNode) -> dict[int, int]:
    """Category id of each label: that of the config's data set where it is known, else label + 1.

    Args:
        cfg: The config; the first of DATASETS.TEST, else of DATASETS.TRAIN, that fits is asked.
    """
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = categories_by_label(dataset)
        if len(categories) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            return {label: category.id for label, category in categories.items()}
    return {label: label + 1 for label in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)}
