"""The head and the choice of its parts by name."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head

from maskfreevis_ext.errors import ConfigError
from tests.helpers.configs import base_cfg, tiny_cfg

SHAPES = {
    name: ShapeSpec(channels=channels, stride=4 * 2**i)
    for i, (name, channels) in enumerate([("res2", 6), ("res3", 8), ("res4", 10), ("res5", 12)])
}


def test_head_takes_t_and_derives_b() -> None:
    head = build_sem_seg_head(tiny_cfg(), SHAPES)
    features = {
        name: torch.randn(6, spec.channels, 64 // spec.stride, 96 // spec.stride)
        for name, spec in SHAPES.items()
    }
    for frames in (1, 2, 3, 6):
        outputs = head(features, num_frames=frames)
        assert outputs["pred_logits"].shape == (6 // frames, 8, 4)
        assert outputs["pred_masks"].shape == (6 // frames, 8, frames, 16, 24)
        assert "aux_outputs" not in outputs
    assert len(head(features, num_frames=2, return_aux=True)["aux_outputs"]) == 3


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder"),
        (
            "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
            "VideoMultiScaleMaskedTransformerDecoder",
        ),
    ],
)
def test_head_unknown_name_says_what_is_allowed(key: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} must be one of .*{allowed}.*, got 'Unknown'"):
        build_sem_seg_head(tiny_cfg(key, "Unknown"), SHAPES)


def test_head_missing_backbone_output_names_the_key() -> None:
    shapes = {name: spec for name, spec in SHAPES.items() if name != "res4"}
    with pytest.raises(ConfigError, match=r"IN_FEATURES names \['res4'\], but the backbone gives"):
        build_sem_seg_head(tiny_cfg(), shapes)


def test_head_without_decoder_layers_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"DEC_LAYERS .* got 0"):
        build_sem_seg_head(tiny_cfg("MODEL.MASK_FORMER.DEC_LAYERS", 0), SHAPES)


def test_defaults_of_the_reference_name_absent_decoders() -> None:
    cfg = base_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "MaskFormerHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = list(SHAPES)
    with pytest.raises(ConfigError, match="PIXEL_DECODER_NAME"):
        build_sem_seg_head(cfg, SHAPES)
