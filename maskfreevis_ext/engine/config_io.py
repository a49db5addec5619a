"""From a YAML file and a command line to a checked, frozen config."""

from __future__ import annotations

import argparse
import difflib
import itertools
import logging
import os
import re
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from maskfreevis_ext import describe_provider
from maskfreevis_ext.config import add_maskfreevis_config, lookup, report_dead_keys
from maskfreevis_ext.engine.yaml_check import check_yaml_file
from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)

_MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs\. <class '(\w+)'>\) with values \((.*)\) "
    r"for config key: (\S+)",
    re.DOTALL,
)
SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")


def default_config() -> CfgNode:
    """Every key of Detectron2 and of this project, with its default."""
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    return cfg


def load_config(config_file: str, opts: Sequence[str] = (), device: str | None = None) -> CfgNode:
    """Read a config file and overrides into a checked, frozen config.

    Args:
        config_file: A YAML file; "" for the defaults alone.
        opts: Overrides, KEY VALUE KEY VALUE and so on.
        device: Overrides MODEL.DEVICE.

    Returns:
        The config. MODEL.DEVICE is "cpu" where it named a GPU and there is none.

    Raises:
        ConfigError: A file, a key or a value cannot be used; names it, and says what was expected.
    """
    cfg = default_config()
    if config_file:
        check_yaml_file(config_file)
        _merge(cfg, lambda: cfg.merge_from_file(config_file, allow_unsafe=False), config_file)
    if len(opts) % 2:
        raise ConfigError(
            f"Overrides: expected KEY VALUE pairs, got an odd number of words: {' '.join(opts)}"
        )
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), "the command line")
    if device:
        cfg.MODEL.DEVICE = device
    _fall_back_to_cpu(cfg)
    _register_datasets(cfg)
    validate(cfg)
    cfg.freeze()
    return cfg


def setup_config(args: argparse.Namespace) -> CfgNode:
    """The config of a command line, with loggers, output folder and seed set up.

    Args:
        args: What ``default_argument_parser`` gives (``config_file``, ``opts``, ``eval_only``), and
            ``device``.

    Returns:
        A frozen config.

    Raises:
        ConfigError: As ``load_config``, or a data set of the run is not known.
    """
    messages = _Collected()
    with messages:
        cfg = load_config(args.config_file, args.opts or (), getattr(args, "device", None))
        validate_datasets(cfg, training=not getattr(args, "eval_only", False))
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as e:
        raise ConfigError(
            f"OUTPUT_DIR: expected a folder to write to, got {cfg.OUTPUT_DIR!r} ({e})."
        ) from e
    rank = comm.get_rank()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="maskfreevis_ext", abbrev_name="mfvis")
    logger.info(describe_provider())
    messages.replay()
    report_dead_keys(cfg, default_config())
    default_setup(cfg, args)
    return cfg


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


def _merge(cfg: CfgNode, merge: Callable[[], object], source: str) -> None:
    """Run a merge of yacs and turn its errors into ones that name source, key and remedy."""
    try:
        merge()
    except (KeyError, ValueError, AssertionError) as e:
        text = str(e.args[0]) if e.args else str(e)
        unknown = re.match(r"Non-existent (?:config )?key: (\S+)", text)
        mismatch = _MISMATCH.match(text)
        if mismatch:
            expected, got, values, key = mismatch.groups()
            default, _, value = values.partition(" vs. ")
            raise ConfigError(
                f"{source}: {key}: expected a value of type {expected}, such as {default}, "
                f"got {value} ({got})."
            ) from None
        if unknown is None:
            raise ConfigError(f"{source}: {text}") from None
        near = difflib.get_close_matches(unknown[1], _all_keys(cfg), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"{source}: there is no config key {unknown[1]}.{hint}") from None


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys.extend(_all_keys(value, f"{prefix}{name}."))
    return keys


def _fall_back_to_cpu(cfg: CfgNode) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning(
            "MODEL.DEVICE is %s, but PyTorch sees no GPU: running on the CPU.", cfg.MODEL.DEVICE
        )
        cfg.MODEL.DEVICE = "cpu"
    if cfg.SOLVER.AMP.ENABLED and not cfg.MODEL.DEVICE.startswith("cuda"):
        logger.warning(
            "SOLVER.AMP.ENABLED needs a GPU: training in float32 on %s.", cfg.MODEL.DEVICE
        )
        cfg.SOLVER.AMP.ENABLED = False


def _register_datasets(cfg: CfgNode) -> None:
    from maskfreevis_ext.data.builtin import register_from_config

    register_from_config(cfg)


def _is_one_of(*values: str) -> tuple[Callable[[object], bool], str]:
    return (lambda v: v in values), "one of " + ", ".join(values)


def _at_least(low: float) -> tuple[Callable[[float], bool], str]:
    return (lambda v: v >= low), f"at least {low}"


def _at_most(high: float) -> tuple[Callable[[float], bool], str]:
    return (lambda v: v <= high), f"at most {high}"


def _above(low: float) -> tuple[Callable[[float], bool], str]:
    return (lambda v: v > low), f"more than {low}"


_FRACTION = (lambda v: 0.0 <= v <= 1.0), "a number in [0, 1]"
_THREE = (lambda v: len(v) == 3), "three numbers, one per channel"
_ODD = (lambda v: v >= 1 and v % 2 == 1), "an odd number, at least 1"

#: What a single key must fulfil: key -> (test, what was expected).
RULES: dict[str, tuple[Callable, str]] = {
    "MODEL.DEVICE": (
        (lambda v: re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", v) is not None),
        "a device such as cpu, cuda or cuda:0",
    ),
    "MODEL.PIXEL_MEAN": _THREE,
    "MODEL.PIXEL_STD": _THREE,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": _at_least(1),
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": _at_least(0),
    "MODEL.MASK_FORMER.DEC_LAYERS": _at_least(2),
    "MODEL.MASK_FORMER.NHEADS": _at_least(1),
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": _at_least(1),
    "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": (
        (lambda v: v < 1 or v % 32 == 0),
        "a multiple of 32 (the stride of res5), or 0 for what the backbone needs",
    ),
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": _at_least(1),
    "MODEL.MASK_FORMER.OVERSAMPLE_RATIO": _at_least(1),
    "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO": _FRACTION,
    "MODEL.MASKFREE.LAB_CHANNEL_ORDER": _is_one_of("correct", "reversed"),
    "MODEL.MASKFREE.PROJECTION.WEIGHT": _at_least(0),
    "MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT": _at_least(0),
    "MODEL.MASKFREE.PAIRWISE.WEIGHT": _at_least(0),
    "MODEL.MASKFREE.PAIRWISE.DILATION": _at_least(1),
    "MODEL.MASKFREE.PAIRWISE.THRESHOLD": _FRACTION,
    "MODEL.MASKFREE.PAIRWISE.WARMUP_ITERS": _at_least(0),
    "MODEL.MASKFREE.TEMPORAL.WEIGHT": _at_least(0),
    "MODEL.MASKFREE.TEMPORAL.SCALE": _at_least(0),
    "MODEL.MASKFREE.TEMPORAL.PAIRS": (
        (lambda v: re.fullmatch(r"cycle|all|chain|stride-[1-9]\d*", v) is not None),
        "one of cycle, all, chain, stride-k with k >= 1",
    ),
    "MODEL.MASKFREE.TEMPORAL.NORM_PAIRS": _at_least(0),
    "MODEL.MASKFREE.TEMPORAL.PATCH_SIZE": _ODD,
    "MODEL.MASKFREE.TEMPORAL.SEARCH_RADIUS": _at_least(0),
    "MODEL.MASKFREE.TEMPORAL.SEARCH_DILATION": _at_least(1),
    "MODEL.MASKFREE.TEMPORAL.TOP_K": _at_least(1),
    "MODEL.MASKFREE.TEMPORAL.THRESHOLD": _FRACTION,
    "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS": _at_least(0),
    "MODEL.MASKFREE.MATCHER.NONFINITE_COST": _is_one_of("error", "replace"),
    "MODEL.MASKFREE.TEST.NUM_TRACKS": _at_least(1),
    "MODEL.MASKFREE.TEST.FRAMES_PER_CHUNK": _at_least(1),
    "MODEL.MULTIMASK.NUM_MASKS": _at_least(1),
    "MODEL.MULTIMASK.IOU_TARGET": _is_one_of("box", "mask"),
    "MODEL.MULTIMASK.STABILITY_DELTA": _at_least(0),
    "MODEL.MULTIMASK.STABILITY_THRESH": _FRACTION,
    "MODEL.MULTIMASK.TEST.MARGIN": _FRACTION,
    "MODEL.MULTIMASK.LOSS.MASK": _at_least(0),
    "MODEL.MULTIMASK.LOSS.DICE": _at_least(0),
    "MODEL.MULTIMASK.LOSS.IOU": _at_least(0),
    "MODEL.MULTIMASK.LOSS.CLASS": _at_least(0),
    "MODEL.MULTIMASK.LOSS.FOCAL_ALPHA": _at_most(1),
    "MODEL.MULTIMASK.LOSS.OBJ_ALPHA": _at_most(1),
    "MODEL.MULTIMASK.LOSS.FOCAL_GAMMA": _at_least(0),
    "MODEL.MULTIMASK.LOSS.OBJ_GAMMA": _at_least(0),
    "MODEL.SPATIAL_MASK.TAU_INIT": _above(0.001),
    "MODEL.SPATIAL_MASK.ALPHA_INIT": _above(0),
    "MODEL.SPATIAL_MASK.BIAS_MAX": _at_least(0),
    "MODEL.SPATIAL_MASK.SUPPRESS": _is_one_of("background", "dynamic"),
    "MODEL.SPATIAL_MASK.ROWS": _is_one_of("all", "gate"),
    "MODEL.SPATIAL_MASK.HOLD_START": _at_least(0),
    "MODEL.SPATIAL_MASK.HOLD_END": _at_least(0),
    "MODEL.SPATIAL_MASK.LOSS.WEIGHT": _at_least(0),
    "MODEL.SPATIAL_MASK.LOSS.DICE": _at_least(0),
    "MODEL.SPATIAL_MASK.LOSS.TV_WEIGHT": _at_least(0),
    "MODEL.SPATIAL_MASK.LOSS.BOX_MODE": _is_one_of("skip", "weak"),
    "MODEL.SPATIAL_MASK.LOSS.POS_WEIGHT": _at_least(0),
    "INPUT.FORMAT": _is_one_of("RGB", "BGR"),
    "INPUT.SUPERVISION": _is_one_of("box", "mask", "data"),
    "INPUT.SAMPLING_FRAME_NUM": _at_least(1),
    "INPUT.SAMPLING_FRAME_RANGE": _at_least(0),
    "INPUT.RANDOM_FLIP": _is_one_of("none", "horizontal", "vertical", "flip_by_clip"),
    "SOLVER.OPTIMIZER": _is_one_of("ADAMW", "SGD"),
    "SOLVER.BASE_LR": _above(0),
    "SOLVER.BACKBONE_MULTIPLIER": _at_least(0),
    "SOLVER.IMS_PER_BATCH": _at_least(1),
    "SOLVER.MAX_ITER": _at_least(1),
    "SOLVER.CHECKPOINT_PERIOD": _at_least(1),
    "SOLVER.LR_SCHEDULER_NAME": _is_one_of(*SCHEDULERS),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _is_one_of("full_model", "norm", "value"),
    "DATALOADER.NUM_WORKERS": _at_least(0),
}


def validate(cfg: CfgNode) -> None:
    """Check the keys of a config, alone and against each other.

    Raises:
        ConfigError: Names the key, its value and what was expected. The first fault found is the
            one reported.
    """
    for key, (test, expected) in RULES.items():
        value = lookup(cfg, key)
        if not test(value):
            raise ConfigError(f"{key}: expected {expected}, got {value!r}.")
    # Detectron2's own architectures take images, not clips; one of them is the default.
    videos = [n for n, kind in META_ARCH_REGISTRY if not kind.__module__.startswith("detectron2.")]
    _check_known("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, videos)
    _check_known("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, [n for n, _ in BACKBONE_REGISTRY])
    _validate_model(cfg)
    _validate_solver(cfg)


def _check_known(key: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(f"{key}: expected one of {', '.join(sorted(known))}, got {name!r}.")


def _validate_model(cfg: CfgNode) -> None:
    former = cfg.MODEL.MASK_FORMER
    if former.HIDDEN_DIM % former.NHEADS or former.HIDDEN_DIM % 4:
        raise ConfigError(
            "MODEL.MASK_FORMER.HIDDEN_DIM: expected a multiple of 4 and of "
            f"MODEL.MASK_FORMER.NHEADS ({former.NHEADS}), got {former.HIDDEN_DIM}."
        )
    temporal = cfg.MODEL.MASKFREE.TEMPORAL
    positions = (2 * temporal.SEARCH_RADIUS + 1) ** 2
    if temporal.TOP_K > positions:
        raise ConfigError(
            f"MODEL.MASKFREE.TEMPORAL.TOP_K: expected at most the {positions} positions of "
            f"SEARCH_RADIUS {temporal.SEARCH_RADIUS}, got {temporal.TOP_K}."
        )
    resnets = cfg.MODEL.RESNETS
    if cfg.MODEL.BACKBONE.NAME == "build_resnet_backbone":
        if resnets.DEPTH in (18, 34) and resnets.RES2_OUT_CHANNELS != 64:
            raise ConfigError(
                f"MODEL.RESNETS.RES2_OUT_CHANNELS: expected 64 with DEPTH {resnets.DEPTH}, "
                f"got {resnets.RES2_OUT_CHANNELS}."
            )
        missing = [f for f in cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES if f not in resnets.OUT_FEATURES]
        if missing:
            raise ConfigError(
                "MODEL.RESNETS.OUT_FEATURES: expected all of MODEL.SEM_SEG_HEAD.IN_FEATURES "
                f"{list(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)}, got {list(resnets.OUT_FEATURES)} "
                f"without {missing}."
            )


def _validate_solver(cfg: CfgNode) -> None:
    world_size = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH: expected a multiple of the {world_size} processes, "
            f"got {cfg.SOLVER.IMS_PER_BATCH}."
        )
    steps = list(cfg.SOLVER.STEPS)
    if any(b <= a for a, b in itertools.pairwise([0, *steps])):
        raise ConfigError(f"SOLVER.STEPS: expected rising iterations above 0, got {tuple(steps)}.")
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_VALUE <= 0:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE: expected more than 0, got {clip.CLIP_VALUE}. "
            "Set SOLVER.CLIP_GRADIENTS.ENABLED to False for no clipping."
        )


def validate_datasets(cfg: CfgNode, training: bool) -> None:
    """Check that the data sets of a run are registered.

    Args:
        cfg: The config.
        training: The training sets are needed too, not only the ones for evaluation.

    Raises:
        ConfigError: A name is unknown, or there is no set to train or evaluate on.
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
