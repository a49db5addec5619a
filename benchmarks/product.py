"""The parts of the package that are measured, built from configs through their public interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import maskfreevis_ext  # noqa: F401  (chooses Detectron2 before anything imports it)

# isort: split
from detectron2.config import CfgNode
from torch import Tensor

from benchmarks.options import R50_CONFIG, Options
from benchmarks.scene import STRIDE, Scene
from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from maskfreevis_ext.ops.similarity import frame_pairs

#: One decoder output, ``pred_logits`` and ``pred_masks``.
Layer = dict[str, Tensor]

#: The last decoder output, with the others in ``aux_outputs``.
Outputs = dict[str, Any]

#: Config values that choose what the reference does, for results that can be compared with it.
REFERENCE_MODE = (
    *("MODEL.MASKFREE.LAB_CHANNEL_ORDER", "reversed", "MODEL.MASKFREE.LAB_QUANTIZE", "True"),
    *("MODEL.MASKFREE.MATCH_OUTSIDE", "True"),
    *("MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT", "0.0"),
    *("MODEL.MASKFREE.TEMPORAL.NORM_PAIRS", "0", "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", "0"),
)


def criterion_config(options: Options, *opts: str) -> CfgNode:
    """The R50 config at the sizes of the command line.

    Args:
        options: The command line.
        opts: Further KEY VALUE pairs.

    Raises:
        ConfigError: A value is not allowed.
    """
    return load_config(
        str(R50_CONFIG),
        [
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(options.classes)),
            *("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", str(options.points)),
            *("MODEL.MASKFREE.TEMPORAL.PAIRS", options.pairs, "SOLVER.AMP.ENABLED", "False"),
            *opts,
        ],
        options.device,
    )


def model_config(options: Options, *opts: str, defaults: Sequence[str] = ()) -> CfgNode:
    """The config of the command line, with random weights and without mixed precision.

    Args:
        options: The command line.
        opts: Further KEY VALUE pairs.
        defaults: KEY VALUE pairs that those of the command line may override.

    Raises:
        ConfigError: A value is not allowed.
    """
    words = ["MODEL.WEIGHTS", "", "SOLVER.AMP.ENABLED", "False", *defaults, *options.opts, *opts]
    return load_config(options.config_file, words, options.device)


def build_criterion(cfg: CfgNode) -> VideoSetCriterion:
    """The criterion of a config, in training mode, on the device of the config."""
    return VideoSetCriterion(cfg).to(cfg.MODEL.DEVICE).train()


def affinities_of(cfg: CfgNode, scene: Scene) -> Callable[[Tensor], object]:
    """A function from padded frames (B, T, 3, H, W) of a scene to their edges and matches."""
    return partial(
        compute_affinities,
        frame_sizes=scene.frame_sizes,
        stride=STRIDE,
        settings=AffinitySettings(**AffinitySettings.from_config(cfg)),
    )


def loss_weights(cfg: CfgNode) -> dict[str, float]:
    """Weights of the losses that the literal criterion has."""
    mask_former, maskfree = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASKFREE
    return {
        "loss_ce": mask_former.CLASS_WEIGHT,
        "loss_mask_proj": mask_former.MASK_WEIGHT * maskfree.PROJECTION.WEIGHT,
        "loss_bound": mask_former.MASK_WEIGHT * maskfree.PAIRWISE.WEIGHT,
        "loss_bound_neighbor": mask_former.MASK_WEIGHT * maskfree.TEMPORAL.WEIGHT,
    }


def pairs_of(options: Options) -> list[tuple[int, int]]:
    """Frame pairs of the temporal loss.

    Raises:
        ConfigError: --pairs is no known kind.
    """
    try:
        return frame_pairs(options.pairs, options.frames)
    except ValueError as error:
        raise ConfigError(f"--pairs (MODEL.MASKFREE.TEMPORAL.PAIRS): {error}") from error


def layers_of(outputs: Mapping[str, Any]) -> list[Layer]:
    """All decoder outputs in a list, the last one first."""
    return [dict(outputs), *outputs.get("aux_outputs", [])]
