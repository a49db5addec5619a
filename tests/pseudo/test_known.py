"""Known masks of some frames: labels there, and help for the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from maskfreevis_ext.pseudo import segment_clip
from maskfreevis_ext.pseudo.known import KnownMasks
from maskfreevis_ext.pseudo.windows import place_windows
from tests.pseudo.clips import NUM_FRAMES, Colours, carried_clip, disc_clip
from tests.pseudo.test_pixel_head import FAST


def _iou_of_others(known: dict[tuple[int, int], np.ndarray]) -> float:
    frames, boxes, masks = carried_clip()
    result = segment_clip(frames, boxes, Colours(), FAST, known)
    found = np.stack([result.mask(0, t) for t in (0, 2, 3)])
    truth = masks[0, [0, 2, 3]]
    return (found & truth).sum() / (found | truth).sum()


def test_one_corrected_frame_improves_the_others() -> None:
    masks = carried_clip()[2]
    without, with_one = _iou_of_others({}), _iou_of_others({(0, 1): masks[0, 1]})
    assert without < 0.7
    assert with_one > 0.9


def test_objects_without_a_known_mask_are_fitted_as_before() -> None:
    frames, boxes, masks = disc_clip()
    both = np.concatenate([boxes, boxes])
    settings = replace(FAST, steps=5)
    known = {(0, 1): masks[0, 1]}
    one = segment_clip(frames, both, Colours(), settings, known)
    alone = segment_clip(frames, both[1:], Colours(), settings)
    assert torch.equal(one.raw[1], alone.raw[0])
    assert not torch.equal(one.raw[0], one.raw[1])


def test_known_mask_is_that_of_the_frame() -> None:
    frames, boxes, masks = disc_clip()
    windows = place_windows(boxes, frames[0].shape[:2], 24, 1.6)
    known = KnownMasks.of({(0, 2): masks[0, 2]}, windows)
    assert known.is_known.tolist() == [[t == 2 for t in range(NUM_FRAMES)]]
    back = windows.to_frame(known.labels[0, 2].numpy(), 0, 2) > 0.5
    assert (back & masks[0, 2]).sum() / (back | masks[0, 2]).sum() > 0.9
    assert KnownMasks.of({}, windows) is None
    assert known.select([0], slice(0, 2)) is None


def test_each_step_sees_a_known_frame() -> None:
    known = KnownMasks(torch.zeros(2, 5, 4, 4), torch.zeros(2, 5, dtype=torch.bool))
    known.is_known[1, [2, 4]] = True
    seen = []
    for step in range(4):
        draws = [torch.tensor([0, 1]), torch.tensor([0, 1])]
        known.put_into(draws, step)
        assert draws[0].tolist() == [0, 1]
        seen.append(int(draws[1][0]))
    assert seen == [2, 4, 2, 4]


def test_loss_of_a_known_frame_is_least_for_its_mask() -> None:
    labels = torch.zeros(1, 2, 8, 8)
    labels[0, 1, 2:6, 2:6] = 1
    known = KnownMasks(labels, torch.tensor([[False, True]]))
    chosen = torch.tensor([[0]]), torch.tensor([[0, 1]])
    logits = (20 * labels - 10)[None]
    boxes = torch.full((1, 1, 2), 7.0)
    right = known.losses(boxes, logits, chosen)
    wrong = known.losses(boxes, -logits, chosen)
    assert right[0, 0, 0] == wrong[0, 0, 0] == 7
    assert right[0, 0, 1] < 0.1 < 5 < wrong[0, 0, 1]
