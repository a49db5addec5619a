"""Pictures of predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage
from torch import nn

from maskfreevis_ext.config import default_config
from maskfreevis_ext.engine.hooks import MIN_SCORE, DrawPredictions

SIZE = (240, 360)


class _Model(nn.Module):
    """Three tracks: a good one in frame 0 only, a good but empty one, a bad one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, batch: list[dict]) -> list[dict]:
        assert not self.training
        assert not torch.is_grad_enabled()
        frames = len(batch[0]["image"])
        self.calls.append(frames)
        masks = torch.zeros(3, frames, *SIZE, dtype=torch.bool)
        masks[0, 0, 180:, 300:] = True
        masks[2, :] = True
        scores = [MIN_SCORE + 0.1, MIN_SCORE + 0.2, MIN_SCORE - 0.1]
        result = {"image_size": SIZE, "pred_scores": scores, "pred_labels": [1, 0, 0]}
        return [{**result, "pred_masks": list(masks)}]


class _Trainer:
    def __init__(self, model: nn.Module, color_order: str) -> None:
        self.model = self.evaluated_model = model
        self.storage = EventStorage()
        self.iter = 0
        self.loads = 0
        red = torch.zeros(3, 20, 30, dtype=torch.uint8)
        red[0 if color_order == "RGB" else 2] = 200
        self.video = {"image": [red] * 6, "file_names": list("abcdef"), "height": 240, "width": 360}

    def build_test_loader(self, cfg, name) -> list:
        self.loads += 1
        return [[self.video]]


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_pictures_show_the_tracks_of_each_frame(color_order, wrapped):
    cfg = default_config()
    cfg.VIS_PERIOD = 2
    cfg.INPUT.FORMAT = color_order
    cfg.DATASETS.TEST = ("hooks_test",)
    MetadataCatalog.get("hooks_test").set(thing_classes=["one", "two"])
    model = _Model().train()
    outer = model
    if wrapped:
        outer = nn.Module()
        outer.module = model
    hook = DrawPredictions(cfg, max_frames=3)
    hook.trainer = trainer = _Trainer(outer, color_order)
    for trainer.iter in range(4):
        hook.after_step()
    assert model.training
    assert model.calls == [3, 3]
    assert trainer.loads == 1
    assert len(trainer.video["image"]) == 6
    pictures = {name: picture for name, picture, _ in trainer.storage._vis_data}
    assert sorted(pictures) == [f"predictions/hooks_test/frame_{t}" for t in range(3)]
    first, second = (
        np.asarray(pictures[f"predictions/hooks_test/frame_{t}"]).transpose(1, 2, 0) for t in (0, 1)
    )
    assert first.shape == (*SIZE, 3)
    assert (second == [200, 0, 0]).all()  # nothing to draw: red, whatever the order of the input
    assert (first[:20, :20] == [200, 0, 0]).all()
    assert (first[190:, 310:] != [200, 0, 0]).any(-1).all()
