"""The pixel head on a clip whose masks are known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.pseudo import PixelHeadSettings, fit_pixel_head, segment_clip
from maskfreevis_ext.pseudo.clip import Clip
from maskfreevis_ext.pseudo.features import (
    Scale,
    _fit_basis,
    _project,
    extract_features,
    motion_windows,
)
from maskfreevis_ext.pseudo.pixel_head import Evidence, PixelNetworks, box_losses
from maskfreevis_ext.pseudo.windows import place_windows
from tests.pseudo.clips import NUM_FRAMES, Colours, disc_clip

FAST = PixelHeadSettings(
    grid=24, components=(2, 4), width=16, steps=60, warmup_steps=20, hard_cells=20, num_networks=2
)


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def test_disc_of_two_colours_is_found_from_its_boxes() -> None:
    frames, boxes, masks = disc_clip()
    result = segment_clip(frames, boxes, Colours(), FAST)
    assert result.raw.shape == result.refined.shape == (1, NUM_FRAMES, 24, 24)
    found = np.stack([result.mask(0, t) for t in range(NUM_FRAMES)])
    filled = masks.sum() / (3 * 29**2)  # IoU of the box
    assert _iou(found, masks[0]) > filled + 0.08
    assert not found[-1].any()  # absent there
    assert 0.5 < result.confidence(0) <= 1


def test_equal_seeds_give_equal_masks() -> None:
    frames, boxes, _ = disc_clip()
    settings = replace(FAST, steps=5)
    first, second = (segment_clip(frames, boxes, Colours(), settings) for _ in range(2))
    assert torch.equal(first.refined, second.refined)
    other = segment_clip(frames, boxes, Colours(), replace(settings, seed=1))
    assert not torch.equal(first.refined, other.refined)


def test_objects_of_a_clip_have_networks_of_their_own() -> None:
    values = torch.randn(2, 1, 5, 4, 4).half()
    networks = PixelNetworks(values, 0, replace(FAST, num_networks=3), torch.Generator())
    logits = networks(values)
    assert logits.shape == (3, 2, 1, 4, 4)
    logits[:, 0].sum().backward()
    first = networks.parameters[0]
    assert first.grad[0].abs().sum() > 0
    assert first.grad[1].abs().sum() == 0


def test_network_is_that_of_its_layers() -> None:
    values = torch.randn(1, 2, 5, 3, 3).half()
    networks = PixelNetworks(values, 2, FAST, torch.Generator())
    w1, b1, w2, b2, w3, b3 = networks.parameters
    width = FAST.width
    for m in range(FAST.num_networks):
        part = slice(m * width, (m + 1) * width)
        x = values[0].float().permute(0, 2, 3, 1)
        if m == 1:  # does not see the coarsest map
            x[..., :2] = 0
        x = F.relu(x @ w1[0, part].T + b1[0, part, 0])
        x = F.relu(x @ w2[m].T + b2[m, :, 0])
        expected = (x @ w3[m].T + b3[m, :, 0])[..., 0]
        torch.testing.assert_close(networks(values)[m, 0], expected)


def _evidence() -> tuple[Evidence, torch.Tensor]:
    boxes = np.array([[[20, 16, 44, 40], [20, 16, 44, 40]]])
    windows = place_windows(boxes, (64, 64), 20, 1.6)
    evidence = Evidence(
        windows.profiles(),
        windows.inside_frame(),
        torch.zeros(1, 2, 3, 20, 20),
        torch.zeros(1, 2, 20, 20),
    )
    return evidence, evidence.inside


def _loss(logits: torch.Tensor, **changes: float) -> torch.Tensor:
    return box_losses(logits[None], _evidence()[0], replace(FAST, **changes), 1.0, torch.zeros(1))


def test_mask_outside_the_box_costs() -> None:
    _, inside = _evidence()
    good = 12 * inside - 6
    bad = torch.full_like(good, 6.0)
    assert _loss(good).shape == (1, 1, 2)
    assert (_loss(bad) > _loss(good) + 3).all()


def test_background_in_boxes_of_others_costs_less() -> None:
    evidence, inside = _evidence()
    logits = torch.full_like(inside, 2.0)[None]
    outside = inside <= 0.01
    settings = replace(FAST, other_weight=0.25, hard_weight=0.0)
    covered = replace(evidence, others=outside.float())
    free, less = (
        box_losses(logits, seen, settings, 0.0, torch.zeros(1)) for seen in (evidence, covered)
    )
    background = F.softplus(torch.tensor(2.0))
    torch.testing.assert_close(free - less, torch.zeros_like(free))  # a mean over what counts
    half = replace(evidence, others=(outside & (torch.arange(20) < 10)).float())
    mixed = logits.where(torch.arange(20) < 10, torch.tensor(-9.0))
    plain, weighted = (
        box_losses(mixed, seen, settings, 0.0, torch.zeros(1)) for seen in (evidence, half)
    )
    cells = outside[0, 0].float()
    left, right = cells[:, :10].sum(), cells[:, 10:].sum()
    expected = background * (left / (left + right) - 0.25 * left / (0.25 * left + right))
    torch.testing.assert_close((plain - weighted)[0, 0, 0], expected, atol=1e-3, rtol=0)


def test_principal_components_of_the_coarsest_map_come_first() -> None:
    fine, coarse = torch.randn(6, 5, 16, 16), torch.randn(6, 7, 8, 8)
    basis = _fit_basis([fine, coarse], [], (2, 3))
    assert basis.num_coarse == 2
    assert basis.projection.shape == (12, 5)
    assert (basis.projection[:5, :2] == 0).all()
    assert (basis.projection[5:, 2:] == 0).all()
    torch.testing.assert_close(basis.projection.T @ basis.projection, torch.eye(5))


def test_hollow_and_full_boxes_cost_by_the_area_range() -> None:
    _, inside = _evidence()
    full = 12 * inside - 6
    rows = torch.arange(20)[:, None] % 4 == 0
    thin = torch.where(rows, full, torch.full_like(full, -6.0))
    for logits in (full, thin):
        free = _loss(logits, area_weight=0.0)
        assert (_loss(logits, area_weight=4.0) > free + 0.4).all()
    half = torch.where(torch.arange(20)[:, None] % 5 < 3, full, torch.full_like(full, -6.0))
    difference = _loss(half, area_weight=4.0) - _loss(half, area_weight=0.0)
    torch.testing.assert_close(difference, torch.zeros_like(difference), atol=1e-5, rtol=0)


def test_networks_have_areas_of_their_own() -> None:
    evidence, inside = _evidence()
    share = 0.45  # between the least areas of the two networks
    logits = torch.where(inside > 0, torch.logit(torch.tensor(share)), torch.tensor(-9.0))
    settings = replace(FAST, least_area=(0.4, 0.5), area_weight=1.0)
    both = torch.stack([logits, logits])
    first, second = box_losses(both, evidence, settings, 0.0, torch.zeros(1))
    torch.testing.assert_close(second - first, torch.full_like(first, 0.05), atol=1e-3, rtol=0)


def test_filled_box_is_asked_for_by_weight() -> None:
    evidence, inside = _evidence()
    logits = (inside > 0).float()[None]  # 1 inside, 0 outside
    none, some = (
        box_losses(logits, evidence, FAST, 0.0, torch.tensor([weight])) for weight in (0.0, 0.5)
    )
    expected = 0.5 * F.softplus(torch.tensor(-1.0))
    torch.testing.assert_close(some - none, expected.expand_as(none), atol=1e-4, rtol=0)


def test_neighbours_of_other_colour_may_differ() -> None:
    evidence, inside = _evidence()
    half = (12 * inside - 6) * torch.where(torch.arange(20)[:, None] < 9, 1.0, -1.0)
    striped = evidence.lab.clone()
    striped[..., :9, :] = 50.0
    same, other = (
        box_losses(
            half[None],
            replace(evidence, lab=lab),
            FAST,
            1.0,
            torch.zeros(1),
        )
        for lab in (evidence.lab, striped)
    )
    assert (other < same).all()


def test_principal_maps_of_one_map_keep_distances() -> None:
    maps = torch.randn(6, 3, 16, 16)
    standard = Scale.of(maps)(maps)
    kept = _project([standard], _fit_basis([maps], [], (2, 3)).projection)
    torch.testing.assert_close(kept.square().sum(1), standard.square().sum(1))


def test_features_have_motion_only_where_asked() -> None:
    frames, boxes, _ = disc_clip()
    windows = place_windows(boxes, frames[0].shape[:2], 16, 1.6)
    for use_motion, channels in ((True, 2 + 3 + 3 + 6), (False, 2 + 3 + 3)):
        motion = motion_windows(frames, windows) if use_motion else None
        features = extract_features(frames, windows, Colours(), (2, 4), motion)
        assert features.values.shape == (1, NUM_FRAMES, channels, 16, 16)
        assert features.values.isfinite().all()
        assert features.lab.shape == (1, NUM_FRAMES, 3, 16, 16)


def test_object_without_any_box_is_told() -> None:
    frames, boxes, _ = disc_clip()
    windows = place_windows(np.zeros_like(boxes), frames[0].shape[:2], 16, 1.6)
    features = extract_features(frames, windows, Colours(), (2, 4))
    with pytest.raises(ValueError, match="at least one frame"):
        fit_pixel_head(features, windows, FAST, torch.zeros(1, NUM_FRAMES, 16, 16))


def test_wrong_number_or_size_of_frames_is_told() -> None:
    frames, boxes, _ = disc_clip()
    with pytest.raises(DataError, match=r"4 frames of one size, got 3"):
        segment_clip(frames[:3], boxes, Colours(), FAST)
    frames[1] = frames[1][:40]
    with pytest.raises(DataError, match=r"\(40, 96\), \(64, 96\)"):
        segment_clip(frames, boxes, Colours(), FAST)


def test_features_of_further_frames_are_made_alike() -> None:
    frames, boxes, _ = disc_clip()
    windows = place_windows(boxes, frames[0].shape[:2], 16, 1.6)
    motion = motion_windows(frames, windows)
    whole = extract_features(frames, windows, Colours(), (2, 4), motion)
    part = replace(windows, boxes=boxes[:, 1:2], places=windows.places[:, 1:2])
    again = extract_features(frames[1:2], part, Colours(), (2, 4), motion[:, 1:2], whole.bases)
    torch.testing.assert_close(again.values, whole.values[:, 1:2])


def test_fit_goes_on_from_other_frames() -> None:
    frames, boxes, masks = disc_clip()
    first = Clip(frames[:2], boxes[:, :2], FAST)
    _, _, head = first.fit([0], Colours())
    later = Clip(frames[2:3], boxes[:, 2:3], FAST)
    raw, refined, _ = later.fit([0], Colours(), head, steps=0)
    found = later.masks([0], raw, refined).mask(0, 0)
    assert _iou(found, masks[0, 2]) > masks[0, 2].sum() / 29**2 + 0.05


def test_motion_of_large_frames_is_about_that_of_small_ones(monkeypatch) -> None:
    frames, boxes, _ = disc_clip()
    windows = place_windows(boxes, frames[0].shape[:2], 16, 1.6)
    small = motion_windows(frames, windows)
    large = [cv2.resize(frame, None, fx=2, fy=2) for frame in frames]
    monkeypatch.setattr("maskfreevis_ext.pseudo.features._LONGEST_SIDE", 96)
    doubled = place_windows(2 * boxes, large[0].shape[:2], 16, 1.6)
    doubled = replace(doubled, places=2 * windows.places)
    reduced = motion_windows(large, doubled)
    assert np.abs(small - reduced).mean() < 0.25 * np.abs(small).mean()
