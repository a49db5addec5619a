"""The one validator of configs: the check of each row, and checks of keys against each other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

from detectron2.config import CfgNode

from maskfreevis_ext.config.checks import shorten
from maskfreevis_ext.config.keys import lookup, registered_keys
from maskfreevis_ext.errors import ConfigError


def validate(cfg: CfgNode) -> None:
    """Check the values of a config, alone and against each other.

    Args:
        cfg: A config with all registered keys.

    Raises:
        ConfigError: Names the key, its value and what was expected; only the first fault is
            reported.
    """
    for key in registered_keys():
        value = lookup(cfg, key.name)
        if not key.unread and not key.check.test(value):
            raise ConfigError(f"{key.name}: expected {key.check.expected}, got {_shown(value)}.")
    for check in (
        _check_output_dir,
        _check_registered_names,
        _check_decoders,
        _check_backbone,
        _check_temporal,
        _check_multimask,
        _check_spatial_mask,
        _check_augmentation,
        _check_window,
        _check_self_training,
        _check_solver,
    ):
        check(cfg)


def _fail(key: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"{key}: expected {expected}, got {_shown(got)}.")


def _shown(value: object) -> str:
    return shorten(f"{value!r}" if isinstance(value, str) else value)


def _check_output_dir(cfg: CfgNode) -> None:
    # A config of somebody else must not write somewhere above the working folder by "../..".
    place = cfg.OUTPUT_DIR
    if not os.path.isabs(place) and os.path.normpath(place).split(os.sep)[0] == os.pardir:
        expected = f"a folder below {os.getcwd()}, or an absolute path ({os.path.abspath(place)})"
        raise _fail("OUTPUT_DIR", expected, place)


def _check_registered_names(cfg: CfgNode) -> None:
    # Detectron2's registries are filled when the models are imported, not when this module is.
    from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

    # Detectron2's own architectures take images, not clips; one of them is its default.
    videos = [n for n, kind in META_ARCH_REGISTRY if not kind.__module__.startswith("detectron2.")]
    _check_known("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, videos)
    _check_known("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, [n for n, _ in BACKBONE_REGISTRY])


def _check_known(key: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise _fail(key, f"one of {', '.join(sorted(known))}", name)


def _check_decoders(cfg: CfgNode) -> None:
    former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
    if former.HIDDEN_DIM % former.NHEADS or former.HIDDEN_DIM % 4:
        raise _fail(
            "MODEL.MASK_FORMER.HIDDEN_DIM",
            f"a multiple of 4 and of MODEL.MASK_FORMER.NHEADS ({former.NHEADS})",
            former.HIDDEN_DIM,
        )
    if head.CONVS_DIM % former.NHEADS or head.CONVS_DIM % 2:
        raise _fail(
            "MODEL.SEM_SEG_HEAD.CONVS_DIM",
            f"an even number and a multiple of MODEL.MASK_FORMER.NHEADS ({former.NHEADS})",
            head.CONVS_DIM,
        )
    if former.SIZE_DIVISIBILITY >= 1 and former.SIZE_DIVISIBILITY % head.COMMON_STRIDE:
        raise _fail(
            "MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
            f"a multiple of MODEL.SEM_SEG_HEAD.COMMON_STRIDE ({head.COMMON_STRIDE}), or 0",
            former.SIZE_DIVISIBILITY,
        )


#: Backbone -> the key that names the feature maps which it gives.
_OUT_FEATURES = {
    "build_resnet_backbone": "MODEL.RESNETS.OUT_FEATURES",
    "D2SwinTransformer": "MODEL.SWIN.OUT_FEATURES",
    "build_efficientnet_lite_backbone": "MODEL.EFFICIENTNET.OUT_FEATURES",
    "build_timm_backbone": "MODEL.TIMM.OUT_FEATURES",
}


def _check_backbone(cfg: CfgNode) -> None:
    backbone, resnets = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    is_small = backbone == "build_resnet_backbone" and resnets.DEPTH in (18, 34)
    if is_small and resnets.RES2_OUT_CHANNELS != 64:
        raise _fail(
            "MODEL.RESNETS.RES2_OUT_CHANNELS",
            f"64 with MODEL.RESNETS.DEPTH {resnets.DEPTH}",
            resnets.RES2_OUT_CHANNELS,
        )
    key = _OUT_FEATURES.get(backbone)
    if key is None:
        return
    has, wanted = lookup(cfg, key), list(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)
    if not isinstance(has, (list, tuple)) or not set(wanted) <= set(has):
        raise _fail(key, f"all of MODEL.SEM_SEG_HEAD.IN_FEATURES {wanted}", has)


def _check_temporal(cfg: CfgNode) -> None:
    temporal = cfg.MODEL.MASKFREE.TEMPORAL
    positions = (2 * temporal.SEARCH_RADIUS + 1) ** 2
    if temporal.TOP_K > positions:
        raise _fail(
            "MODEL.MASKFREE.TEMPORAL.TOP_K",
            f"at most the {positions} positions of SEARCH_RADIUS {temporal.SEARCH_RADIUS}",
            temporal.TOP_K,
        )


def _check_multimask(cfg: CfgNode) -> None:
    if cfg.MODEL.MULTIMASK.ENABLED and cfg.MODEL.MASKFREE.DENSE_MASK_GRADIENTS:
        raise _fail(
            "MODEL.MASKFREE.DENSE_MASK_GRADIENTS",
            "False with MODEL.MULTIMASK.ENABLED, which makes the masks of matched queries only",
            True,
        )


def _check_spatial_mask(cfg: CfgNode) -> None:
    spatial = cfg.MODEL.SPATIAL_MASK
    if not spatial.ENABLED:
        return
    levels = cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES
    if spatial.IN_LEVEL not in levels:
        raise _fail(
            "MODEL.SPATIAL_MASK.IN_LEVEL",
            f"one of {', '.join(levels)} "
            "(MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES)",
            spatial.IN_LEVEL,
        )
    last = cfg.MODEL.MASK_FORMER.DEC_LAYERS - 2
    if any(layer > last for layer in spatial.LAYERS):
        raise _fail(
            "MODEL.SPATIAL_MASK.LAYERS",
            f"layers 0 to {last} (MODEL.MASK_FORMER.DEC_LAYERS - 2)",
            list(spatial.LAYERS),
        )
    if spatial.HOLD_END < spatial.HOLD_START:
        raise _fail(
            "MODEL.SPATIAL_MASK.HOLD_END",
            f"{spatial.HOLD_START} (MODEL.SPATIAL_MASK.HOLD_START) or more",
            spatial.HOLD_END,
        )


def _check_augmentation(cfg: CfgNode) -> None:
    for name, node in (("INPUT", cfg.INPUT), ("INPUT.PSEUDO", cfg.INPUT.PSEUDO)):
        _check_sizes(name, node)
        if node.CROP.ENABLED:
            _check_crop(f"{name}.CROP", node.CROP)
    jitter = cfg.INPUT.LSJ_AUG
    if jitter.MAX_SCALE < jitter.MIN_SCALE:
        raise _fail(
            "INPUT.LSJ_AUG.MAX_SCALE",
            f"{jitter.MIN_SCALE} (INPUT.LSJ_AUG.MIN_SCALE) or more",
            jitter.MAX_SCALE,
        )


def _check_sizes(name: str, node: CfgNode) -> None:
    sizes = node.MIN_SIZE_TRAIN
    is_range = node.MIN_SIZE_TRAIN_SAMPLING.startswith("range")
    if is_range and (isinstance(sizes, int) or len(sizes) != 2):
        raise _fail(
            f"{name}.MIN_SIZE_TRAIN",
            "two sizes, the least and the greatest, with MIN_SIZE_TRAIN_SAMPLING "
            f"{node.MIN_SIZE_TRAIN_SAMPLING}",
            sizes,
        )


def _check_crop(name: str, crop: CfgNode) -> None:
    if crop.TYPE.startswith("relative") and max(crop.SIZE) > 1:
        raise _fail(f"{name}.SIZE", f"two numbers in (0, 1] with TYPE {crop.TYPE}", crop.SIZE)
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        raise _fail(
            f"{name}.SIZE", f"(least, greatest) side in pixels with TYPE {crop.TYPE}", crop.SIZE
        )


def _check_window(cfg: CfgNode) -> None:
    window = cfg.TEST.WINDOW
    if window.STRIDE > window.SIZE:
        raise _fail(
            "TEST.WINDOW.STRIDE", f"at most {window.SIZE} (TEST.WINDOW.SIZE)", window.STRIDE
        )


def _check_self_training(cfg: CfgNode) -> None:
    node = cfg.MODEL.MASKFREE
    if node.SELF_TRAINING.ENABLED and node.TEACHER.WEIGHT == 0:
        raise _fail(
            "MODEL.MASKFREE.TEACHER.WEIGHT",
            "more than 0 with MODEL.MASKFREE.SELF_TRAINING.ENABLED",
            node.TEACHER.WEIGHT,
        )


def _check_solver(cfg: CfgNode) -> None:
    from detectron2.utils import comm

    world_size = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % world_size:
        raise _fail(
            "SOLVER.IMS_PER_BATCH",
            f"a multiple of the {world_size} processes",
            cfg.SOLVER.IMS_PER_BATCH,
        )
    steps = tuple(cfg.SOLVER.STEPS)
    if any(b <= a for a, b in itertools.pairwise([0, *steps])):
        raise _fail("SOLVER.STEPS", "rising iterations above 0", steps)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_VALUE <= 0:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE: expected more than 0, got {clip.CLIP_VALUE}. "
            "Set SOLVER.CLIP_GRADIENTS.ENABLED to False for no clipping."
        )
