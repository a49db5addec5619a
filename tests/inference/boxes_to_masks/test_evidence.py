"""A model's queries are matched with given boxes, and its hypotheses chosen by them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskfreevis_ext.inference.boxes_to_masks.evidence import (
    ModelEvidence,
    map_boxes,
    match_boxes,
)
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.ops.clip import FrameSizes
from maskfreevis_ext.pseudo.windows import place_windows

HEIGHT, WIDTH = 48, 64
SIZES = FrameSizes((32, 64), (24, 32), (48, 64))  # maps of (8, 16): 4 x 4 pixels of the input


def _logits(boxes: list[tuple[int, int, int, int] | None]) -> Tensor:
    """Maps (Q, 1, 8, 16) that are positive in boxes of cells."""
    maps = torch.full((len(boxes), 1, 8, 16), -8.0)
    for one, box in zip(maps, boxes, strict=True):
        if box is not None:
            x0, y0, x1, y1 = box
            one[:, y0:y1, x0:x1] = 8
    return maps


class _Model(nn.Module):
    """Two queries with masks in boxes of cells; the second has further hypotheses in a head."""

    def __init__(self, maps: Tensor, hypotheses: Tensor | None = None) -> None:
        super().__init__()
        self.maps, self.heads = maps, {}
        if hypotheses is not None:
            head = SimpleNamespace(
                rated_masks=lambda outputs, kept: SimpleNamespace(logits=hypotheses[kept])
            )
            self.heads = {"multimask": head, "other": SimpleNamespace()}

    def predict(self, video: dict[str, Any]) -> tuple[dict[str, Tensor], FrameSizes]:
        assert (video["height"], video["width"]) == (HEIGHT, WIDTH)
        count = len(video["image"])
        return {"pred_masks": self.maps.expand(-1, count, -1, -1)}, SIZES


def _evidence(model: nn.Module, boxes: np.ndarray) -> Any:
    frames = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * boxes.shape[1]
    windows = place_windows(boxes, (HEIGHT, WIDTH), 16, 1.6)
    return ModelEvidence(VideoPredictor(model, min_size=0))(frames, boxes, windows), windows


def test_boxes_of_maps_are_in_pixels_of_the_video() -> None:
    boxes = map_boxes(_logits([(1, 2, 3, 5), None, (0, 0, 16, 8)]), SIZES)
    assert boxes[0, 0].tolist() == [8, 16, 24, 40]  # a cell is 8 pixels of the video
    assert boxes[1, 0].tolist() == [0, 0, 0, 0]
    assert boxes[2, 0].tolist() == [0, 0, 64, 48]  # padding is no part of the frame


def test_matching_is_one_to_one_and_leaves_out_what_is_elsewhere() -> None:
    predicted = np.array([[[0, 0, 10, 10]], [[20, 0, 30, 10]], [[1, 0, 11, 10]]], dtype=float)
    boxes = np.array([[[0, 0, 10, 10]], [[40, 0, 50, 10]]], dtype=float)
    assert match_boxes(predicted, boxes) == [(0, 0)]


def test_masks_of_the_matched_queries_come_into_the_windows() -> None:
    boxes = np.array([[[8.0, 16, 24, 40]] * 20, [[40.0, 8, 56, 24]] * 20, [[0.0, 0, 4, 4]] * 20])
    boxes[1, 3:] = 0
    model = _Model(_logits([(5, 1, 7, 3), (1, 2, 3, 5)]))
    predicted, windows = _evidence(model, boxes)
    torch.testing.assert_close(predicted.agreement[0], torch.ones(20))
    assert predicted.agreement[2].max() == 0
    back = windows.to_frame(predicted.probabilities[0, 19].numpy(), 0, 19) > 0.5
    assert back[18:38, 10:22].all()
    assert back.sum() >= 0.8 * 16 * 24
    assert predicted.probabilities[2].max() == 0


def test_hypothesis_whose_box_agrees_is_chosen() -> None:
    boxes = np.array([[[8.0, 16, 24, 40]]])
    ordinary = _logits([(1, 2, 3, 4)])
    hypotheses = torch.stack([ordinary, _logits([(1, 2, 3, 5)]), _logits([(1, 2, 9, 5)])], 1)
    without, _ = _evidence(_Model(ordinary), boxes)
    with_head, _ = _evidence(_Model(ordinary, hypotheses), boxes)
    assert 0.6 < float(without.agreement[0, 0]) < 0.7
    assert float(with_head.agreement[0, 0]) == 1
