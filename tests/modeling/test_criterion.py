"""Properties of the criterion: any B and T, mixed supervision, absent and missing objects."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from maskfreevis_ext.losses.affinities import AffinitySettings
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from maskfreevis_ext.ops.boxes import masks_to_boxes
from tests.helpers.criteria import LOSS_NAMES, make_criterion

SIZE = (32, 40)


def _target(num_objects: int, num_frames: int, masks: bool) -> dict[str, torch.Tensor]:
    filled = torch.zeros(num_objects, num_frames, *SIZE, dtype=torch.bool)
    for n in range(num_objects):
        for t in range(num_frames):
            filled[n, t, 3 * n + t : 3 * n + t + 12, 5 * n : 5 * n + 15 + t] = True
    target = {
        "labels": torch.arange(num_objects) % 3,
        "ids": torch.arange(num_objects)[:, None].expand(-1, num_frames),
        "boxes": masks_to_boxes(filled),
    }
    if masks:
        target["masks"] = filled
    return target


def _outputs(num_clips: int, num_frames: int, num_aux: int = 1, queries: int = 5) -> dict:
    def layer() -> dict[str, torch.Tensor]:
        return {
            "pred_logits": torch.randn(num_clips, queries, 4, requires_grad=True),
            "pred_masks": torch.randn(
                num_clips, queries, num_frames, SIZE[0] // 4, SIZE[1] // 4, requires_grad=True
            ),
        }

    return {**layer(), "aux_outputs": [layer() for _ in range(num_aux)]}


def _frames(num_clips: int, num_frames: int) -> torch.Tensor:
    base = torch.rand(num_clips, 1, 3, 2, 3).repeat_interleave(16, -1).repeat_interleave(16, -2)
    base = base[..., : SIZE[0], : SIZE[1]] * 255
    return (base + torch.rand(num_clips, num_frames, 3, *SIZE) * 5).clamp(max=255)


def _run(criterion: VideoSetCriterion, outputs: dict, targets: list[dict], frames: torch.Tensor):
    return criterion(outputs, targets, frames, [SIZE] * len(targets))


@pytest.mark.parametrize("num_frames", [*range(1, 9), 16, 32])
@pytest.mark.parametrize("pairs", ["cycle", "all", "chain", "stride-1"])
def test_any_number_of_frames_gives_finite_losses_and_gradients(
    num_frames: int, pairs: str
) -> None:
    outputs = _outputs(2, num_frames)
    targets = [_target(2, num_frames, False), _target(1, num_frames, False)]
    criterion = make_criterion(temporal_pairs=pairs)
    losses = _run(criterion, outputs, targets, _frames(2, num_frames))
    assert set(losses) == {name + suffix for name in LOSS_NAMES for suffix in ("", "_0")}
    sum(losses.values()).backward()
    for layer in (outputs, *outputs["aux_outputs"]):
        assert torch.isfinite(layer["pred_masks"].grad).all()
        assert layer["pred_masks"].grad.abs().sum() > 0
    assert (float(losses["loss_bound_neighbor"].detach()) > 0) == (num_frames > 1)


@pytest.mark.parametrize("sizes", [(0,), (0, 0), (2, 0), (0, 3, 1), (1, 1, 1, 1)])
def test_any_number_of_clips_and_objects(sizes: tuple[int, ...]) -> None:
    outputs = _outputs(len(sizes), 2)
    targets = [_target(size, 2, False) for size in sizes]
    losses = _run(make_criterion(), outputs, targets, _frames(len(sizes), 2))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    # every prediction has a gradient, be it zero, so that DDP waits for none
    for layer in (outputs, *outputs["aux_outputs"]):
        assert layer["pred_masks"].grad is not None
        assert layer["pred_logits"].grad.abs().sum() > 0


def test_box_and_mask_clips_in_one_batch_add_up() -> None:
    outputs = _outputs(2, 3)
    frames = _frames(2, 3)
    targets = [_target(2, 3, True), _target(2, 3, False)]
    criterion = make_criterion(temporal_warmup=0).eval()
    matches = criterion.matcher([outputs, *outputs["aux_outputs"]], targets, SIZE)
    losses = criterion(outputs, targets, frames, [SIZE] * 2, matches)
    for name in LOSS_NAMES[1:]:
        assert float(losses[name].detach()) > 0
    single = {key: value[1:] for key, value in outputs.items() if key != "aux_outputs"}
    alone = criterion(single, targets[1:], frames[1:], [SIZE], [[matches[0][1]]])
    for name in ("loss_mask_proj", "loss_bound", "loss_bound_neighbor"):
        torch.testing.assert_close(losses[name], alone[name])


def test_order_of_objects_and_clips_does_not_matter() -> None:
    outputs = _outputs(2, 3, num_aux=0)
    frames = _frames(2, 3)
    targets = [_target(3, 3, False), _target(2, 3, False)]
    criterion = make_criterion().eval()
    losses = _run(criterion, outputs, targets, frames)
    swapped = [{key: value.flip(0) for key, value in target.items()} for target in targets[::-1]]
    flipped = {key: value.flip(0) for key, value in outputs.items() if key != "aux_outputs"}
    again = _run(criterion, flipped, swapped, frames.flip(0))
    for name in LOSS_NAMES:
        torch.testing.assert_close(losses[name], again[name])


def test_padding_changes_no_box_loss() -> None:
    outputs = _outputs(1, 2, num_aux=0)
    frames, targets = _frames(1, 2), [_target(2, 2, False)]
    criterion = make_criterion().eval()
    matches = criterion.matcher([outputs], targets, SIZE)
    losses = criterion(outputs, targets, frames, [SIZE], matches)
    padded_frames = torch.nn.functional.pad(frames, (0, 24, 0, 32))
    padded = {
        "pred_logits": outputs["pred_logits"],
        "pred_masks": torch.nn.functional.pad(outputs["pred_masks"], (0, 6, 0, 8), value=-30.0),
    }
    again = criterion(padded, targets, padded_frames, [SIZE], matches)
    for name in ("loss_mask_proj", "loss_bound", "loss_bound_neighbor"):
        torch.testing.assert_close(losses[name], again[name], rtol=1e-5, atol=1e-6)


def test_absent_frame_pushes_the_mask_down_only_with_the_penalty() -> None:
    target = _target(1, 2, False)
    target["boxes"][0, 1] = 0
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        outputs = _outputs(1, 2, num_aux=0, queries=1)
        criterion = make_criterion(empty_frame_weight=weight, pairwise_threshold=1.0)
        losses = _run(criterion, outputs, [target], _frames(1, 2))
        losses["loss_mask_proj"].backward()
        gradient = outputs["pred_masks"].grad[0, 0, 1]
        assert (gradient.sum() > 0) == (weight > 0)
        assert (gradient >= 0).all()


def test_temporal_weight_does_not_grow_with_the_number_of_pairs() -> None:
    """A still clip has equal terms for all pairs, so the normalised sum is the same for any T."""
    values = []
    for num_frames in (2, 3, 6):
        torch.manual_seed(0)
        mask = torch.randn(1, 1, 1, SIZE[0] // 4, SIZE[1] // 4).expand(-1, -1, num_frames, -1, -1)
        outputs = {"pred_logits": torch.randn(1, 1, 4), "pred_masks": mask}
        target = _target(1, 1, False)
        target["boxes"] = target["boxes"].expand(-1, num_frames, -1)
        frames = _frames(1, 1).expand(-1, num_frames, -1, -1, -1)
        criterion = make_criterion(temporal_warmup=0)
        values.append(float(_run(criterion, outputs, [target], frames)["loss_bound_neighbor"]))
    assert values[0] == pytest.approx(values[1], rel=1e-5) == pytest.approx(values[2], rel=1e-5)
    assert values[0] > 0


def test_warmup_counts_steps_and_not_decoder_outputs() -> None:
    criterion = make_criterion(temporal_warmup=10)
    outputs, frames, targets = _outputs(1, 2, num_aux=3), _frames(1, 2), [_target(2, 2, False)]
    matches = criterion.matcher([outputs, *outputs["aux_outputs"]], targets, SIZE)
    values = []
    for _ in range(12):
        losses = criterion(outputs, targets, frames, [SIZE], matches)
        values.append(float(losses["loss_bound_neighbor"].detach()))
    assert float(criterion._iter) == 12
    assert values[1] == pytest.approx(2 * values[0], rel=1e-5)
    assert values[9] == pytest.approx(10 * values[0], rel=1e-5)
    assert values[11] == pytest.approx(values[9], rel=1e-6)
    criterion.eval()
    criterion(outputs, targets, frames, [SIZE], matches)
    assert float(criterion._iter) == 12


def test_more_objects_than_queries() -> None:
    outputs = _outputs(1, 2, queries=2)
    losses = _run(make_criterion(), outputs, [_target(4, 2, False)], _frames(1, 2))
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    outputs = _outputs(1, 2, queries=2)
    losses = _run(make_criterion(), outputs, [_target(4, 2, True)], _frames(1, 2))
    assert all(torch.isfinite(value.detach()) for value in losses.values())


def test_only_matched_queries_get_mask_gradients() -> None:
    outputs = _outputs(1, 2, num_aux=0)
    criterion, targets = make_criterion(), [_target(2, 2, False)]
    queries, _ = criterion.matcher([outputs], targets, SIZE)[0][0]
    losses = _run(criterion, outputs, targets, _frames(1, 2))
    sum(losses[name] for name in LOSS_NAMES[1:]).backward()
    touched = outputs["pred_masks"].grad[0].abs().sum((1, 2, 3)) > 0
    assert touched.nonzero()[:, 0].tolist() == queries.tolist()


def test_settings_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AffinitySettings().top_k = 3
