"""From a command line to a run: config, data sets, output folder, loggers, seed."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
from datetime import timedelta

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from maskfreevis_ext._provider import describe_provider
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.engine.log_lines import clean_lines
from maskfreevis_ext.engine.output_folder import check_output_folder, lock_output
from maskfreevis_ext.engine.training_record import checkpoint_files
from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)


def setup_config(args: argparse.Namespace) -> CfgNode:
    """Read the config of a command line, and set up data sets, loggers, output folder and seed.

    Args:
        args: From ``default_argument_parser`` (``config_file``, ``opts``, ``eval_only``), with
            ``device``.

    Returns:
        A frozen config.

    Raises:
        ConfigError: See ``load_config`` and ``check_output_folder``; or a data set is not
            registered, or OUTPUT_DIR cannot be created or written to, or another run works in it.
    """
    messages = _Collected()
    training, resume = not getattr(args, "eval_only", False), getattr(args, "resume", False)
    rank = comm.get_rank()
    with messages:
        cfg = load_config(args.config_file, args.opts or (), getattr(args, "device", None))
        register_from_config(cfg)
        validate_datasets(cfg, training)
    try:
        if rank == 0:
            check_output_folder(cfg, args.config_file, training=training, resume=resume)
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as e:
        raise ConfigError(
            f"OUTPUT_DIR: expected a folder to write to, got {cfg.OUTPUT_DIR!r} ({e})."
        ) from e
    if rank == 0:
        lock_output(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="maskfreevis_ext", abbrev_name="mfvis")
    clean_lines()
    logger.info(describe_provider())
    messages.replay()
    if rank == 0 and training and not resume and checkpoint_files(cfg.OUTPUT_DIR):
        logger.warning(
            "OUTPUT_DIR %s has checkpoints of an earlier training. This one starts anew and writes"
            " over them; --resume goes on with the earlier one.",
            cfg.OUTPUT_DIR,
        )
    default_setup(cfg, args)
    clean_lines()  # of the loggers that Detectron2 set up
    return cfg


def read_timeout(args: argparse.Namespace) -> timedelta:
    """How long the processes of a job wait for each other, before they are started.

    Args:
        args: As for ``setup_config``.

    Raises:
        ConfigError: See ``load_config``.
    """
    with _Collected():  # every process logs them later
        cfg = load_config(args.config_file, args.opts or (), getattr(args, "device", None))
    return timedelta(seconds=cfg.DISTRIBUTED.TIMEOUT)


class _Collected(logging.Handler):
    """Holds back the records of this package until the log file exists."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger("maskfreevis_ext")

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> None:
        self._saved = (self._logger.handlers, self._logger.propagate)
        self._logger.handlers, self._logger.propagate = [self], False

    def __exit__(self, *exc_info: object) -> None:
        self._logger.handlers, self._logger.propagate = self._saved

    def replay(self) -> None:
        for record in self.records:
            logging.getLogger(record.name).handle(record)


def validate_datasets(cfg: CfgNode, training: bool) -> None:
    """Check that the data sets of a run are registered.

    Args:
        cfg: The config.
        training: Check DATASETS.TRAIN too, not only DATASETS.TEST.

    Raises:
        ConfigError: A name is unknown, or there is no data set to train or evaluate on.
    """
    if training and not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN: expected at least one data set to train on, got none.")
    if not training and not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST: expected at least one data set to evaluate on, got none.")
    known = set(DatasetCatalog.list())
    keys = [("DATASETS.TEST", name) for name in cfg.DATASETS.TEST]
    if training:
        keys += [("DATASETS.TRAIN", name) for name in cfg.DATASETS.TRAIN]
    for key, name in keys:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"{key}: there is no data set {name!r}.{hint} Your own is registered by "
                "INPUT.DATASETS, a list of [name, annotation file, image root]."
            )
