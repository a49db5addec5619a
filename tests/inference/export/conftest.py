"""A small exported model, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from maskfreevis_ext.inference.export.write import export_model
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from tests.helpers.configs import tiny_cfg

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "emu"}]


@dataclass(frozen=True)
class Exported:
    """A model and its export."""

    cfg: CfgNode
    model: VideoMaskFormer
    folder: Path
    description: dict[str, Any]


def small_model(*overrides: object) -> tuple[CfgNode, VideoMaskFormer]:
    """A model with random weights, in which no layer is left at zero; for frames of 64 x 96."""
    cfg = tiny_cfg(
        *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
        *("MODEL.MASK_FORMER.DEC_LAYERS", 3, "MODEL.MASKFREE.TEST.FRAMES_PER_CHUNK", 2),
        *("INPUT.MIN_SIZE_TEST", 60, "DATASETS.TRAIN", (), "DATASETS.TEST", ()),
        *overrides,
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return cfg, model


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    """A model with both heads, exported for videos of 120 x 180, whose frames become 60 x 90."""
    cfg, model = small_model("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True)
    folder = tmp_path_factory.mktemp("exported")
    description = export_model(cfg, model, folder, video_size=(120, 180), categories=CATEGORIES)
    return Exported(cfg, model, folder, description)
