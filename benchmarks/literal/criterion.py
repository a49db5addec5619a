"""The box-supervised criterion in the structure of the reference, easy to compare with the paper.

It copies every neighbourhood by unfold, repeats the similarity maps for every object, computes the
losses one decoder output after the other, estimates the Dice of two boxes from sampled points, and
fills the boxes of all queries. Written from the formulas of MaskFreeVIS (arXiv:2303.15904); a test
compares it with stored values of the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskfreevis_ext.ops.color import rgb_to_lab

from .matching import dice_matrix, sample

#: Queries and objects that are assigned to each other, two index vectors of the same length.
Match = tuple[Tensor, Tensor]


def unfold(x: Tensor, dilation: int, with_center: bool) -> Tensor:
    """3x3 neighbourhoods (n, c, 8 or 9, h, w) of (n, c, h, w) with zeros outside."""
    n, c, h, w = x.shape
    copies = F.unfold(x, 3, dilation=dilation, padding=dilation).view(n, c, 9, h, w)
    if with_center:
        return copies
    return torch.cat((copies[:, :, :4], copies[:, :, 5:]), dim=2)


def color_similarity(lab: Tensor) -> Tensor:
    """exp(-d / 2) of a frame (1, 3, h, w) with its 8 neighbours at distance 2, (1, 8, h, w)."""
    return torch.exp(-0.5 * torch.norm(lab[:, :, None] - unfold(lab, 2, False), dim=1))


def patch_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Similarity of the 3x3 patches of ``second`` with 9 patches of ``first``, (1, 9, h, w)."""
    patches = [unfold(frame, 1, True).flatten(1, 2) for frame in (first, second)]
    return torch.exp(-0.5 * torch.norm(patches[1][:, :, None] - unfold(patches[0], 3, True), dim=1))


def similarities(frames: Tensor, pairs: list[tuple[int, int]]) -> tuple[Tensor, list[Tensor]]:
    """Colour similarities (B, T, 8, h, w), and patch similarities (B, 9, h, w) of each pair."""
    spatial: list[Tensor] = []
    temporal: list[list[Tensor]] = [[] for _ in pairs]
    for clip in frames:
        labs = [rgb_to_lab(F.avg_pool2d(frame[None], 4).floor()[0].flip(0))[None] for frame in clip]
        spatial.append(torch.cat([color_similarity(lab) for lab in labs]))
        for index, (a, b) in enumerate(pairs):
            temporal[index].append(patch_similarity(labs[a], labs[b]))
    return torch.stack(spatial), [torch.cat(pair) for pair in temporal]


def box_maps(masks: Tensor) -> Tensor:
    """Masks (..., h, w) as filled tight boxes, by running sums over both axes."""

    def filled(present: Tensor) -> Tensor:
        forward = present.float().cumsum(-1) > 0
        backward = present.float().flip(-1).cumsum(-1).flip(-1) > 0
        return forward & backward

    rows, cols = filled(masks.any(-1)), filled(masks.any(-2))
    return (rows[..., :, None] & cols[..., None, :]).float()


@torch.no_grad()
def match(
    logits: Tensor, masks: Tensor, labels: Tensor, target: Tensor, points: Tensor
) -> tuple[Tensor, Tensor]:
    """Assignment of a clip at an output: ``masks`` (Q, T, h, w), filled boxes (N, T, H, W)."""
    predictions = sample(box_maps(masks.sigmoid() > 0.5), points).flatten(1)
    wanted = sample(target, points).flatten(1)
    cost = 5 * dice_matrix(predictions, wanted) - 2 * logits.softmax(-1)[:, labels]
    rows, cols = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows), torch.as_tensor(cols)


def same_label_term(anchor: Tensor, others: Tensor, dilation: int, with_center: bool) -> Tensor:
    """-log P(same label) of ``anchor`` with the neighbourhood of ``others``; (n, 1, h, w) both."""
    fg, bg = F.logsigmoid(anchor), F.logsigmoid(-anchor)
    fg_all = unfold(F.logsigmoid(others), dilation, with_center)
    bg_all = unfold(F.logsigmoid(-others), dilation, with_center)
    same_fg, same_bg = fg[:, :, None] + fg_all, bg[:, :, None] + bg_all
    largest = torch.max(same_fg, same_bg)
    total = torch.log(torch.exp(same_fg - largest) + torch.exp(same_bg - largest)) + largest
    return -total[:, 0]


def projection_term(probs: Tensor, target: Tensor) -> Tensor:
    """Dice of both projections of (n, 1, h, w), mean over n."""
    total = probs.new_zeros(len(probs))
    for dim in (2, 3):
        x, y = probs.max(dim)[0].flatten(1), target.max(dim)[0].flatten(1)
        total = total + 1 - 2 * (x * y).sum(1) / ((x * x).sum(1) + (y * y).sum(1) + 1e-5)
    return total.mean()


def layer_losses(
    masks: Tensor,
    target: Tensor,
    spatial: Tensor,
    temporal: list[Tensor],
    pairs: list[tuple[int, int]],
) -> dict[str, Tensor]:
    """Box losses of one decoder output.

    Args:
        masks: Mask logits of the matched queries, (N, T, h, w).
        target: Filled boxes of the objects, (N, T, H, W).
        spatial: Colour similarities, repeated for every object, (N, T, 8, h, w).
        temporal: Patch similarities, repeated for every object, E x (N, 9, h, w).
        pairs: E frame pairs (a, b).
    """
    if len(masks) == 0:
        zero = masks.sum() * 0
        return {"loss_mask_proj": zero, "loss_bound": zero, "loss_bound_neighbor": zero}
    h, w = masks.shape[-2:]
    small = F.interpolate(target, (h, w), mode="bilinear", align_corners=False)
    flat, flat_target = masks.flatten(0, 1)[:, None], small.flatten(0, 1)[:, None]
    weight = (spatial.flatten(0, 1) >= 0.3).float() * flat_target
    term = same_label_term(flat, flat, 2, False)
    inside = unfold(torch.ones_like(flat), 2, False)[:, 0]
    bound = (term * weight * inside).sum() / weight.sum().clamp(min=1)

    union = (small.sum(1, keepdim=True) >= 1).float()
    neighbor = masks.new_zeros(())
    for (a, b), similarity in zip(pairs, temporal, strict=True):
        values, indices = similarity.topk(5, dim=1)
        kept = torch.zeros_like(similarity).scatter(1, indices, values)
        weight = (kept >= 0.05).float() * union
        term = same_label_term(masks[:, b : b + 1], masks[:, a : a + 1], 3, True)
        inside = unfold(torch.ones_like(masks[:, :1]), 3, True)[:, 0]
        neighbor = neighbor + (term * weight * inside).sum() / weight.sum().clamp(min=1)
    return {
        "loss_mask_proj": projection_term(flat.sigmoid(), flat_target),
        "loss_bound": bound,
        "loss_bound_neighbor": 0.1 * neighbor,
    }


def class_loss(
    logits: Tensor, matches: Sequence[Match], targets: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """Weighted cross-entropy of one output, (B, Q, C+1)."""
    num_classes = logits.shape[-1] - 1
    classes = torch.full(logits.shape[:2], num_classes, device=logits.device)
    for clip, (rows, cols) in enumerate(matches):
        classes[clip, rows] = targets[clip]["labels"][cols]
    weight = torch.ones(num_classes + 1, device=logits.device)
    weight[-1] = 0.1
    return F.cross_entropy(logits.transpose(1, 2), classes, weight)


def literal_losses(
    outputs: dict,
    targets: Sequence[Mapping[str, Tensor]],
    frames: Tensor,
    pairs: list[tuple[int, int]],
    num_points: int = 20_000,
    matches: Sequence[Sequence[Match]] | None = None,
) -> dict[str, Tensor]:
    """Unweighted losses of every output, with the names of the criterion and no warm-up.

    Args:
        outputs: ``pred_logits``, ``pred_masks``, ``aux_outputs``.
        targets: B dicts with ``labels`` and ``masks`` (N, T, H, W).
        frames: (B, T, 3, H, W), values in [0, 255].
        pairs: Frame pairs (a, b).
        num_points: Points of the matching.
        matches: Assignment to use instead.
    """
    spatial, temporal = similarities(frames, pairs)
    losses = {}
    for layer, output in enumerate([outputs, *outputs.get("aux_outputs", [])]):
        filled = [box_maps(target["masks"]) for target in targets]
        of_layer: Sequence[Match]
        if matches is None:
            of_layer = [
                match(
                    output["pred_logits"][clip],
                    output["pred_masks"][clip].detach(),
                    target["labels"],
                    filled[clip],
                    torch.rand(num_points, 2, device=frames.device),
                )
                for clip, target in enumerate(targets)
            ]
        else:
            of_layer = matches[layer]
        clips = torch.cat([torch.full_like(rows, clip) for clip, (rows, _) in enumerate(of_layer)])
        masks = output["pred_masks"][clips, torch.cat([rows for rows, _ in of_layer])]
        target = torch.cat([filled[clip][cols] for clip, (_, cols) in enumerate(of_layer)])
        suffix = f"_{layer - 1}" if layer else ""
        losses["loss_ce" + suffix] = class_loss(output["pred_logits"], of_layer, targets)
        of_objects = [pair[clips] for pair in temporal]
        for name, value in layer_losses(masks, target, spatial[clips], of_objects, pairs).items():
            losses[name + suffix] = value
    return losses
