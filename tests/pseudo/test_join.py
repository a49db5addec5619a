"""Pixel head and model in one mask."""

from __future__ import annotations

import torch

from maskfreevis_ext.pseudo.join import Predicted, join_predictions


def test_mean_of_logits_where_boxes_agree_and_pixel_head_elsewhere() -> None:
    raw = torch.full((1, 3, 2, 2), 0.3)
    predicted = Predicted(torch.full((1, 3, 2, 2), 0.9), torch.tensor([[0.8, 0.4, 0.0]]))
    joined = join_predictions(raw, predicted)
    expected = ((torch.logit(torch.tensor(0.3)) + torch.logit(torch.tensor(0.9))) / 2).sigmoid()
    torch.testing.assert_close(joined[0, 0], expected.expand(2, 2))
    assert torch.equal(joined[0, 1:], raw[0, 1:])


def test_certain_values_stay_finite() -> None:
    raw = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    joined = join_predictions(raw, Predicted(1 - raw, torch.ones(1, 1)))
    torch.testing.assert_close(joined, torch.full_like(joined, 0.5))


def test_selection_keeps_objects_and_frames() -> None:
    predicted = Predicted(torch.rand(3, 4, 2, 2), torch.rand(3, 4))
    part = predicted.select([2, 0], slice(1, 3))
    assert torch.equal(part.probabilities, predicted.probabilities[[2, 0], 1:3])
    assert torch.equal(part.agreement, predicted.agreement[[2, 0], 1:3])
