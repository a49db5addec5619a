"""Configs of models for tests: the three of the reference, and a tiny one."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from maskfreevis_ext.config import add_maskfreevis_config


def base_cfg() -> CfgNode:
    """Detectron2's defaults with the keys of the project, on the CPU."""
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def reference_cfg(backbone: str) -> CfgNode:
    """The model of the reference's YouTubeVIS 2019 configs.

    Args:
        backbone: "r50", "r101" or "swinl".
    """
    cfg = base_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.META_ARCHITECTURE", "VideoMaskFormer", "MODEL.WEIGHTS", ""),
            *("MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.BACKBONE.NAME", "build_resnet_backbone"),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.RESNETS.STRIDE_IN_1X1", False, "MODEL.RESNETS.STEM_TYPE", "basic"),
            *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
            *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375], "INPUT.FORMAT", "RGB"),
            *("MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead"),
            *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder"),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40, "MODEL.SEM_SEG_HEAD.NORM", "GN"),
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 256, "MODEL.SEM_SEG_HEAD.MASK_DIM", 256),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 6),
            *(
                "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
                "VideoMultiScaleMaskedTransformerDecoder",
            ),
            *("MODEL.MASK_FORMER.DROPOUT", 0.0, "MODEL.MASK_FORMER.DEC_LAYERS", 10),
            *("MODEL.MASK_FORMER.CLASS_WEIGHT", 2.0, "MODEL.MASK_FORMER.MASK_WEIGHT", 5.0),
            *("MODEL.MASK_FORMER.DICE_WEIGHT", 5.0, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 20000),
        ]
    )
    if backbone == "r101":
        cfg.MODEL.RESNETS.DEPTH = 101
    elif backbone == "swinl":
        cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
        cfg.MODEL.SWIN.EMBED_DIM = 192
        cfg.MODEL.SWIN.DEPTHS = [2, 2, 18, 2]
        cfg.MODEL.SWIN.NUM_HEADS = [6, 12, 24, 48]
        cfg.MODEL.SWIN.WINDOW_SIZE = 12
        cfg.MODEL.SWIN.PRETRAIN_IMG_SIZE = 384
        cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = 200
    return cfg


def tiny_cfg(*overrides: object) -> CfgNode:
    """A model of the same parts that runs in milliseconds.

    Args:
        overrides: Further keys and values, one after the other.
    """
    cfg = reference_cfg("r50")
    cfg.merge_from_list(
        [
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
            *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
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
