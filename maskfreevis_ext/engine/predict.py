"""Builds a predictor from a config and a checkpoint, and finds the names of its classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from maskfreevis_ext._provider import describe_provider
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.categories import categories_by_label
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.inference.predictor import VideoPredictor

logger = logging.getLogger(__name__)


def start_log() -> logging.Logger:
    """Log this package and checkpoint loading to the terminal; the first line names the provider.

    Returns:
        The package's logger.
    """
    setup_logger(name="fvcore")
    package_logger = setup_logger(name="maskfreevis_ext", abbrev_name="mfvis")
    package_logger.info(describe_provider())
    return package_logger


def build_predictor(
    config: CfgNode | str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> VideoPredictor:
    """Build the model of a config, load its weights, and wrap it for prediction.

    Args:
        config: A YAML file, or a config of ``load_config``.
        weights: A checkpoint; None: MODEL.WEIGHTS of the config.

    Returns:
        The predictor, on MODEL.DEVICE, or on the CPU if the config names a GPU and there is none.

    Raises:
        ConfigError: The YAML file cannot be used, or there are no weights.
        CheckpointError: The weights cannot be used.
    """
    cfg = config if isinstance(config, CfgNode) else load_config(os.fspath(config))
    path = os.fspath(weights or cfg.MODEL.WEIGHTS)
    if not path:
        raise ConfigError(
            "MODEL.WEIGHTS: expected a checkpoint to predict with, got none. Add --opts"
            " MODEL.WEIGHTS FILE on the command line, or weights=FILE in Python."
        )
    model = build_model(cfg)
    SafeCheckpointer(model).load(path, checkpointables=[])
    return VideoPredictor(cfg, model)


def find_class_names(cfg: CfgNode, given: Sequence[str] | None = None) -> list[str] | None:
    """Names of the classes that a model predicts.

    Args:
        cfg: The config. Names are taken from the first data set with as many classes as the model,
            in the order DATASETS.TEST, DATASETS.TRAIN.
        given: Names from the user, which are preferred.

    Returns:
        One name per class, or None if they are unknown.

    Raises:
        ConfigError: The user gave another number of names than the model has classes.
        DataError: The annotation file of a data set cannot be read.
    """
    wanted = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if given:
        if len(given) != wanted:
            raise ConfigError(
                f"--classes: expected {wanted} names (MODEL.SEM_SEG_HEAD.NUM_CLASSES), got"
                f" {len(given)}: {', '.join(given)}."
            )
        return list(given)
    register_from_config(cfg)
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = categories_by_label(dataset)
        if len(categories) == wanted:
            return [category.name for category in categories.values()]
    logger.warning(
        "The names of the %d classes are unknown; numbers are drawn. Give them by --classes.",
        wanted,
    )
    return None


def category_ids(cfg: CfgNode) -> dict[int, int]:
    """Category id of each label: from the config's data set if it is known, otherwise label + 1.

    Args:
        cfg: The config. Ids are taken from the first data set with as many classes as the model, in
            the order DATASETS.TEST, DATASETS.TRAIN.

    Returns:
        Category id by label (from 0).

    Raises:
        DataError: The annotation file of a data set cannot be read.
    """
    register_from_config(cfg)
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = categories_by_label(dataset)
        if len(categories) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            return {label: category.id for label, category in categories.items()}
    return {label: label + 1 for label in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)}
