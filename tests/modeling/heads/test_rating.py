"""Rating of several masks per object, and tracks from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from maskfreevis_ext.modeling.heads.multimask import MultimaskHead
from maskfreevis_ext.modeling.heads.rating import RatedMasks, RatingSettings, rate_masks
from maskfreevis_ext.ops.clip import clip_result, select_tracks
from maskfreevis_ext.ops.hypotheses import ABSENT_LOGIT, pool_features
from tests.helpers.configs import tiny_cfg

QUERIES, QUERY_DIM, MASK_DIM, EXTRA, FRAMES, SIZE = 7, 16, 8, 3, 4, (6, 5)
KEPT = torch.tensor([5, 0, 2, 6])


def _head(*, gain: float = 3.0, **settings: bool) -> MultimaskHead:
    """A head whose ratings differ: its last layers are random and large."""
    head = MultimaskHead(QUERY_DIM, MASK_DIM, EXTRA, **settings)
    for mlp in (*head.hypernetworks, head.iou_head, head.object_score_head):
        if mlp is not None:
            nn.init.normal_(mlp.layers[-1].weight, std=gain)
    return head


def rate_queries(
    head: MultimaskHead, outputs: dict[str, Tensor], kept: Tensor, settings: RatingSettings
) -> RatedMasks:
    head.rating = settings
    return head.rated_masks(outputs, kept)


def _outputs() -> dict[str, Tensor]:
    """Outputs whose ``pred_masks`` are not the product of embeddings and features."""
    return {
        "pred_masks": torch.randn(QUERIES, FRAMES, *SIZE),
        "queries": torch.randn(QUERIES, QUERY_DIM),
        "mask_embed": torch.randn(QUERIES, MASK_DIM),
        "mask_features": torch.randn(MASK_DIM, FRAMES, *SIZE),
    }


def _literal_factor(
    ious: Tensor, scores: Tensor | None, choice: Tensor, settings: RatingSettings
) -> list[float]:
    """What the docstring of ``rate_masks`` says, number by number."""
    factors = []
    for n in range(len(choice)):
        shown = [min(max(float(ious[n, choice[n, t], t]), 0), 1) for t in range(FRAMES)]
        presence = [1.0] * FRAMES if scores is None else scores[n].sigmoid().tolist()
        factor = 1.0
        if settings.use_iou:
            factor = sum(p * iou for p, iou in zip(presence, shown, strict=True)) / sum(presence)
        if settings.use_object_score:
            factor *= max(presence)
        factors.append(factor)
    return factors


def test_hypotheses_and_ratings_are_those_of_the_head() -> None:
    head, outputs = _head(), _outputs()
    rated = rate_queries(head, outputs, KEPT, RatingSettings())
    queries = outputs["queries"][KEPT]
    embeddings = head.embed(queries, outputs["mask_embed"][KEPT])
    logits = torch.einsum("nmc,cthw->nmthw", embeddings, outputs["mask_features"])
    assert rated.logits.shape == (4, EXTRA + 1, FRAMES, *SIZE)
    torch.testing.assert_close(rated.logits[:, 1:], logits[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(rated.logits[:, 0], outputs["pred_masks"][KEPT])
    ious, scores = head.ratings(queries, pool_features(rated.logits, outputs["mask_features"]))
    torch.testing.assert_close(rated.ious, ious)
    torch.testing.assert_close(rated.scores, scores)
    assert not any(tensor.requires_grad for tensor in vars(rated).values())


def test_shown_masks_are_those_of_the_highest_predicted_iou() -> None:
    rated = rate_queries(_head(), _outputs(), KEPT, RatingSettings(empty_absent=False))
    assert rated.choice.unique().numel() > 2  # else nothing is chosen here
    for n in range(len(KEPT)):
        for t in range(FRAMES):
            ious = rated.ious[n, :, t].tolist()
            best = ious.index(max(ious))
            assert rated.choice[n, t] == best
            assert torch.equal(rated.masks[n, t], rated.logits[n, best, t])


def test_frames_without_the_object_are_empty() -> None:
    head, outputs = _head(), _outputs()
    rated = rate_queries(head, outputs, KEPT, RatingSettings())
    full = rate_queries(head, outputs, KEPT, RatingSettings(empty_absent=False))
    is_absent = rated.scores < 0
    assert is_absent.any()
    assert not is_absent.all()
    assert (rated.masks[is_absent] == ABSENT_LOGIT).all()
    assert torch.equal(rated.masks[~is_absent], full.masks[~is_absent])
    assert (full.masks > ABSENT_LOGIT).all()
    for name in ("logits", "ious", "choice", "factor"):
        assert torch.equal(getattr(rated, name), getattr(full, name))


@pytest.mark.parametrize("pred_obj_scores", [True, False])
@pytest.mark.parametrize("iou_sigmoid", [True, False])
@pytest.mark.parametrize("use_object_score", [True, False])
@pytest.mark.parametrize("use_iou", [True, False])
def test_factor_is_the_predicted_iou_times_the_presence(
    use_iou: bool, use_object_score: bool, iou_sigmoid: bool, pred_obj_scores: bool
) -> None:
    head = _head(gain=1.0, iou_sigmoid=iou_sigmoid, pred_obj_scores=pred_obj_scores)
    settings = RatingSettings(use_iou=use_iou, use_object_score=use_object_score)
    rated = rate_queries(head, _outputs(), KEPT, settings)
    expected = _literal_factor(rated.ious, rated.scores, rated.choice, settings)
    torch.testing.assert_close(rated.factor, torch.tensor(expected))
    if not (use_iou or (use_object_score and pred_obj_scores)):
        assert rated.factor.tolist() == [1.0] * len(KEPT)


@pytest.mark.parametrize("use_iou", [True, False])
def test_factor_lies_in_0_1_with_ious_without_bounds(use_iou: bool) -> None:
    head, outputs = _head(gain=10.0, iou_sigmoid=False), _outputs()
    settings = RatingSettings(use_iou=use_iou)
    kept = torch.arange(QUERIES)
    ious = []
    for bias in (-30.0, 0.0, 30.0):
        nn.init.constant_(head.iou_head.layers[-1].bias, bias)
        rated = rate_queries(head, outputs, kept, settings)
        ious.append(rated.ious)
        assert ((rated.factor >= 0) & (rated.factor <= 1)).all()
    assert torch.cat(ious).min() < 0
    assert torch.cat(ious).max() > 1


@pytest.mark.parametrize("use_object_score", [True, False])
def test_factor_of_an_object_that_is_nowhere_is_zero(use_object_score: bool) -> None:
    head = _head()
    nn.init.constant_(head.object_score_head.layers[-1].bias, -1e4)
    settings = RatingSettings(use_object_score=use_object_score)
    rated = rate_queries(head, _outputs(), KEPT, settings)
    assert rated.factor.tolist() == [0.0] * len(KEPT)
    assert (rated.masks == ABSENT_LOGIT).all()


def test_without_an_object_score_nothing_is_emptied() -> None:
    head, outputs = _head(pred_obj_scores=False), _outputs()
    rated = rate_queries(head, outputs, KEPT, RatingSettings())
    assert rated.scores is None
    assert torch.equal(
        rated.masks, rated.logits.take_along_dim(rated.choice[:, None, :, None, None], 1)[:, 0]
    )
    shown = rated.ious.take_along_dim(rated.choice[:, None], 1)[:, 0]
    torch.testing.assert_close(rated.factor, shown.mean(1))


def test_stable_masks_are_kept_and_others_replaced_by_the_best_of_the_others() -> None:
    head, outputs = _head(), _outputs()
    is_stable = torch.rand(QUERIES, FRAMES) > 0.5
    signs = outputs["pred_masks"].sign()
    outputs["pred_masks"] = signs * torch.where(is_stable[..., None, None], 1.0, 0.1)
    settings = RatingSettings(
        by_stability=True, stability_delta=0.5, stability_threshold=0.9, empty_absent=False
    )
    rated = rate_queries(head, outputs, KEPT, settings)
    assert torch.equal(rated.choice == 0, is_stable[KEPT])
    best_other = rated.ious[:, 1:].argmax(1) + 1
    assert torch.equal(rated.choice[~is_stable[KEPT]], best_other[~is_stable[KEPT]])
    by_iou = rate_queries(head, outputs, KEPT, RatingSettings(empty_absent=False))
    assert not torch.equal(rated.choice, by_iou.choice)
    assert torch.equal(rated.masks[is_stable[KEPT]], outputs["pred_masks"][KEPT][is_stable[KEPT]])


@pytest.mark.parametrize("by_stability", [True, False])
@pytest.mark.parametrize("pred_obj_scores", [True, False])
def test_no_kept_query_gives_empty_results(by_stability: bool, pred_obj_scores: bool) -> None:
    head = _head(pred_obj_scores=pred_obj_scores)
    settings = RatingSettings(by_stability=by_stability)
    rated = rate_queries(head, _outputs(), KEPT[:0], settings)
    assert rated.logits.shape == (0, EXTRA + 1, FRAMES, *SIZE)
    assert rated.ious.shape == (0, EXTRA + 1, FRAMES)
    assert rated.choice.shape == (0, FRAMES)
    assert rated.masks.shape == (0, FRAMES, *SIZE)
    assert rated.factor.shape == (0,)


def test_half_precision_outputs_are_rated_in_float32() -> None:
    head, outputs = _head(), {name: x.bfloat16() for name, x in _outputs().items()}
    rated = rate_queries(head, outputs, KEPT, RatingSettings())
    wide = {name: x.float() for name, x in outputs.items()}
    expected = rate_queries(head, wide, KEPT, RatingSettings())
    for name in ("logits", "ious", "scores", "choice", "masks", "factor"):
        assert torch.equal(getattr(rated, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("TEST.USE_IOU", "use_iou", False),
        ("TEST.USE_OBJECT_SCORE", "use_object_score", False),
        ("TEST.EMPTY_ABSENT", "empty_absent", False),
        ("TEST.STABILITY", "by_stability", True),
        ("STABILITY_DELTA", "stability_delta", 0.25),
        ("STABILITY_THRESH", "stability_threshold", 0.75),
    ],
)
def test_settings_are_read_from_the_config(key: str, field: str, value: object) -> None:
    assert RatingSettings(**RatingSettings.from_config(tiny_cfg())) == RatingSettings()
    cfg = tiny_cfg(f"MODEL.MULTIMASK.{key}", value)
    assert RatingSettings(**RatingSettings.from_config(cfg)) == RatingSettings(**{field: value})


def _full_outputs() -> dict[str, Tensor]:
    """4 queries with full masks, 2 classes; query 0 is the last that is kept."""
    probs = torch.tensor(
        [[0.0006, 0.0004, 0.999], [0.8, 0.15, 0.05], [0.3, 0.4, 0.3], [0.1, 0.6, 0.3]]
    )
    return {"pred_logits": probs.log(), "pred_masks": torch.ones(4, 2, 4, 4)}


SIZES = {"padded_size": (4, 4), "frame_size": (4, 4), "output_size": (4, 4)}


@pytest.mark.parametrize("num_tracks", [3, 8])
def test_clip_result_scales_and_sorts_the_scores_and_masks_follow(num_tracks: int) -> None:
    outputs = _full_outputs()
    factors = torch.tensor([0.1, 0.35, 1.0, 0.6])
    columns = (torch.eye(4) * 2 - 1)[:, None, None].expand(4, 2, 4, 4)  # query q: column q
    asked = []

    def rate(kept: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(kept)
        return columns[kept], factors[kept]

    result = clip_result(outputs, num_tracks=num_tracks, **SIZES, rate=rate)

    scores, labels, queries = select_tracks(outputs["pred_logits"], num_tracks)
    assert [kept.tolist() for kept in asked] == [sorted(set(queries.tolist()))]
    assert (0 in queries) == (num_tracks == 8)
    expected = sorted(
        (
            (score * float(factors[query]), label, query)
            for score, label, query in zip(
                scores.tolist(), labels.tolist(), queries.tolist(), strict=True
            )
        ),
        reverse=True,
    )
    assert [query for *_, query in expected] != queries.tolist()  # the order does change
    assert result["pred_scores"] == pytest.approx([score for score, *_ in expected])
    assert result["pred_labels"] == [label for _, label, _ in expected]
    for mask, (*_, query) in zip(result["pred_masks"], expected, strict=True):
        assert torch.equal(mask, columns[query] > 0)


def test_clip_result_keeps_the_order_of_equal_scores() -> None:
    outputs = _full_outputs()
    plain = clip_result(outputs, num_tracks=8, **SIZES)
    rated = clip_result(
        outputs,
        num_tracks=8,
        **SIZES,
        rate=lambda kept: (outputs["pred_masks"][kept], torch.zeros(len(kept))),
    )
    assert rated["pred_scores"] == [0.0] * 8
    assert rated["pred_labels"] == plain["pred_labels"]


def test_consensus_shows_the_mask_that_agrees_most_whatever_its_rating() -> None:
    logits = torch.full((1, 4, 2, 1, 4), -1.0)
    for hypothesis, cells in enumerate((4, 2, 2, 1)):
        logits[0, hypothesis, 0, 0, :cells] = 1
    logits[0, :, 1] = logits[0, [1, 2, 0, 3], 0]  # the same masks, in another order
    logits[0, 3, :, 0, :3] = 1  # three cells: between the two that are alike and all
    ious = torch.tensor([0.9, 0.1, 0.2, 0.3]).view(1, 4, 1).expand(-1, -1, 2)
    rated = rate_masks(logits, ious, None, RatingSettings(by_consensus=True))
    # {abcd}, {ab}, {ab}, {abc}: 0.58, 0.72, 0.72, 0.69, so that one of the two alike is shown
    assert rated.choice.tolist() == [[1, 0]]
    assert rated.factor.tolist() == pytest.approx([(0.1 + 0.9) / 2])
    plain = rate_masks(logits, ious, None, RatingSettings())
    assert plain.choice.tolist() == [[0, 0]]
