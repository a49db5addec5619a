"""Mean field by colour."""

from __future__ import annotations

import torch

from maskfreevis_ext.pseudo.refine import refine


def _scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square on dark ground in three frames, and where it is."""
    truth = torch.zeros(1, 3, 20, 20, dtype=torch.bool)
    truth[..., 5:15, 6:14] = True
    lab = torch.zeros(1, 3, 3, 20, 20)
    lab[:, :, 0] = torch.where(truth, 80.0, 20.0)
    return truth, lab


def test_noise_inside_one_colour_is_smoothed() -> None:
    truth, lab = _scene()
    torch.manual_seed(0)
    noisy = torch.where(truth, 0.7, 0.3) + 0.35 * torch.randn(truth.shape)
    refined = refine(noisy.clamp(0, 1), lab)
    assert ((noisy > 0.5) != truth).float().mean() > 0.15
    assert torch.equal(refined > 0.5, truth)
    assert refined.min() >= 0
    assert refined.max() <= 1


def test_border_moves_to_the_edge_of_the_colour() -> None:
    truth, lab = _scene()
    rough = torch.full(truth.shape, 0.1)
    rough[..., 4:16, 4:16] = 0.8
    refined = refine(rough, lab)
    assert ((refined > 0.5) != truth).sum() < ((rough > 0.5) != truth).sum() / 2


def test_frames_help_each_other() -> None:
    truth, lab = _scene()
    probabilities = torch.where(truth, 0.9, 0.1)
    probabilities[:, 1] = 0.5
    unsure = refine(probabilities, lab, temporal_weight=0.0)
    assert torch.allclose(unsure[:, 1], torch.full_like(unsure[:, 1], 0.5))
    assert torch.equal(refine(probabilities, lab)[:, 1] > 0.5, truth[:, 1])


def test_no_iteration_and_one_frame_change_nothing_by_themselves() -> None:
    truth, lab = _scene()
    probabilities = torch.where(truth, 0.9, 0.1)
    torch.testing.assert_close(refine(probabilities, lab, iterations=0), probabilities)
    assert torch.equal(refine(probabilities[:, :1], lab[:, :1]) > 0.5, truth[:, :1])
