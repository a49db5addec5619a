"""The losses of a batch: which term for which object, at which output, with which weight.

Shape letters: K decoder outputs (the last one first), N objects of several clips in one list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.losses.point_mask import point_bce, point_dice
from maskfreevis_ext.ops.points import sample_points, uncertain_point_coords

from .box_losses import BoxLossSettings, box_losses, compute_affinities, no_box_losses
from .matcher import Match, VideoHungarianMatcher
from .reduce import mean_over_ranks

#: Terms of each decoder output, in the order of the reference.
LOSS_NAMES = (
    "loss_ce",
    "loss_mask",
    "loss_dice",
    "loss_mask_proj",
    "loss_bound",
    "loss_bound_neighbor",
)


class VideoSetCriterion(nn.Module):
    """Classification, box and mask losses on every decoder output.

    Clips with boxes get projection + spatial + temporal pairwise losses, clips with masks
    point-sampled BCE + Dice, and both may stand in one batch. The buffer ``_iter`` counts training
    steps for the warm-up; its name and that of ``empty_weight`` are those of MaskFreeVIS
    checkpoints.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        matcher: VideoHungarianMatcher,
        weights: dict[str, float],
        no_object_weight: float,
        num_points: int,
        oversample_ratio: float,
        importance_sample_ratio: float,
        box_settings: BoxLossSettings,
    ) -> None:
        """Take the parts and the weights.

        Args:
            num_classes: C, without "no object".
            matcher: Assigns queries to objects.
            weights: Weight of each term in ``LOSS_NAMES``.
            no_object_weight: Weight of the class "no object" in the cross-entropy.
            num_points: Points per mask and frame.
            oversample_ratio: PointRend's k.
            importance_sample_ratio: PointRend's beta.
            box_settings: Settings of the box losses.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.weights = weights
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.box_settings = box_settings
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)
        self.register_buffer("_iter", torch.zeros(1))

    @classmethod
    def from_config(cls, cfg: Any) -> VideoSetCriterion:
        """Build the criterion and its matcher from ``MODEL.MASK_FORMER`` and ``MODEL.MASKFREE``."""
        mask_former, maskfree = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASKFREE
        mask_weight = mask_former.MASK_WEIGHT
        matcher = VideoHungarianMatcher(
            class_weight=mask_former.CLASS_WEIGHT,
            mask_weight=mask_weight,
            dice_weight=mask_former.DICE_WEIGHT,
            num_points=mask_former.TRAIN_NUM_POINTS,
            nonfinite_cost=maskfree.MATCHER.NONFINITE_COST,
        )
        return cls(
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            matcher=matcher,
            weights={
                "loss_ce": mask_former.CLASS_WEIGHT,
                "loss_mask": mask_weight,
                "loss_dice": mask_former.DICE_WEIGHT,
                "loss_mask_proj": mask_weight * maskfree.PROJECTION.WEIGHT,
                "loss_bound": mask_weight * maskfree.PAIRWISE.WEIGHT,
                "loss_bound_neighbor": mask_weight * maskfree.TEMPORAL.WEIGHT,
            },
            no_object_weight=mask_former.NO_OBJECT_WEIGHT,
            num_points=mask_former.TRAIN_NUM_POINTS,
            oversample_ratio=mask_former.OVERSAMPLE_RATIO,
            importance_sample_ratio=mask_former.IMPORTANCE_SAMPLE_RATIO,
            box_settings=BoxLossSettings.from_config(cfg),
        )

    def forward(
        self,
        outputs: dict[str, Any],
        targets: list[dict[str, Tensor]],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
        matches: list[list[Match]] | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of all decoder outputs.

        Args:
            outputs: ``pred_logits`` (B, Q, C+1), ``pred_masks`` (B, Q, T, h, w) and, with deep
                supervision, ``aux_outputs``, a list of dicts of the same. With ``mask_embed``
                (B, Q, D) in each and ``mask_features`` (B, D, T, h, w) in the first,
                ``pred_masks`` needs no graph: the masks of the matched queries are made again
                from these.
            targets: B dicts (``targets.build_targets``); they are not changed.
            frames: Pixel values in [0, 255] in the order of INPUT.FORMAT, zeros as padding,
                (B, T, 3, H, W), float32.
            frame_sizes: (height, width) of the frames of each clip without padding.
            matches: Assignment to use instead of the matcher's, for tests and analysis.

        Returns:
            ``LOSS_NAMES`` for the last output and ``{name}_{i}`` for auxiliary output i; every key
            at every step, a zero with a gradient path where nothing applies. The sum is the
            training loss.

        Raises:
            NumericError: A matching cost is not finite.
        """
        layers = [outputs, *outputs.get("aux_outputs", [])]
        image_size = (frames.shape[-2], frames.shape[-1])
        if matches is None:
            matches = self.matcher(layers, targets, image_size)
        if self.training:
            self._iter += 1
        queries = _query_of_object(matches, targets).to(frames.device)

        losses = {"loss_ce": self._class_loss(layers, targets, queries)}
        matched = _matched_masks(layers, targets, queries)
        with_masks = [i for i, target in enumerate(targets) if "masks" in target]
        losses.update(self._mask_losses(matched.of_clips(with_masks), targets, with_masks))
        with_boxes = [i for i, target in enumerate(targets) if "masks" not in target]
        losses.update(
            self._box_losses(matched.of_clips(with_boxes), targets, with_boxes, frames, frame_sizes)
        )
        weighted = {}
        for index in range(len(layers)):
            suffix = "" if index == 0 else f"_{index - 1}"
            for name in LOSS_NAMES:
                weighted[name + suffix] = losses[name][index] * self.weights[name]
        return weighted

    def _class_loss(
        self, layers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], queries: Tensor
    ) -> Tensor:
        """Cross-entropy over all queries, weighted mean, (K,)."""
        logits = _at_least_float32(torch.stack([layer["pred_logits"] for layer in layers]))
        num_layers, num_clips, num_queries = logits.shape[:3]
        # one slot more takes the objects that found no query
        classes = torch.full(
            (num_layers, num_clips, num_queries + 1), self.num_classes, device=logits.device
        )
        start = 0
        for clip, target in enumerate(targets):
            labels = target["labels"].expand(num_layers, -1)
            of_clip = queries[:, start : start + labels.shape[1]]
            start += labels.shape[1]
            classes[:, clip].scatter_(1, of_clip.where(of_clip >= 0, num_queries), labels)
        classes = classes[..., :num_queries]
        nll = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none")
        weight = self.empty_weight.to(logits.dtype)[classes]
        return (nll.view_as(weight) * weight).sum((1, 2)) / weight.sum((1, 2))

    def _box_losses(
        self,
        matched: MatchedMasks,
        targets: list[dict[str, Tensor]],
        clips: list[int],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Losses of the objects of the clips with boxes, each (K,)."""
        clips = [clip for clip in clips if len(targets[clip]["labels"])]
        logits = matched.logits
        if not clips:
            return no_box_losses(logits, self.box_settings)
        stride = frames.shape[-2] // logits.shape[-2]
        chosen = slice(None) if len(clips) == len(frames) else clips  # no copy of a whole batch
        affinities = compute_affinities(
            frames[chosen], [frame_sizes[clip] for clip in clips], stride, self.box_settings
        )
        slots = torch.searchsorted(torch.tensor(clips), matched.clips).to(logits.device)
        boxes = torch.cat([targets[clip]["boxes"] for clip in clips]).to(logits.dtype)
        return box_losses(
            logits,
            matched.is_matched,
            boxes,
            slots,
            affinities,
            stride,
            self._iter,
            self.box_settings,
        )

    def _mask_losses(
        self, matched: MatchedMasks, targets: list[dict[str, Tensor]], clips: list[int]
    ) -> dict[str, Tensor]:
        """Point-sampled BCE and Dice of the objects of the clips with masks, each (K,)."""
        logits = matched.logits
        num_objects = logits.shape[1]
        count = mean_over_ranks(logits.new_tensor(float(num_objects))).clamp(min=1)
        if num_objects == 0:
            zero = logits.flatten(1).sum(1)
            return {"loss_mask": zero, "loss_dice": zero}
        masks = torch.cat([targets[clip]["masks"] for clip in clips]).flatten(0, 1)[:, None]
        masks = masks.to(logits.dtype)
        bce, dice = [], []
        for of_layer, is_matched in zip(logits, matched.is_matched, strict=True):
            rows = of_layer.flatten(0, 1)[:, None]  # (N * T, 1, h, w)
            with torch.no_grad():
                coords = uncertain_point_coords(
                    rows, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                )
                labels = sample_points(masks, coords)[:, 0]
            points = sample_points(rows, coords)[:, 0]
            weight = is_matched.repeat_interleave(of_layer.shape[1]) / count
            bce.append((point_bce(points, labels) * weight).sum())
            dice.append((point_dice(points, labels) * weight).sum())
        return {"loss_mask": torch.stack(bce), "loss_dice": torch.stack(dice)}


def _at_least_float32(x: Tensor) -> Tensor:
    """The tensor, in float32 if it was in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _query_of_object(matches: list[list[Match]], targets: list[dict[str, Tensor]]) -> Tensor:
    """Query of each object at each output, (K, sum of N), int64, -1 where there is none."""
    sizes = [len(target["labels"]) for target in targets]
    table = torch.full((len(matches), sum(sizes)), -1)
    for row, of_layer in zip(table, matches, strict=True):
        start = 0
        for (queries, objects), size in zip(of_layer, sizes, strict=True):
            row[start + objects] = queries
            start += size
    return table


@dataclass(frozen=True)
class MatchedMasks:
    """Masks of the queries that were matched, one for each object.

    Attributes:
        logits: (K, N, T, h, w), float32 or better.
        is_matched: Whether the object has a query, (K, N), float; elsewhere the logits are those
            of some query and count nowhere.
        clips: Clip of each object, (N,), int64, on the CPU, ascending.
        anchor: Zeros with a gradient path, (K,), for a term that has no objects.
    """

    logits: Tensor
    is_matched: Tensor
    clips: Tensor
    anchor: Tensor

    def of_clips(self, clips: list[int]) -> MatchedMasks:
        """Those of some clips."""
        columns = torch.isin(self.clips, torch.tensor(clips, dtype=torch.int64)).nonzero()[:, 0]
        if len(columns) == len(self.clips):
            return self
        if len(columns) == 0:  # the gradient of a slice would be as large as the whole
            logits = self.logits.detach()[:, :0] + self.anchor.view(-1, 1, 1, 1, 1)
        else:
            logits = self.logits.index_select(1, columns.to(self.logits.device))
        is_matched = self.is_matched[:, columns.to(self.is_matched.device)]
        return MatchedMasks(logits, is_matched, self.clips[columns], self.anchor)


def _matched_masks(
    layers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], queries: Tensor
) -> MatchedMasks:
    """Mask logits of the query of each object.

    Args:
        layers: K decoder outputs.
        targets: B dicts.
        queries: (K, N), -1 where an object has no query.
    """
    sizes = [len(target["labels"]) for target in targets]
    clips = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    index = clips.to(queries.device)
    safe = queries.clamp(min=0)

    def matched(name: str) -> Tensor:
        """An output of the matched queries, (K, N, ...)."""
        return torch.stack(
            [layer[name][index, query] for layer, query in zip(layers, safe, strict=True)]
        )

    logits = matched("pred_masks")
    if "mask_embed" in layers[0]:
        logits = _ProductGradient.apply(
            matched("mask_embed"), layers[0]["mask_features"], logits, sizes
        )
    logits = _at_least_float32(logits)
    anchor = torch.stack([layer["pred_logits"][..., :0].sum() for layer in layers])
    return MatchedMasks(logits, (queries >= 0).to(logits.dtype), clips, _at_least_float32(anchor))


class _ProductGradient(torch.autograd.Function):
    """Gives known mask logits the gradient of the product that they are.

    The decoder has multiplied embeddings and features of all queries already, without a graph;
    here the few that were matched get one, and no product is made twice.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        embeddings: Tensor,
        mask_features: Tensor,
        logits: Tensor,
        sizes: list[int],
    ) -> Tensor:
        """The logits as they are.

        Args:
            ctx: Keeps the two factors.
            embeddings: Mask embeddings, (K, N, D), the objects of one clip after the other.
            mask_features: (B, D, T, h, w).
            logits: Their product, (K, N, T, h, w).
            sizes: Objects of each of the B clips.
        """
        ctx.save_for_backward(embeddings, mask_features)
        ctx.sizes = sizes
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple:
        """Gradients of embeddings and features."""
        embeddings, mask_features = ctx.saved_tensors
        # autocast gives the two in different precisions
        factors = _at_least_float32(embeddings), _at_least_float32(mask_features)
        of_embeddings = torch.zeros_like(factors[0])
        of_features = torch.empty_like(factors[1], memory_format=torch.contiguous_format)
        start = 0
        for size, features, gradient in zip(
            ctx.sizes, factors[1].flatten(2), of_features.flatten(2), strict=True
        ):
            if size == 0:
                gradient.zero_()
                continue
            rows = slice(start, start + size)
            start += size
            of_clip = upstream[:, rows].reshape(-1, features.shape[1]).to(features.dtype)
            own = factors[0][:, rows].reshape(len(of_clip), -1)
            torch.mm(own.t().contiguous(), of_clip, out=gradient)
            of_embeddings[:, rows] = (of_clip @ features.t()).view_as(of_embeddings[:, rows])
        return of_embeddings.to(embeddings.dtype), of_features.to(mask_features.dtype), None, None
