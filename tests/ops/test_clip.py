"""Tracks of one clip from its outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from maskfreevis_ext.ops.clip import clip_result, resize_masks, select_tracks


def test_select_tracks_takes_the_best_pairs_in_order() -> None:
    probs = torch.tensor([[0.5, 0.4, 0.1], [0.05, 0.7, 0.25], [0.01, 0.02, 0.97]])
    scores, labels, queries = select_tracks(probs.log(), 3)
    torch.testing.assert_close(scores, torch.tensor([0.7, 0.5, 0.4]))
    assert labels.tolist() == [1, 0, 1]
    assert queries.tolist() == [1, 0, 0]


def test_select_tracks_keeps_no_more_than_there_are() -> None:
    scores, labels, queries = select_tracks(torch.randn(2, 4), 100)
    assert len(scores) == len(labels) == len(queries) == 6
    assert (scores.diff() <= 0).all()


def test_select_tracks_scores_are_float32_of_half_logits() -> None:
    logits = torch.randn(5, 4).bfloat16()
    scores, _, _ = select_tracks(logits, 1)
    assert scores.dtype == torch.float32
    assert torch.equal(scores[0], logits.float().softmax(-1)[:, :-1].max())


def test_resize_masks_equals_resizing_the_whole_clip() -> None:
    logits = torch.randn(3, 4, 8, 12)
    masks = resize_masks(logits, (32, 48), (30, 41), (75, 99))
    whole = F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False)
    whole = F.interpolate(whole[..., :30, :41], size=(75, 99), mode="bilinear", align_corners=False)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, whole > 0)


def test_clip_result_has_the_format_of_the_evaluator() -> None:
    outputs = {"pred_logits": torch.randn(6, 4), "pred_masks": torch.randn(6, 2, 4, 4)}
    result = clip_result(
        outputs, num_tracks=10, padded_size=(16, 16), frame_size=(16, 16), output_size=(20, 24)
    )
    assert result["image_size"] == (20, 24)
    assert len(result["pred_scores"]) == len(result["pred_labels"]) == 10
    assert isinstance(result["pred_scores"][0], float)
    assert isinstance(result["pred_labels"][0], int)
    assert [tuple(m.shape) for m in result["pred_masks"]] == [(2, 20, 24)] * 10


def test_clip_result_masks_belong_to_their_queries() -> None:
    # Query q covers column q only, and has class q.
    class_logits = (
        5 * torch.eye(4, 5)[[2, 0, 3, 1]]
        + torch.arange(4.0)[:, None] * torch.eye(4, 5)[[2, 0, 3, 1]]
    )
    mask_logits = (torch.eye(4)[:, None, None] * 2 - 1).expand(4, 1, 4, 4)
    result = clip_result(
        {"pred_logits": class_logits, "pred_masks": mask_logits},
        num_tracks=4,
        padded_size=(4, 4),
        frame_size=(4, 4),
        output_size=(4, 4),
    )
    assert result["pred_labels"] == [1, 3, 0, 2]
    columns = [mask[0, 0].int().tolist().index(1) for mask in result["pred_masks"]]
    assert columns == [3, 2, 1, 0]


def test_resize_masks_leaves_out_what_is_nowhere_above_zero_without_a_difference() -> None:
    logits = torch.randn(5, 3, 6, 8)
    logits[1] = -logits[1].abs()
    logits[:, 2] = -1.0
    logits[3, 0] = 0.0
    for output_size in ((22, 30), (37, 41)):
        masks = resize_masks(logits, (24, 32), (22, 30), output_size)
        up = F.interpolate(logits, (24, 32), mode="bilinear", align_corners=False)
        up = F.interpolate(up[..., :22, :30], output_size, mode="bilinear", align_corners=False)
        assert torch.equal(masks, up > 0)
    assert masks[0, 0].any()
    assert not masks[:, 2].any()
