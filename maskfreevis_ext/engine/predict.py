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
from maskfreevis_ext.data.label_spaces import plain_name
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.log_lines import clean_lines
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
    clean_lines()
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
        CheckpointError: The weights cannot be used, or fit only in part (TEST.PARTIAL_WEIGHTS).
        NumericError: Weights are NaN or infinite.
    """
    cfg = config if isinstance(config, CfgNode) else load_config(os.fspath(config))
    path = os.fspath(weights or cfg.MODEL.WEIGHTS)
    if not path:
        raise ConfigError(
            "MODEL.WEIGHTS: expected a checkpoint to predict with, got none. Add --opts"
            " MODEL.WEIGHTS FILE on the command line, or weights=FILE in Python."
        )
    model = build_model(cfg)
    checkpointer = SafeCheckpointer(model, must_fit=not cfg.TEST.PARTIAL_WEIGHTS)
    checkpointer.load(path, checkpointables=[])
    return VideoPredictor(cfg, model)


def find_class_names(
    cfg: CfgNode, given: Sequence[str] | None = None, stored: Sequence[str] | None = None
) -> list[str] | None:
    """Names of the classes that a model predicts.

    Args:
        cfg: The config. Without stored names they are taken from the first data set with as many
            classes as the model, in the order DATASETS.TEST, DATASETS.TRAIN.
        given: Names from the user, which are preferred.
        stored: Names that came with the weights.

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
    if stored is not None and len(stored) == wanted:
        return list(stored)
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


def choose_classes(
    cfg: CfgNode, given: Sequence[str] | None = None, stored: Sequence[str] | None = None
) -> tuple[list[str] | None, list[int] | None]:
    """Names of a model's classes, and the classes that a user wants to see.

    Args:
        cfg: The config.
        given: Names or numbers (from 0) of the wanted classes; None: all. Where the names of the
            classes are unknown, names are those of all classes.
        stored: Names that came with the weights.

    Returns:
        One name per class, or None if they are unknown; the wanted labels, or None for all.

    Raises:
        ConfigError: A class does not exist.
        DataError: The annotation file of a data set cannot be read.
    """
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    words = list(given or ())
    names = find_class_names(cfg, stored=stored)
    if names is None and words and not all(word.isdecimal() for word in words):
        return find_class_names(cfg, words), None
    by_word = {name: label for label, name in reversed(list(enumerate(names or ())))}
    by_word |= {str(label): label for label in range(count) if str(label) not in by_word}
    unknown = [word for word in words if word not in by_word]
    if unknown:
        known = ", ".join(names or ()) or "none has a name"
        raise ConfigError(
            f"--classes: expected names of classes ({known}) or numbers 0..{count - 1}, got"
            f" {', '.join(unknown)}."
        )
    return names, sorted({by_word[word] for word in words}) or None


def category_ids(cfg: CfgNode, stored: Sequence[str] | None = None) -> dict[int, int]:
    """Category id of each label: from the config's data set if it is known, otherwise label + 1.

    Args:
        cfg: The config. Ids are taken from the first data set that has the model's classes, in the
            order DATASETS.TEST, DATASETS.TRAIN.
        stored: Names that came with the weights, by which the classes are found; None: a data set
            with as many classes has them, in the same order.

    Returns:
        Category id by label (from 0).

    Raises:
        DataError: The annotation file of a data set cannot be read.
    """
    register_from_config(cfg)
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        categories = categories_by_label(dataset)
        if stored is not None and len(stored) == count:
            by_name = {plain_name(each.name): each.id for each in categories.values()}
            if by_name.keys() >= {plain_name(name) for name in stored}:
                return {label: by_name[plain_name(name)] for label, name in enumerate(stored)}
        elif len(categories) == count:
            return {label: category.id for label, category in categories.items()}
    return {label: label + 1 for label in range(count)}
