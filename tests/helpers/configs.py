"""Configs of models for tests: the three of the reference, and a tiny one."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from maskfreevis_ext.config import add_maskfreevis_config

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
_REFERENCE = {"r50": "R50_bs16", "r101": "R101_bs16", "swinl": "SwinL_bs8"}


def base_cfg() -> CfgNode:
    """Detectron2's defaults with the keys of the project, on the CPU."""
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def reference_cfg(backbone: str) -> CfgNode:
    """The model of the YouTubeVIS 2019 configs, on the CPU, without weights.

    Args:
        backbone: "r50", "r101" or "swinl".
    """
    cfg = base_cfg()
    cfg.merge_from_file(
        str(CONFIG_DIR / "youtubevis_2019" / f"maskfreevis_{_REFERENCE[backbone]}.yaml")
    )
    cfg.MODEL.WEIGHTS = ""
    return cfg


def tiny_cfg(*overrides: object) -> CfgNode:
    """A model of the same parts that runs in milliseconds.

    Args:
        overrides: Further keys and values, one after the other.
    """
    cfg = reference_cfg("r50")
    cfg.merge_from_list(
        [
            *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
            *("MODEL.RESNETS.WIDTH_PER_GROUP", 4),
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.MASK_DIM", 24),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1),
            *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD", 64),
            *("MODEL.MASK_FORMER.HIDDEN_DIM", 32, "MODEL.MASK_FORMER.NHEADS", 4),
            *("MODEL.MASK_FORMER.DIM_FEEDFORWARD", 64, "MODEL.MASK_FORMER.DEC_LAYERS", 4),
            *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 8),
            *("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64),
            *overrides,
        ]
    )
    return cfg
