"""Features under masks, their stability, and which hypothesis is shown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.ops.hypotheses import (
    ABSENT_LOGIT,
    choose_hypothesis,
    consensus,
    pool_features,
    stability,
)


def _pool_literally(mask_logits: Tensor, mask_features: Tensor) -> Tensor:
    """Sum of p * feature over the cells, by the sum of p and one; mask (T, h, w)."""
    num_channels, num_frames, height, width = mask_features.shape
    pooled = torch.zeros(num_frames, num_channels, dtype=mask_features.dtype)
    for t in range(num_frames):
        weight = 1.0
        for y in range(height):
            for x in range(width):
                prob = 1 / (1 + (-mask_logits[t, y, x]).exp())
                pooled[t] += prob * mask_features[:, t, y, x]
                weight += prob
        pooled[t] /= weight
    return pooled


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 2)], ids=str)
def test_pool_features_equals_a_loop(lead: tuple[int, ...]) -> None:
    mask_logits = 3 * torch.randn(*lead, 2, 4, 5, dtype=torch.float64)
    features = torch.randn(6, 2, 4, 5, dtype=torch.float64)
    pooled = pool_features(mask_logits, features)
    assert pooled.shape == (*lead, 2, 6)
    assert pooled.dtype == torch.float64
    expected = [_pool_literally(mask, features) for mask in mask_logits.reshape(-1, 2, 4, 5)]
    torch.testing.assert_close(
        pooled.reshape(-1, 2, 6), torch.stack(expected), rtol=1e-12, atol=1e-12
    )


def test_pool_features_of_an_empty_mask_is_nearly_nothing() -> None:
    features = 100 * torch.ones(3, 2, 4, 5, dtype=torch.float64)
    mask_logits = torch.full((2, 4, 5), ABSENT_LOGIT, dtype=torch.float64)
    mask_logits[1] = -ABSENT_LOGIT  # 20 cells of 100 and one of 0
    pooled = pool_features(mask_logits, features)
    torch.testing.assert_close(pooled[0], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(pooled[1], torch.full((3,), 2000 / 21, dtype=torch.float64))


def test_pool_features_passes_no_gradient() -> None:
    mask_logits = torch.randn(3, 2, 4, 5, requires_grad=True)
    features = torch.randn(6, 2, 4, 5, requires_grad=True)
    assert not pool_features(mask_logits, features).requires_grad


def test_pool_features_has_the_dtype_of_the_features() -> None:
    mask_logits, features = torch.randn(3, 2, 4, 5), torch.randn(6, 2, 4, 5)
    pooled = pool_features(mask_logits.bfloat16(), features)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pool_features(mask_logits.bfloat16().float(), features))


def test_pool_features_of_no_object_is_empty() -> None:
    assert pool_features(torch.zeros(0, 4, 2, 3, 3), torch.randn(6, 2, 3, 3)).shape == (0, 4, 2, 6)


def test_stability_of_hand_made_masks() -> None:
    delta = 0.5
    sure = torch.tensor([[2.0, 1.0], [0.6, 3.0]])
    empty = torch.tensor([[-2.0, -0.6], [-9.0, -1.0]])
    half = torch.tensor([[2.0, 0.6], [0.0, -0.4]])  # 2 cells > 0.5, 4 cells > -0.5
    unsure = torch.tensor([[0.0, 0.4], [-0.4, -3.0]])  # 0 and 3
    on_both = torch.tensor([[0.5, -0.5], [1.0, -1.0]])  # strictly greater: 1 and 2
    masks = torch.stack([sure, empty, half, unsure, on_both])
    got = stability(masks, delta)
    assert got.dtype == torch.float32
    assert got.tolist() == [1.0, 1.0, 0.5, 0.0, 0.5]
    assert stability(masks.view(5, 1, 2, 2).expand(5, 3, 2, 2), delta).shape == (5, 3)
    assert stability(masks.double(), delta).tolist() == got.tolist()
    assert stability(masks[:0], delta).shape == (0,)


def test_stability_without_an_offset_is_one() -> None:
    assert stability(torch.randn(4, 2, 6, 6), 0.0).tolist() == [[1.0, 1.0]] * 4


def test_choose_hypothesis_takes_the_best_of_all_in_each_frame() -> None:
    ious = torch.tensor(
        [
            [[0.5, 0.5, 0.5], [0.5, 0.6, 0.4], [0.5, 0.6, 0.3]],  # ties: the first
            [[0.9, 0.1, 0.2], [0.8, 0.3, 0.7], [0.7, 0.4, 0.1]],
        ]
    )
    choice = choose_hypothesis(ious)
    assert choice.dtype == torch.int64
    assert choice.tolist() == [[0, 1, 0], [0, 2, 1]]


def test_choose_hypothesis_by_stability() -> None:
    # (N, M + 1, T); hypothesis 0 is the best in frames 0 and 1, the worst in frames 2 and 3
    ious = torch.tensor([[[0.9, 0.9, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8], [0.5, 0.5, 0.8, 0.7]]])
    stable = torch.tensor([[True, False, True, False]])
    assert choose_hypothesis(ious, stable).tolist() == [[0, 2, 0, 1]]
    assert choose_hypothesis(ious).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(("objects", "extra", "frames"), [(5, 3, 4), (5, 1, 1), (0, 3, 2)])
def test_choose_hypothesis_equals_a_loop(objects: int, extra: int, frames: int) -> None:
    ious = torch.rand(objects, extra + 1, frames)
    stable = torch.rand(objects, frames) > 0.5
    for given in (None, stable):
        choice = choose_hypothesis(ious, given)
        assert choice.shape == (objects, frames)
        for n in range(objects):
            for t in range(frames):
                rated = ious[n, :, t].tolist()
                expected = rated.index(max(rated))
                if given is not None:
                    expected = 0 if given[n, t] else rated.index(max(rated[1:]))
                assert choice[n, t] == expected


def test_another_mask_has_to_be_better_by_the_margin() -> None:
    ious = torch.tensor([[[0.5, 0.5, 0.5], [0.55, 0.65, 0.2]]])
    assert choose_hypothesis(ious, margin=0.1).tolist() == [[0, 1, 0]]
    assert choose_hypothesis(ious).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("extra", [1, 3])
def test_consensus_equals_a_loop(extra: int) -> None:
    logits = torch.randn(2, extra + 1, 3, 4, 5)
    found = consensus(logits)
    for n in range(2):
        for a in range(extra + 1):
            for t in range(3):
                ious = []
                for b in set(range(extra + 1)) - {a}:
                    first, second = logits[n, a, t] > 0, logits[n, b, t] > 0
                    ious.append(float((first & second).sum()) / float((first | second).sum()))
                assert found[n, a, t].item() == pytest.approx(sum(ious) / extra)


def test_consensus_of_empty_masks_is_nothing() -> None:
    assert consensus(torch.full((1, 3, 2, 4, 4), -1.0)).tolist() == [[[0, 0]] * 3]
    assert consensus(torch.zeros(0, 3, 2, 4, 4)).shape == (0, 3, 2)
