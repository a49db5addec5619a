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
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.points import sample_points, uncertain_point_coords
from maskfreevis_ext.ops.reduce import mean_over_ranks, send

from .box_losses import (
    Affinities,
    BoxLossSettings,
    box_costs,
    box_losses,
    compute_affinities,
    no_box_costs,
    no_box_losses,
)
from .matched_masks import (
    MatchedMasks,
    clip_of_object,
    matched_masks,
    query_of_object,
)
from .matcher import Match, VideoHungarianMatcher
from .multimask_head import MultimaskHead
from .multimask_losses import Hypotheses, MultimaskLosses, make_hypotheses, shrink_masks

#: Terms that the multimask head adds.
MULTIMASK_LOSS_NAMES = ("loss_iou", "loss_class")

#: Terms of each decoder output, in the order of the reference.
LOSS_NAMES = (
    "loss_ce",
    "loss_mask",
    "loss_dice",
    "loss_mask_proj",
    "loss_bound",
    "loss_bound_neighbor",
)


@dataclass(frozen=True)
class BoxScene:
    """Clips with boxes: what their losses need beside the masks.

    Attributes:
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent.
        is_present: (N, T), bool.
        clips: Index of each object's clip in ``affinities``, (N,), int64.
        affinities: Edges and matches.
        stride: Pixels per cell of the masks.
    """

    boxes: Tensor
    is_present: Tensor
    clips: Tensor
    affinities: Affinities
    stride: int


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
        multimask: MultimaskLosses | None = None,
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
            multimask: Terms of several masks per object, and their weights; None: one mask.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.multimask = multimask
        self.weights = weights if multimask is None else {**weights, **multimask.weights}
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
            multimask=MultimaskLosses.from_config(cfg) if cfg.MODEL.MULTIMASK.ENABLED else None,
        )

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the terms of each decoder output."""
        return LOSS_NAMES if self.multimask is None else LOSS_NAMES + MULTIMASK_LOSS_NAMES

    def forward(
        self,
        outputs: dict[str, Any],
        targets: list[dict[str, Tensor]],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
        matches: list[list[Match]] | None = None,
        multimask_head: MultimaskHead | None = None,
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
            multimask_head: Makes the further masks, if the criterion has ``multimask``.

        Returns:
            ``loss_names`` for the last output and ``{name}_{i}`` for auxiliary output i; every key
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
        queries = query_of_object(matches, targets)
        all_matched = bool((queries >= 0).all())
        queries = send(queries, frames.device)
        losses = {"loss_ce": self._class_loss(layers, targets, queries)}
        with_masks = [i for i, target in enumerate(targets) if "masks" in target]
        with_boxes = [i for i, target in enumerate(targets) if "masks" not in target]
        scene = self._box_scene(layers, targets, with_boxes, frames, frame_sizes)
        if self.multimask is None:
            matched = matched_masks(layers, targets, queries)
            losses.update(self._mask_losses(matched.of_clips(with_masks), targets, with_masks))
            losses.update(self._box_losses(matched.of_clips(with_boxes), scene))
        else:
            hypotheses = make_hypotheses(
                multimask_head, layers, queries, clip_of_object(targets), all_matched
            )
            losses.update(
                self._hypothesis_losses(hypotheses, targets, scene, with_masks, with_boxes)
            )
        weighted = {}
        for index in range(len(layers)):
            suffix = "" if index == 0 else f"_{index - 1}"
            for name in self.loss_names:
                weighted[name + suffix] = losses[name][index] * self.weights[name]
        return weighted

    def _class_loss(
        self, layers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], queries: Tensor
    ) -> Tensor:
        """Cross-entropy over all queries, weighted mean, (K,)."""
        logits = at_least_float32(torch.stack([layer["pred_logits"] for layer in layers]))
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

    def _box_scene(
        self,
        layers: list[dict[str, Tensor]],
        targets: list[dict[str, Tensor]],
        clips: list[int],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
    ) -> BoxScene | None:
        """What the losses of the clips with boxes need beside the masks; None without an object."""
        clips = [clip for clip in clips if len(targets[clip]["labels"])]
        if not clips:
            return None
        stride = frames.shape[-2] // layers[0]["pred_masks"].shape[-2]
        chosen = slice(None)  # no copy of a whole batch
        if len(clips) < len(frames):
            chosen = send(torch.tensor(clips), frames.device)
        affinities = compute_affinities(
            frames[chosen], [frame_sizes[clip] for clip in clips], stride, self.box_settings
        )
        own = send(clip_of_object([targets[clip] for clip in clips]), frames.device)
        boxes = torch.cat([targets[clip]["boxes"] for clip in clips])
        is_present = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        return BoxScene(boxes, is_present, own, affinities, stride)

    def _box_losses(self, matched: MatchedMasks, scene: BoxScene | None) -> dict[str, Tensor]:
        """Losses of the objects of the clips with boxes, each (K,)."""
        if scene is None:
            return no_box_losses(matched.logits, self.box_settings)
        return box_losses(
            matched.logits,
            matched.is_matched,
            scene.boxes.to(matched.logits.dtype),
            scene.clips,
            scene.affinities,
            scene.stride,
            self._iter,
            self.box_settings,
        )

    def _hypothesis_losses(
        self,
        hypotheses: Hypotheses,
        targets: list[dict[str, Tensor]],
        scene: BoxScene | None,
        with_masks: list[int],
        with_boxes: list[int],
    ) -> dict[str, Tensor]:
        """Losses of the best of several masks of each object, and of all ratings, each (K,)."""
        logits = hypotheses.logits
        count = mean_over_ranks(logits.new_full((), float(logits.shape[2]))).clamp(min=1)
        stride = 1
        masks = [targets[clip]["masks"] for clip in with_masks]
        if masks:
            stride = masks[0].shape[-1] // logits.shape[-1]
        of_masks = hypotheses.of_clips(with_masks)
        small = [shrink_masks(mask, stride) for mask in masks]
        small = torch.cat(small) if small else logits.new_zeros(0, *logits.shape[3:])
        losses = self.multimask.of_masks(of_masks, small, count)

        of_boxes = hypotheses.of_clips(with_boxes)
        if scene is None:
            best = logits.new_zeros(logits.shape[0], 0, dtype=torch.int64)
            no_box_costs(logits, self.box_settings)
        else:
            boxes = scene.boxes.to(logits.dtype)
            costs = box_costs(
                of_boxes.logits.flatten(0, 1),
                boxes,
                scene.clips,
                scene.affinities,
                scene.stride,
                self._iter,
                self.box_settings,
                self.weights,
            )
            best = costs.view(of_boxes.logits.shape[:3]).argmin(1)
            ratings = self.multimask.of_boxes(
                of_boxes, best, boxes, scene.is_present, scene.stride, count
            )
            losses = {**losses, **{name: losses[name] + ratings[name] for name in ratings}}
        return {**losses, **self._box_losses(of_boxes.chosen(best), scene)}

    def _mask_losses(
        self, matched: MatchedMasks, targets: list[dict[str, Tensor]], clips: list[int]
    ) -> dict[str, Tensor]:
        """Point-sampled BCE and Dice of the objects of the clips with masks, each (K,)."""
        logits = matched.logits
        num_objects = logits.shape[1]
        count = mean_over_ranks(logits.new_full((), float(num_objects))).clamp(min=1)
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
