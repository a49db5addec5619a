"""Targets of the spatial mask: who has ground truth, where, and what it is."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.modeling.spatial_targets import SpatialTargets, build_spatial_targets
from maskfreevis_ext.modeling.targets import build_targets
from tests.helpers.transfers import CountTransfers

SIZE = (16, 24)  # of the frames; 4 x 6 cells
STRIDE = 4
Rectangle = tuple[int, int, int, int]


def _area(rectangle: Rectangle | None, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    if rectangle is not None:
        x1, y1, x2, y2 = rectangle
        mask[y1:y2, x1:x2] = True
    return mask


def _cells(*rectangles: Rectangle) -> Tensor:
    """Cells (4, 6) of pixel rectangles whose edges are edges of cells."""
    mask = torch.zeros(4, 6, dtype=torch.bool)
    for x1, y1, x2, y2 in rectangles:
        mask[y1 // 4 : y2 // 4, x1 // 4 : x2 // 4] = True
    return mask


def _clip(
    objects: list[list[Rectangle | None]],
    supervision: str = "mask",
    size: tuple[int, int] = SIZE,
    frames: int = 2,
    **more: object,
) -> dict:
    """A clip as the mapper gives it; ``objects`` holds the rectangle of each frame."""
    instances = []
    for t in range(frames):
        frame = Instances(size)
        frame.gt_classes = torch.zeros(len(objects), dtype=torch.int64)
        ids = [-1 if places[t] is None else k for k, places in enumerate(objects)]
        frame.gt_ids = torch.tensor(ids, dtype=torch.int64)
        boxes = [places[t] or (0, 0, 0, 0) for places in objects]
        frame.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).view(-1, 4))
        if supervision == "mask":
            areas = [_area(places[t], size) for places in objects]
            masks = torch.stack(areas) if areas else torch.zeros(0, *size, dtype=torch.bool)
            frame.gt_masks = BitMasks(masks)
        instances.append(frame)
    return {
        "image": [torch.zeros(3, *size, dtype=torch.uint8) for _ in range(frames)],
        "instances": instances,
        "supervision": supervision,
        "video_id": 31,
        "frame_indices": [7 + t for t in range(frames)],
        **more,
    }


def _build(
    clips: list[dict],
    num_views: int | None = None,
    image_size: tuple[int, int] = SIZE,
    stride: int = STRIDE,
    device: torch.device | None = None,
) -> SpatialTargets:
    device = device or torch.device("cpu")
    targets = build_targets(clips, image_size, device)
    return build_spatial_targets(clips, targets, image_size, stride, num_views, device)


LEFT, RIGHT, BELOW = (0, 0, 8, 8), (12, 4, 24, 8), (8, 8, 16, 16)


def test_masks_of_the_objects_are_united() -> None:
    found = _build([_clip([[LEFT, LEFT], [RIGHT, BELOW]])])
    assert found.masks.shape == found.valid.shape == (1, 2, 4, 6)
    assert found.masks.dtype == found.valid.dtype == torch.bool
    assert torch.equal(found.masks[0, 0], _cells(LEFT, RIGHT))
    assert torch.equal(found.masks[0, 1], _cells(LEFT, BELOW))
    assert found.valid.all()
    assert not found.weak.box_frames.any()


def test_overlap_counts_once() -> None:
    found = _build([_clip([[LEFT, LEFT], [(4, 4, 12, 12), LEFT]])])
    assert torch.equal(found.masks[0, 0], _cells(LEFT, (4, 4, 12, 12)))


def test_frame_without_objects_is_all_background_and_valid() -> None:
    found = _build([_clip([[None, LEFT]])])
    assert not found.masks[0, 0].any()
    assert found.masks[0, 1].any()
    assert found.valid.all()


def test_clip_with_masks_but_without_objects_is_all_background_and_valid() -> None:
    found = _build([_clip([])])
    assert not found.masks.any()
    assert found.valid.all()


def test_cell_is_on_from_half_of_its_pixels() -> None:
    found = _build([_clip([[(0, 0, 4, 2), (0, 0, 3, 2)]])])
    assert torch.equal(found.masks[0, 0], _cells((0, 0, 4, 4)))
    assert not found.masks[0, 1].any()


def test_stride_1_gives_the_pixels() -> None:
    clip = _clip([[(3, 1, 10, 6), (5, 5, 6, 7)]])
    found = _build([clip], stride=1)
    for t in range(2):
        assert torch.equal(found.masks[0, t], clip["instances"][t].gt_masks.tensor[0])


@pytest.mark.parametrize("kind", ["mask", "motion", "box"])
def test_padding_is_invalid(kind: str) -> None:
    small = (10, 19)  # 2 x 4 whole cells
    more = {"motion_masks": [_area((0, 0, 8, 8), small)] * 2} if kind == "motion" else {}
    clips = [
        _clip([[LEFT, LEFT]], "mask" if kind == "mask" else "box", small, **more),
        _clip([[LEFT, LEFT]]),
    ]
    found = _build(clips)
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[:2, :4] = True
    for t in range(2):
        assert torch.equal(found.weak.valid[0, t], inside)
        if kind == "box":
            assert not found.valid[0, t].any()
            assert not found.masks[0, t].any()
        else:
            assert torch.equal(found.valid[0, t], inside)
            assert torch.equal(found.masks[0, t], _cells(LEFT))
    assert found.valid[1].all()
    assert found.weak.valid[1].all()


def test_clip_with_boxes_only_has_no_ground_truth() -> None:
    found = _build([_clip([[LEFT, RIGHT]], "box"), _clip([[LEFT, RIGHT]])])
    assert not found.valid[0].any()
    assert not found.masks[0].any()  # no rectangle is taught as a mask
    assert found.valid[1].all()
    assert found.weak.box_frames.tolist() == [[True, True], [False, False]]


def test_boxes_are_in_cells_and_stand_frame_by_frame() -> None:
    clips = [
        _clip([[(2, 6, 14, 10), RIGHT], [None, LEFT]], "box"),
        _clip([[BELOW, None]], "box"),
        _clip([], "box"),
    ]
    found = _build(clips)
    expected = [
        [[0.5, 1.5, 3.5, 2.5], [0, 0, 0, 0]],
        [[3, 1, 6, 2], [0, 0, 2, 2]],
        [[2, 2, 4, 4]],
        [[0, 0, 0, 0]],
        [],
        [],
    ]
    assert len(found.weak.boxes) == 6
    for boxes, wanted in zip(found.weak.boxes, expected, strict=True):
        assert boxes.shape == (len(wanted), 4)
        assert boxes.tolist() == wanted
    assert found.weak.box_frames.all()


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_motion_masks_come_first(supervision: str) -> None:
    clip = _clip([[LEFT, LEFT]], supervision, motion_masks=[_area(BELOW), _area(None)])
    found = _build([clip])
    assert torch.equal(found.masks[0, 0], _cells(BELOW))
    assert not found.masks[0, 1].any()
    assert found.valid.all()
    assert not found.weak.box_frames.any()


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_frame_without_a_motion_mask_is_invalid(supervision: str) -> None:
    found = _build([_clip([[LEFT, LEFT]], supervision, motion_masks=[None, _area(BELOW)])])
    assert not found.valid[0, 0].any()
    assert not found.masks[0, 0].any()
    assert found.valid[0, 1].all()
    assert not found.weak.box_frames.any()


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_clip_without_any_motion_mask_uses_what_it_has(supervision: str) -> None:
    plain = _clip([[LEFT, RIGHT]], supervision)
    expected, found = _build([plain]), _build([{**plain, "motion_masks": None}])
    assert torch.equal(found.masks, expected.masks)
    assert torch.equal(found.valid, expected.valid)
    assert torch.equal(found.weak.box_frames, expected.weak.box_frames)
    assert found.valid.all() == (supervision == "mask")


@pytest.mark.parametrize("size", [(16, 20), (24, 16), (8, 24), (32, 48)])
def test_motion_mask_of_another_size_raises(size: tuple[int, int]) -> None:
    clip = _clip([[LEFT, LEFT]], motion_masks=[_area(LEFT), _area(LEFT, size)])
    with pytest.raises(DataError) as raised:
        _build([clip])
    for part in ("video 31", "frame [8]", str(size), str(SIZE)):
        assert part in str(raised.value)


def test_views_have_their_own_axis() -> None:
    # frames 0..5: time first, then views
    corners = [(4 * k, 0, 4 * k + 4, 4) for k in range(6)]
    masks = _clip([corners], frames=6)
    boxes = _clip([corners], "box", frames=6)
    found = _build([masks, boxes], num_views=2)
    assert found.masks.shape == found.valid.shape == found.weak.valid.shape == (2, 3, 2, 4, 6)
    assert found.weak.box_frames.shape == (2, 3, 2)
    for t in range(3):
        for v in range(2):
            assert torch.equal(found.masks[0, t, v], _cells(corners[2 * t + v]))
            assert found.weak.boxes[6 + 2 * t + v].tolist() == [
                [value / 4 for value in corners[2 * t + v]]
            ]
    assert found.valid[0].all()
    assert not found.valid[1].any()
    assert found.weak.box_frames[1].all()
    assert not found.weak.box_frames[0].any()


def test_one_view_has_an_axis_too() -> None:
    assert _build([_clip([[LEFT, LEFT]])], num_views=1).masks.shape == (1, 2, 1, 4, 6)


def test_missing_motion_masks_of_single_views() -> None:
    masks = [_area(LEFT), None, None, _area(RIGHT)]
    found = _build([_clip([], "box", frames=4, motion_masks=masks)], num_views=2)
    assert found.valid.all(-1).all(-1).tolist() == [[[True, False], [False, True]]]


def test_input_is_not_changed() -> None:
    motion = _area(LEFT)
    clip = _clip([[LEFT, LEFT]], motion_masks=[motion, None])
    _build([clip])
    assert clip["motion_masks"][0] is motion
    assert torch.equal(motion, _area(LEFT))
    assert clip["instances"][0].gt_boxes.tensor.tolist() == [[0, 0, 8, 8]]


def test_pixels_that_are_not_the_videos_are_not_valid() -> None:
    area = ~_area(LEFT)
    found = _build([_clip([[RIGHT, RIGHT]], valid_area=area)])
    assert torch.equal(found.valid[0, 0], ~_cells(LEFT))
    assert torch.equal(found.weak.valid[0, 1], ~_cells(LEFT))
    assert torch.equal(found.masks[0, 0], _cells(RIGHT))


def test_batch_reaches_the_device_without_waiting() -> None:
    clips = [
        _clip([[LEFT, LEFT]], valid_area=~_area(LEFT)),
        _clip([[LEFT, RIGHT]], motion_masks=[_area(LEFT), None]),
        _clip([[LEFT, RIGHT]], "box"),
    ]
    expected = _build(clips, image_size=(32, 48))
    with CountTransfers(torch.device("meta")) as transfers:
        found = _build(clips, image_size=(32, 48), device=torch.device("meta"))
    # targets of the objects, targets of the spatial mask, sizes of the frames
    assert transfers.count == 3
    assert found.masks.shape == expected.masks.shape
    assert found.valid.shape == expected.valid.shape
    assert found.weak.box_frames.shape == expected.weak.box_frames.shape
    assert [x.shape for x in found.weak.boxes] == [x.shape for x in expected.weak.boxes]
