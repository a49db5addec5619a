"""Assignment of queries to objects, for all decoder outputs and clips of a batch at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.errors import NumericError
from maskfreevis_ext.losses.mask import pairwise_bce, pairwise_dice
from maskfreevis_ext.ops.boxes import box_dice_cost, boxes_from_projections, mask_projections
from maskfreevis_ext.ops.points import sample_points

Match = tuple[Tensor, Tensor]

_REPLACEMENT = (
    1e6  # replaces a cost that is not finite: such a pair is matched only if no other is left
)


def mask_costs(
    mask_logits: Sequence[Tensor],
    target_masks: Tensor,
    points: Tensor,
    mask_weight: float,
    dice_weight: float,
) -> Tensor:
    """BCE and Dice cost of masks at the same points for all masks (Mask2Former sec. 3.3).

    Decoder outputs are sampled one by one: sampling all together would need a copy, which takes
    three times as long on a CPU.

    Args:
        mask_logits: For each of K outputs, (Q, T, h, w).
        target_masks: (N, T, H, W), in [0, 1].
        points: (P, 2), (x, y) in [0, 1].
        mask_weight: Weight of BCE.
        dice_weight: Weight of Dice.

    Returns:
        (K, Q, N), float32.
    """
    labels = sample_points(target_masks.float(), points[None].expand(len(target_masks), -1, -1))
    labels = labels.flatten(1)
    costs = []
    for of_layer in mask_logits:
        logits = sample_points(of_layer.float(), points[None].expand(len(of_layer), -1, -1))
        logits = logits.flatten(1)
        bce = pairwise_bce(logits, labels)
        costs.append(mask_weight * bce + dice_weight * pairwise_dice(logits.sigmoid(), labels))
    return torch.stack(costs)


def teacher_costs(
    mask_logits: Sequence[Tensor], teacher_masks: Tensor, confidence: Tensor
) -> Tensor:
    """Dice cost of masks with a teacher's, over the frames in which the teacher has one.

    Args:
        mask_logits: For each of K outputs, (Q, T, h, w).
        teacher_masks: (N, T, H, W), in [0, 1]; H and W are h and w times a whole number.
        confidence: Weight of each frame, (N, T); 0 where there is no mask.

    Returns:
        (K, Q, N), float32, in [0, 1); 0 for an object without any mask.

    Example:
        >>> logits = torch.tensor([[[[99.0, -99.0]]], [[[-99.0, 99.0]]]])  # two queries
        >>> teacher_costs([logits], torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1)).tolist()
        [[[0.0], [0.6666666269302368]]]
    """
    height, width = mask_logits[0].shape[-2:]
    masks = teacher_masks.float()
    if masks.shape[-2:] != (height, width):
        masks = F.avg_pool2d(masks, masks.shape[-1] // width)
    labels = (masks * confidence[..., None, None]).flatten(1)  # (N, T * h * w)
    costs = []
    for of_layer in mask_logits:
        probs = of_layer.float().sigmoid()
        overlap = probs.flatten(1) @ labels.T
        total = probs.sum((-2, -1)) @ confidence.T + labels.sum(-1)
        costs.append(1 - (2 * overlap + 1) / (total + 1))
    return torch.stack(costs)


def query_of_object(
    matches: Sequence[Sequence[Match]], targets: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """Query of each object at each output, (K, objects of all clips), int64; -1: no query."""
    sizes = [len(target["labels"]) for target in targets]
    table = torch.full((len(matches), sum(sizes)), -1)
    for row, of_layer in zip(table, matches, strict=True):
        start = 0
        for (queries, objects), size in zip(of_layer, sizes, strict=True):
            row[start + objects] = queries
            start += size
    return table


class VideoHungarianMatcher(nn.Module):
    """Minimum-cost assignment of queries to object tracks.

    In a clip supervised by masks the cost is class + BCE + Dice (Mask2Former); in a clip supervised
    by boxes it is class + Dice of the box tubes (MaskFreeVIS), computed in closed form, and on
    request Dice with a teacher's masks.
    """

    def __init__(
        self,
        *,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        num_points: int,
        nonfinite_cost: str = "error",
        teacher_weight: float = 0.0,
    ) -> None:
        """Keep the weights of the costs.

        Args:
            class_weight: Weight of the negative class probability.
            mask_weight: Weight of BCE (objects with masks).
            dice_weight: Weight of Dice.
            num_points: Number of points for masks; for boxes it only sets the smoothing constant.
            nonfinite_cost: For NaN and Inf: "error" raises a NumericError; "replace" matches such
                pairs last and counts them in ``num_replaced``.
            teacher_weight: Weight of Dice with a teacher's masks (objects with boxes).
        """
        super().__init__()
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points
        self.nonfinite_cost = nonfinite_cost
        self.teacher_weight = teacher_weight
        self.num_replaced = 0

    def extra_repr(self) -> str:
        """Text with the weights, for ``print(model)``."""
        return (
            f"class={self.class_weight}, mask={self.mask_weight}, dice={self.dice_weight}, "
            f"points={self.num_points}"
        )

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        node = cfg.MODEL.MASK_FORMER
        return {
            "class_weight": node.CLASS_WEIGHT,
            "mask_weight": node.MASK_WEIGHT,
            "dice_weight": node.DICE_WEIGHT,
            "num_points": node.TRAIN_NUM_POINTS,
            "nonfinite_cost": cfg.MODEL.MASKFREE.MATCHER.NONFINITE_COST,
            "teacher_weight": cfg.MODEL.MASKFREE.TEACHER.MATCH_WEIGHT,
        }

    @torch.no_grad()
    def forward(
        self,
        layers: list[dict[str, Tensor]],
        targets: list[dict[str, Tensor]],
        image_size: tuple[int, int],
    ) -> list[list[Match]]:
        """Match every decoder output with the objects of its clip.

        Args:
            layers: K decoder outputs with ``pred_logits`` (B, Q, C+1) and ``pred_masks`` (B, Q, T,
            h, w).
            targets: B dicts (``targets.build_targets``).
            image_size: (H, W) of the padded input.

        Returns:
            For each output and clip, indices of the queries and of their objects, int64 on the
            CPU, both of length min(Q, N).

        Raises:
            NumericError: A cost is NaN or Inf; names the output, the clip and the tensor.
        """
        # imported here: SciPy takes longer to import than all the rest of the package
        from scipy.optimize import linear_sum_assignment

        sizes = [len(target["labels"]) for target in targets]
        if sum(sizes) == 0:
            empty = torch.zeros(0, dtype=torch.int64)
            return [[(empty, empty)] * len(targets) for _ in layers]
        of_boxes = [i for i, target in enumerate(targets) if sizes[i] and "masks" not in target]
        boxes = dict(zip(of_boxes, _predicted_boxes(layers, of_boxes), strict=True))
        costs = [
            self._costs(layers, target, clip, boxes.get(clip), image_size)
            for clip, target in enumerate(targets)
            if sizes[clip]
        ]
        # (K, Q, objects of all clips): the only copy from the device to the CPU
        table = torch.cat(costs, dim=-1).cpu().numpy()
        self._check(table, layers, sizes)
        starts = np.cumsum([0, *sizes])
        matches = []
        for cost in table:
            of_layer = []
            for clip in range(len(targets)):
                rows, cols = linear_sum_assignment(cost[:, starts[clip] : starts[clip + 1]])
                of_layer.append((torch.from_numpy(rows), torch.from_numpy(cols)))
            matches.append(of_layer)
        return matches

    def _costs(
        self,
        layers: list[dict[str, Tensor]],
        target: dict[str, Tensor],
        clip: int,
        boxes: Tensor | None,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Costs of one clip, (K, Q, N); ``boxes`` (K, Q, T, 4) only with box supervision."""
        logits = torch.stack([layer["pred_logits"][clip] for layer in layers]).float()
        cost = -self.class_weight * logits.softmax(-1)[..., target["labels"]]
        masks = [layer["pred_masks"][clip] for layer in layers]
        if boxes is not None:
            stride = image_size[0] // masks[0].shape[-2]
            cost = cost + self.dice_weight * box_dice_cost(
                boxes, target["boxes"], image_size, stride, self.num_points
            )
            if self.teacher_weight > 0 and "teacher_masks" in target:
                teacher = target["teacher_masks"], target["teacher_confidence"]
                cost = cost + self.teacher_weight * teacher_costs(masks, *teacher)
            return cost
        points = torch.rand(self.num_points, 2, device=cost.device)
        weights = self.mask_weight, self.dice_weight
        return cost + mask_costs(masks, target["masks"], points, *weights)

    def _check(self, table: np.ndarray, layers: list[dict[str, Any]], sizes: list[int]) -> None:
        """Raise an error for costs that are not finite, or replace them in ``table``, in place."""
        is_bad = ~np.isfinite(table)
        if not is_bad.any():
            return
        if self.nonfinite_cost == "replace":
            count = int(is_bad.sum())
            self.num_replaced += count
            logging.getLogger(__name__).warning(
                "%d matching costs are not finite and were replaced (%d so far).",
                count,
                self.num_replaced,
            )
            table[is_bad] = _REPLACEMENT
            return
        layer, _, column = (int(index[0]) for index in np.nonzero(is_bad))
        clip = int(np.searchsorted(np.cumsum(sizes), column, side="right"))
        names = [
            name
            for name in ("pred_logits", "pred_masks")
            if not bool(torch.isfinite(layers[layer][name][clip]).all())
        ]
        output = "the last decoder output" if layer == 0 else f"aux_outputs[{layer - 1}]"
        raise NumericError(
            f"Matching cost of {output}, clip {clip} of the batch, is not finite; expected finite "
            f"predictions, got NaN or Inf in {' and '.join(names) or 'the targets'}. Lower "
            "SOLVER.BASE_LR, or switch SOLVER.AMP.ENABLED off."
        )


def _predicted_boxes(layers: list[dict[str, Tensor]], clips: list[int]) -> Tensor:
    """Tight boxes of the masks of some clips at all outputs, (clips, K, Q, T, 4), int64 cells."""
    masks = [layer["pred_masks"] for layer in layers]
    lead = len(clips), len(layers), *masks[0].shape[1:3]
    rows = masks[0].new_empty(*lead, masks[0].shape[-2])
    cols = masks[0].new_empty(*lead, masks[0].shape[-1])
    for place, clip in enumerate(clips):
        for layer, of_layer in enumerate(masks):
            mask_projections(of_layer[clip], out=(rows[place, layer], cols[place, layer]))
    return boxes_from_projections(rows, cols)
