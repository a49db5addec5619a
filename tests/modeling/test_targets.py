"""Targets from what the mappers return."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.modeling.targets import build_targets, pad_masks
from tests.helpers.transfers import CountTransfers

CPU, META = torch.device("cpu"), torch.device("meta")


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
    assert target["boxes"].shape == (2, 2, 4)
    assert (target["boxes"][1, 0] == 0).all()
    assert (target["boxes"][1, 1] > 0).any()
    assert "masks" not in target


def test_mask_targets_are_padded_and_zero_where_absent() -> None:
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    frames = [_frame([7, 5], masks), _frame([7, -1], masks)]
    (target,) = build_targets([{"instances": frames, "supervision": "mask"}], (16, 32), CPU)
    assert target["masks"].shape == (2, 2, 16, 32)
    assert target["masks"].dtype == torch.bool
    assert target["masks"].sum((2, 3)).tolist() == [[64, 64], [64, 0]]


def test_teacher_targets_are_padded_and_0_where_absent() -> None:
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    frames = [_frame([7, 5], masks), _frame([7, -1], masks)]
    for frame in frames:
        frame.gt_confidence = torch.tensor([0.25, 0.5])
    (target,) = build_targets([{"instances": frames, "supervision": "teacher"}], (16, 32), CPU)
    assert "masks" not in target  # for all others it is a clip with boxes
    assert target["teacher_masks"].shape == (2, 2, 16, 32)
    assert target["teacher_masks"].sum((2, 3)).tolist() == [[64, 64], [64, 0]]
    assert target["teacher_confidence"].tolist() == [[0.25, 0.25], [0.5, 0]]


def test_teacher_without_masks_is_named() -> None:
    sample = {"instances": [_frame([7, 5])], "supervision": "teacher", "video_id": 3}
    with pytest.raises(DataError, match=r"video 3.*no teacher_masks and teacher_confidence"):
        build_targets([sample], (16, 16), CPU)


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
        ({"instances": [_frame([1])], "supervision": "dense"}, "supervision must be one of"),
        ({"instances": [_frame([1])], "video_id": 9}, "video 9"),
        ({"instances": [_frame([1]), _frame([1, 2])], "supervision": "box"}, r"\[1, 2\] rows"),
        ({"instances": [_frame([1])], "supervision": "mask"}, "sample has no masks"),
        (
            {
                "tracks": {
                    "labels": torch.zeros(0),
                    "ids": torch.zeros(0, 1),
                    "boxes": torch.zeros(0),
                }
            }
            | {"supervision": "mask"},
            "sample has no masks",
        ),
        ({"image": [], "supervision": "box"}, r"needs 'tracks' or 'instances', got .*image"),
    ],
)
def test_bad_samples_are_named(sample: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_targets([sample], (16, 16), CPU)


def _batch() -> list[dict]:
    """Four clips: masks and boxes, several sizes, an object of no frame, no object at all."""
    masks = torch.rand(2, 8, 8) > 0.5
    return [
        {"instances": [_frame([7, 5], masks), _frame([7, -1], masks)], "supervision": "mask"},
        {"instances": [_frame([7, -1, -1]), _frame([7, -1, 2**53])], "supervision": "box"},
        {"instances": [_frame([]), _frame([])], "supervision": "box"},
        {"instances": [_frame([3], masks[:1]), _frame([-1], masks[:1])], "supervision": "mask"},
    ]


def _with_tracks(sample: dict) -> dict:
    """The sample with its objects as arrays of whole tracks only."""
    (target,) = build_targets([sample], (8, 8), CPU)
    return {"tracks": target, "supervision": sample["supervision"]}


def test_both_forms_of_the_objects_give_the_same_targets() -> None:
    batch = _batch()
    expected = build_targets(batch, (16, 12), CPU)
    found = build_targets([_with_tracks(sample) for sample in batch], (16, 12), CPU)
    for target, other in zip(found, expected, strict=True):
        assert target.keys() == other.keys()
        for key, value in target.items():
            assert value.dtype == other[key].dtype
            assert torch.equal(value, other[key])
    assert [target.keys() - {"masks"} for target in expected] == [{"labels", "boxes"}] * 4


@pytest.mark.parametrize("form", ["tracks", "instances"])
def test_batch_reaches_the_device_in_one_copy_and_without_waiting(form: str) -> None:
    batch = _batch()
    if form == "tracks":
        batch = [_with_tracks(sample) for sample in batch]
    expected = build_targets(batch, (16, 12), CPU)
    with CountTransfers(META) as transfers:
        targets = build_targets(batch, (16, 12), META)
    assert transfers.count == 1
    for target, other in zip(targets, expected, strict=True):
        assert {k: (x.shape, x.dtype) for k, x in target.items()} == {
            k: (x.shape, x.dtype) for k, x in other.items()
        }
        assert all(x.device == META for x in target.values())


def test_tracks_stay_unchanged_and_are_not_shared() -> None:
    sample = _with_tracks(_batch()[0])
    before = {key: value.clone() for key, value in sample["tracks"].items()}
    (target,) = build_targets([sample], (8, 8), CPU)
    for value in target.values():
        value.zero_()
    assert all(torch.equal(sample["tracks"][key], value) for key, value in before.items())


def test_masks_are_padded_at_the_right_and_at_the_bottom() -> None:
    masks = torch.ones(2, 3, 4, 5, dtype=torch.bool)
    assert pad_masks(masks, (4, 5)) is masks
    padded = pad_masks(masks, (6, 7))
    assert padded.shape == (2, 3, 6, 7)
    assert bool(padded[..., :4, :5].all())
    assert int(padded.sum()) == masks.numel()
