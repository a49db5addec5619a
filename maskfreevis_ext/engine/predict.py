"""From a config and a checkpoint to something that predicts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from maskfreevis_ext import describe_provider
from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.ytvis import read_json
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
    register_from_config(cfg)
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = _categories_of(dataset)
        if len(categories) == wanted:
            return list(categories.values())
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
    register_from_config(cfg)
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = _categories_of(dataset)
        if len(categories) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            return dict(enumerate(categories))
    return {label: label + 1 for label in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)}


def _categories_of(dataset: str) -> dict[int, str]:
    """Category ids and names of a data set, sorted by id; nothing where they are not known."""
    metadata = MetadataCatalog.get(dataset)
    names = metadata.get("thing_classes")
    to_label = metadata.get("thing_dataset_id_to_contiguous_id")
    if names and to_label:
        return {category_id: names[label] for category_id, label in sorted(to_label.items())}
    path = metadata.get("json_file")
    if not path or not os.path.isfile(path):
        return {}
    # A data set of one's own gets its names when it is loaded, which has not happened here.
    categories = read_json(path).get("categories") or []
    return {item["id"]: item["name"] for item in sorted(categories, key=lambda item: item["id"])}
