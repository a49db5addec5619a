"""Targets from what the mappers return."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.modeling.targets import build_targets

CPU = torch.device("cpu")


def _frame(ids: list[int], masks: torch.Tensor | None = None, size: int = 8) -> Instances:
    frame = Instances((size, size))
    frame.gt_classes = torch.tensor([4, 1, 2][: len(ids)])
    frame.gt_ids = torch.tensor(ids, dtype=torch.int64)
    frame.gt_boxes = Boxes(torch.arange(4.0).expand(len(ids), -1) + torch.tensor([0, 0, 2, 2]))
    if masks is not None:
        frame.gt_masks = BitMasks(masks)
    return frame


def test_box_targets_have_boxes_and_no_masks() -> None:
    sample = {"instances": [_frame([7, -1, -1]), _frame([7, -1, 3])], "supervision": "box"}
    (target,) = build_targets([sample], (32, 32), CPU)
    assert target["labels"].tolist() == [4, 2]  # the object of no frame is left out
    assert target["ids"].tolist() == [[7, 7], [-1, 3]]
    assert target["boxes"].shape == (2, 2, 4)
    assert (target["boxes"][1, 0] == 0).all()
    assert (target["boxes"][1, 1] > 0).any()
    assert target["has_mask"].tolist() == [False, False]
    assert "masks" not in target


def test_mask_targets_are_padded_and_zero_where_absent() -> None:
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    frames = [_frame([7, 5], masks), _frame([7, -1], masks)]
    (target,) = build_targets([{"instances": frames, "supervision": "mask"}], (16, 32), CPU)
    assert target["masks"].shape == (2, 2, 16, 32)
    assert target["masks"].dtype == torch.bool
    assert target["masks"].sum((2, 3)).tolist() == [[64, 64], [64, 0]]
    assert target["has_mask"].all()


def test_input_stays_unchanged() -> None:
    frames = [_frame([7, -1]), _frame([7, 5])]
    before = [(f.gt_classes.clone(), f.gt_ids.clone(), f.gt_boxes.tensor.clone()) for f in frames]
    build_targets([{"instances": frames, "supervision": "box"}], (16, 16), CPU)
    for frame, old in zip(frames, before, strict=True):
        now = frame.gt_classes, frame.gt_ids, frame.gt_boxes.tensor
        assert all(torch.equal(*pair) for pair in zip(now, old, strict=True))


def test_clip_without_objects() -> None:
    sample = {"instances": [_frame([])], "supervision": "box"}
    (target,) = build_targets([sample], (16, 16), CPU)
    assert target["labels"].shape == (0,)
    assert target["boxes"].shape == (0, 1, 4)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"instances": [_frame([1])], "supervision": "dense"}, "supervision is one of"),
        ({"instances": [_frame([1])], "video_id": 9}, "video 9"),
        ({"instances": [_frame([1]), _frame([1, 2])], "supervision": "box"}, r"\[1, 2\] rows"),
        ({"instances": [_frame([1])], "supervision": "mask"}, "no gt_masks"),
    ],
)
def test_bad_samples_are_named(sample: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_targets([sample], (16, 16), CPU)
