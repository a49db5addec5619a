"""The matcher against the reference's costs and assignments, and its failure paths."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.literal.matching import sampled_box_dice
from maskfreevis_ext.errors import NumericError
from maskfreevis_ext.modeling.matcher import (
    VideoHungarianMatcher,
    _predicted_boxes,
    mask_costs,
    teacher_costs,
)
from maskfreevis_ext.ops.boxes import masks_to_boxes
from tests.helpers.golden import CriterionCase


def _matcher(**kwargs: object) -> VideoHungarianMatcher:
    settings = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "num_points": 2000}
    return VideoHungarianMatcher(**{**settings, **kwargs})


@pytest.mark.parametrize("name", ["crit_coco_s0"])
def test_mask_cost_equals_the_reference(name: str) -> None:
    case = CriterionCase(name)
    points = torch.from_numpy(case.golden["matcher_points"])
    for layer in range(case.num_layers):
        for clip, target in enumerate(case.targets):
            probs = case.logits[layer, clip].detach().softmax(-1)
            cost = mask_costs(
                [case.masks[layer, clip].detach()], target["masks"], points[layer, clip], 5.0, 5.0
            )[0]
            expected = torch.from_numpy(case.golden[f"cost_l{layer}_b{clip}"])
            cost = cost - 2 * probs[:, target["labels"]]
            torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


def test_teacher_decides_between_masks_of_equal_boxes() -> None:
    """Query 0 is a full square, query 1 a cross in it; the teacher says cross in frame 0."""
    square = torch.zeros(8, 8)
    square[2:6, 2:6] = 1
    cross = square * 0
    cross[2:6, 3] = cross[4, 2:6] = 1
    logits = (torch.stack([square, cross]) * 2 - 1)[None, :, None].expand(1, 2, 2, 8, 8) * 20
    layers = [{"pred_logits": torch.zeros(1, 2, 4), "pred_masks": logits}]
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[[8.0, 8, 24, 24]] * 2])}
    teacher = torch.stack([cross, square])[None].repeat_interleave(4, -1).repeat_interleave(4, -2)
    target["teacher_masks"] = teacher
    for weight, confidence, query in ((0.0, 1.0, 0), (1.0, 1.0, 1), (1.0, 0.0, 0)):
        target["teacher_confidence"] = torch.tensor([[confidence, 0.0]])
        matches = _matcher(teacher_weight=weight)(layers, [target], (32, 32))
        assert matches[0][0][0].tolist() == [query]


def test_teacher_cost_by_hand_over_its_own_frames() -> None:
    logits = torch.full((1, 2, 1, 2), 99.0)  # one query, two frames, two cells: all on
    masks = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    cost = teacher_costs([logits], masks, torch.tensor([[0.5, 0.0]]))
    assert cost.tolist() == [[[pytest.approx(1 - (2 * 0.5 + 1) / (1 + 0.5 + 1))]]]
    nothing = teacher_costs([logits], masks, torch.zeros(1, 2))
    assert nothing.tolist() == [[[0]]]


@pytest.mark.parametrize("name", ["crit_main_s0", "crit_t5_s0", "crit_main_s5_pad"])
def test_literal_box_cost_equals_the_reference(name: str) -> None:
    """Ties the literal estimate, to which the closed form is compared, to the reference."""
    case = CriterionCase(name)
    points = torch.from_numpy(case.golden["matcher_points"])
    size = tuple(case.frames.shape[-2:])
    for layer in range(case.num_layers):
        for clip, target in enumerate(case.targets):
            pred = masks_to_boxes(case.masks[layer, clip].detach() > 0)
            dice = sampled_box_dice(pred, target["boxes"], size, 4, points[layer, clip])
            probs = case.logits[layer, clip].detach().softmax(-1)
            cost = 5 * dice - 2 * probs[:, target["labels"]]
            expected = torch.from_numpy(case.golden[f"cost_l{layer}_b{clip}"])
            torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


def _random_batch(
    sizes: list[int], masks: bool = False, num_queries: int = 6
) -> tuple[list[dict], list[dict]]:
    layers = [
        {
            "pred_logits": torch.randn(len(sizes), num_queries, 4),
            "pred_masks": torch.randn(len(sizes), num_queries, 2, 8, 8) * 3 - 5,
        }
        for _ in range(3)
    ]
    targets = []
    for size in sizes:
        filled = torch.zeros(size, 2, 32, 32, dtype=torch.bool)
        for n in range(size):
            filled[n, :, 4 * n : 4 * n + 9, 3 * n : 3 * n + 12] = True
        target = {
            "labels": torch.randint(0, 3, (size,)),
            "boxes": masks_to_boxes(filled),
        }
        if masks:
            target["masks"] = filled
        targets.append(target)
    return layers, targets


@pytest.mark.parametrize("masks", [False, True])
def test_assignment_is_one_to_one_and_batches_are_independent(masks: bool) -> None:
    layers, targets = _random_batch([3, 0, 2], masks)
    matcher = _matcher()
    torch.manual_seed(1)
    together = matcher(layers, targets, (32, 32))
    for of_layer in together:
        for (queries, objects), target in zip(of_layer, targets, strict=True):
            assert len(queries.unique()) == len(queries) == len(target["labels"])
            assert objects.sort().values.tolist() == list(range(len(target["labels"])))
    if masks:
        return  # the points are drawn anew
    for clip in range(3):
        alone = matcher(
            [{key: value[clip : clip + 1] for key, value in layer.items()} for layer in layers],
            targets[clip : clip + 1],
            (32, 32),
        )
        for of_layer, of_batch in zip(alone, together, strict=True):
            assert all(torch.equal(*pair) for pair in zip(of_layer[0], of_batch[clip], strict=True))


def test_assignment_has_the_least_cost() -> None:
    layers, targets = _random_batch([3], num_queries=4)
    matcher = _matcher()
    boxes = _predicted_boxes(layers, [0])[0]
    cost = matcher._costs(layers, targets[0], 0, boxes, (32, 32))
    for of_layer, (queries, objects) in zip(
        cost, (match[0] for match in matcher(layers, targets, (32, 32))), strict=True
    ):
        best = min(
            sum(of_layer[q, n] for n, q in enumerate(choice))
            for choice in itertools.permutations(range(4), 3)
        )
        torch.testing.assert_close(of_layer[queries, objects].sum(), best)


def test_permuted_objects_get_the_same_queries() -> None:
    layers, targets = _random_batch([4])
    order = torch.tensor([2, 0, 3, 1])
    permuted = [{key: value[order] for key, value in targets[0].items()}]
    matcher = _matcher()
    for first, second in zip(
        matcher(layers, targets, (32, 32)), matcher(layers, permuted, (32, 32)), strict=True
    ):
        by_object = dict(zip(first[0][1].tolist(), first[0][0].tolist(), strict=True))
        for query, position in zip(*second[0], strict=True):
            assert by_object[int(order[position])] == int(query)


def test_more_objects_than_queries_leaves_some_unmatched() -> None:
    layers, targets = _random_batch([5], num_queries=2)
    queries, objects = _matcher()(layers, targets, (32, 32))[0][0]
    assert sorted(queries.tolist()) == [0, 1]
    assert len(objects.unique()) == 2


def test_no_objects_at_all() -> None:
    layers, targets = _random_batch([0, 0])
    for of_layer in _matcher()(layers, targets, (32, 32)):
        assert [len(queries) for queries, _ in of_layer] == [0, 0]


def test_nan_in_an_auxiliary_output_is_named() -> None:
    layers, targets = _random_batch([2, 1])
    layers[2]["pred_logits"][1, 3] = float("nan")
    with pytest.raises(NumericError, match=r"aux_outputs\[1\], clip 1 .* pred_logits"):
        _matcher()(layers, targets, (32, 32))


def test_nan_is_replaced_and_counted_on_request() -> None:
    layers, targets = _random_batch([2])
    layers[0]["pred_logits"][0, 3] = float("nan")
    matcher = _matcher(nonfinite_cost="replace")
    queries, _ = matcher(layers, targets, (32, 32))[0][0]
    assert 3 not in queries.tolist()
    assert matcher.num_replaced == 2
