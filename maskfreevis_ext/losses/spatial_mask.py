"""Supervision of the spatial mask: masks where they exist, boxes or nothing elsewhere.

Shape letters: B clips, T frames, V views (absent in most models), (h, w) cells of the head, (H, W)
pixels of the targets, F = B * T (* V) frames in that order, K boxes of all frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.ops.reduce import mean_over_ranks, send

from .point_mask import point_dice

_KEY = "MODEL.SPATIAL_MASK.LOSS"
_TV_SHARE = 0.1  # of TV_WEIGHT
_TEMPORAL_SHARE = 0.05  # of TV_WEIGHT
_AUTO_POS_WEIGHT = (1.0, 100.0)  # range of POS_WEIGHT "auto"


@dataclass(frozen=True)
class SpatialMaskLossSettings:
    """The keys of ``MODEL.SPATIAL_MASK.LOSS``; a wrong value raises ``ConfigError``, a ValueError.

    Attributes:
        weight: Of ``loss_spatial_mask`` and ``loss_spatial_box``.
        dice: Weight of Dice inside ``loss_spatial_mask``; 0: no Dice.
        use_tv: Whether there is ``loss_spatial_tv``, which smooths the probabilities.
        tv_weight: Scale of the spatial (x 0.1) and of the temporal (x 0.05) smoothness.
        use_temporal: Whether there is ``loss_spatial_temporal``, for a camera that stands still.
        box_mode: What frames with boxes only learn from: nothing ("skip") or the boxes ("weak").
        box_negatives: Whether pixels outside all boxes are background in the mode "weak".
        pos_weight: Weight of foreground pixels in the BCE, or "auto": background / foreground.
    """

    weight: float = 1.0
    dice: float = 0.0
    use_tv: bool = False
    tv_weight: float = 0.2
    use_temporal: bool = False
    box_mode: str = "skip"
    box_negatives: bool = True
    pos_weight: float | str = 1.0

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        return {
            "loss_spatial_mask": self.weight,
            "loss_spatial_box": self.weight,
            "loss_spatial_tv": self.tv_weight * _TV_SHARE,
            "loss_spatial_temporal": self.tv_weight * _TEMPORAL_SHARE,
        }

    def __post_init__(self) -> None:
        for name in ("weight", "dice", "tv_weight"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise _config_error(name, "a finite number >= 0", value)
        for name in ("use_tv", "use_temporal", "box_negatives"):
            if not isinstance(getattr(self, name), bool):
                raise _config_error(name, "True or False", getattr(self, name))
        if self.box_mode not in ("skip", "weak"):
            raise _config_error("box_mode", "'skip' or 'weak'", self.box_mode)
        pos_weight: Any = self.pos_weight
        if pos_weight != "auto" and not (_is_number(pos_weight) and pos_weight > 0):
            raise _config_error("pos_weight", "a finite number > 0 or 'auto'", pos_weight)

    @classmethod
    def from_config(cls, cfg: Any) -> SpatialMaskLossSettings:
        """Read the config; ``POS_WEIGHT`` 0 is "auto".

        Raises:
            ConfigError: A value is outside its range; names the key.
        """
        node = cfg.MODEL.SPATIAL_MASK.LOSS
        return cls(
            weight=node.WEIGHT,
            dice=node.DICE,
            use_tv=node.USE_TV,
            tv_weight=node.TV_WEIGHT,
            use_temporal=node.USE_TEMPORAL,
            box_mode=node.BOX_MODE,
            box_negatives=node.BOX_NEGATIVES,
            pos_weight=node.POS_WEIGHT or "auto",
        )


@dataclass(frozen=True)
class WeakBoxTargets:
    """The frames that have boxes and no masks.

    Attributes:
        boxes: One tensor (n, 4) per frame, F of them; xyxy in pixels of the targets' (H, W) grid.
            n may be 0; a box that is empty or outside the frame is left out.
        box_frames: Frames that learn from their boxes, (B, T) or (B, T, V), bool. False where a
            frame has masks: those say more.
        valid: Pixels that are not padding, (..., H, W) as the targets, bool.
    """

    boxes: Sequence[Tensor]
    box_frames: Tensor
    valid: Tensor


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _config_error(name: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{_KEY}.{name.upper()} is {expected}, got {value!r}")


def _require_shape(name: str, value: Tensor, *expected: Sequence[int]) -> None:
    """Raise ValueError unless the shape is one of ``expected``."""
    if tuple(value.shape) not in [tuple(shape) for shape in expected]:
        shapes = " or ".join(str(tuple(shape)) for shape in expected)
        raise ValueError(f"{name} must have the shape {shapes}, got {tuple(value.shape)}")


def _check_shapes(
    mask_logits: Tensor, target: Tensor, valid: Tensor, weak: WeakBoxTargets | None
) -> None:
    """Raise ValueError, with the shapes that were expected and given, unless all agree."""
    if mask_logits.dim() not in (4, 5) or target.shape[:-2] != mask_logits.shape[:-2]:
        raise ValueError(
            "mask_logits is (B, T, h, w) or (B, T, V, h, w) and target has the same leading axes, "
            f"got {tuple(mask_logits.shape)} and {tuple(target.shape)}"
        )
    lead = target.shape[:-2]
    _require_shape("valid", valid, target.shape, *([lead] if len(lead) == 2 else [lead, lead[:2]]))
    if weak is not None:
        _require_shape("weak.valid", weak.valid, target.shape)
        _require_shape("weak.box_frames", weak.box_frames, lead)


def _resized_logits(mask_logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (B, T, V, H, W) in float32, or float64 if they were; V = 1 if there was none."""
    logits = mask_logits if mask_logits.dtype == torch.float64 else mask_logits.float()
    if logits.dim() == 4:
        logits = logits.unsqueeze(2)
    if logits.shape[-2:] == tuple(size):
        return logits
    frames = logits.flatten(0, 2).unsqueeze(1)  # (F, 1, h, w)
    frames = F.interpolate(frames, size=tuple(size), mode="bilinear", align_corners=False)
    return frames.view(*logits.shape[:3], *size)


def _shared(counts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of each count over the ranks, in one call; 1 instead of 0, so that it can divide.

    The names must depend on the settings only: every rank has to send the same number of counts.
    """
    means = mean_over_ranks(torch.stack([count.float() for count in counts.values()]))
    return dict(zip(counts, torch.where(means > 0, means, 1.0), strict=True))


def variation_sums(probs: Tensor, valid: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Sum and number of the differences between horizontal and vertical neighbours.

    Args:
        probs: (..., H, W), in [0, 1].
        valid: Same shape, bool; a pair counts where both pixels are valid.

    Returns:
        "dx" and "dy", each a sum of absolute differences and the number of pairs.
    """
    pair_x = valid[..., 1:] & valid[..., :-1]
    pair_y = valid[..., 1:, :] & valid[..., :-1, :]
    change_x = (probs[..., 1:] - probs[..., :-1]).abs()
    change_y = (probs[..., 1:, :] - probs[..., :-1, :]).abs()
    return {
        "dx": (torch.where(pair_x, change_x, 0.0).sum(), pair_x.sum()),
        "dy": (torch.where(pair_y, change_y, 0.0).sum(), pair_y.sum()),
    }


def temporal_sums(probs: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the changes from each frame to the next where the first is background; and its pairs.

    Foreground pixels add 0 to the sum and count as pairs, so sum / pairs is the mean of
    |p_t - p_{t+1}| (1 - y_t). Nothing is warped: only a still camera fits.

    Args:
        probs: (B, T, ..., H, W), in [0, 1].
        labels: Same shape, in {0, 1}.
        valid: Same shape, bool; a pair counts where both pixels are valid.

    Returns:
        Two scalars; 0 with a gradient path, and 0, when T < 2.
    """
    pair = valid[:, 1:] & valid[:, :-1]
    change = (probs[:, 1:] - probs[:, :-1]).abs() * (1 - labels[:, :-1])
    return torch.where(pair, change, 0.0).sum(), pair.sum()


def _axis_range(start: Tensor, end: Tensor, length: int) -> Tensor:
    """Pixels of one axis whose centre lies in [start, end), (K, length), bool.

    An interval that meets the frame but holds no centre has the pixel around its middle.
    """
    start, end = start.clamp(0, length), end.clamp(0, length)
    centre = torch.arange(length, device=start.device, dtype=start.dtype) + 0.5
    inside = (centre >= start[:, None]) & (centre < end[:, None])
    middle = ((start + end) / 2).floor().clamp(max=length - 1)
    at_middle = (centre - 0.5) == middle[:, None]
    fallback = at_middle & (end > start)[:, None]
    return torch.where(inside.any(-1, keepdim=True), inside, fallback)


def _stack_boxes(boxes: Sequence[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of the boxes of all frames, (K, H, W), bool, and the frame of each, (K,)."""
    height, width = logits.shape[-2:]
    if len(boxes) != len(logits):
        raise ValueError(f"boxes has {len(boxes)} entries, but there are {len(logits)} frames")
    for i, box in enumerate(boxes):
        if box.dim() != 2 or box.shape[1] != 4:
            raise ValueError(f"boxes[{i}] must have the shape (n, 4), got {tuple(box.shape)}")
    frame = [i for i, box in enumerate(boxes) for _ in range(len(box))]
    if not frame:
        return (
            torch.zeros(0, height, width, dtype=torch.bool, device=logits.device),
            torch.zeros(0, dtype=torch.long, device=logits.device),
        )
    x0, y0, x1, y1 = torch.cat(list(boxes)).to(logits.device, torch.float32).unbind(-1)
    columns, rows = _axis_range(x0, x1, width), _axis_range(y0, y1, height)
    area = rows[:, :, None] & columns[:, None, :]
    return area, send(torch.tensor(frame), logits.device)


def _mean_cost_of_best(logits: Tensor, inside: Tensor, dim: int) -> Tensor:
    """BCE to 1 of the largest logit inside along ``dim``, mean over the lines that have one, (K,).

    Equal logits share the gradient: a head that starts with one value everywhere gets it evenly.
    """
    exists = inside.any(dim)
    best = logits.masked_fill(~inside, -torch.inf).amax(dim)
    cost = torch.where(exists, F.softplus(-torch.where(exists, best, 0.0)), 0.0)
    return cost.sum(-1) / exists.sum(-1).clamp(min=1)


def box_supervision_loss(
    logits: Tensor,
    boxes: Sequence[Tensor],
    box_frames: Tensor,
    inside_valid: Tensor,
    box_negatives: bool = True,
    num_frames: Tensor | float | None = None,
) -> Tensor:
    """Hold a mask to its boxes: each row and column of a box has foreground, the rest has none.

    Per frame: BCE to 1 of the largest logit in each row and in each column of a box, mean over
    rows + mean over columns, mean over the boxes; plus BCE to 0 outside all boxes, mean over those
    pixels. The projections are those of BoxInst (Tian et al., CVPR 2021, arXiv:2012.02310); as they
    are maxima, boxes may overlap.

    Args:
        logits: (F, H, W).
        boxes: F tensors (n, 4), xyxy in pixels; pixel i covers [i, i + 1] and is inside when its
            centre is. A box that meets the frame has at least one pixel.
        box_frames: Frames that count, (F,), bool.
        inside_valid: Pixels that are not padding, (F, H, W), bool.
        box_negatives: Whether the pixels outside count. Not where unlabelled objects may be.
        num_frames: Frames to divide by; None: those of ``box_frames``.

    Returns:
        Scalar; 0 with a gradient path if no frame counts.

    Raises:
        ValueError: Shapes disagree.
    """
    if logits.dim() != 3:
        raise ValueError(f"logits must have the shape (F, H, W), got {tuple(logits.shape)}")
    _require_shape("inside_valid", inside_valid, logits.shape)
    _require_shape("box_frames", box_frames, logits.shape[:1])
    area, frame = _stack_boxes(boxes, logits)
    usable = inside_valid & box_frames[:, None, None]
    logits = torch.where(usable, logits, 0.0)

    inside = area & usable[frame]
    of_frame = logits[frame]  # (K, H, W)
    per_box = _mean_cost_of_best(of_frame, inside, -1) + _mean_cost_of_best(of_frame, inside, -2)
    empty = logits.new_zeros(len(logits))
    num_boxes = empty.index_add(0, frame, inside.any(-1).any(-1).to(logits.dtype))
    per_frame = empty.index_add(0, frame, per_box) / num_boxes.clamp(min=1)
    if box_negatives:
        covered = torch.zeros_like(logits).index_add(0, frame, area.to(logits.dtype)) > 0
        outside = usable & ~covered
        cost = torch.where(outside, F.softplus(logits), 0.0).sum((-2, -1))
        per_frame = per_frame + cost / outside.sum((-2, -1)).clamp(min=1)
    if num_frames is None:
        num_frames = box_frames.sum().clamp(min=1)
    return per_frame.sum() / num_frames


def _bce_sum(logits: Tensor, labels: Tensor, valid: Tensor, pos_weight: Tensor) -> Tensor:
    """BCE summed over the valid pixels."""
    bce = F.binary_cross_entropy_with_logits(
        logits, labels, reduction="none", pos_weight=pos_weight.to(logits.dtype)
    )
    return torch.where(valid, bce, 0.0).sum()


def _dice_sum(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Dice of each frame over its valid pixels, summed; a frame without any gives 0."""
    logits = logits.masked_fill(~valid, -torch.inf)  # probability 0 without gradient
    return point_dice(logits.flatten(-2), labels.flatten(-2)).sum()


def compute_mask_supervision_loss(
    mask_logits: Tensor,
    target: Tensor,
    valid: Tensor,
    config: SpatialMaskLossSettings,
    weak: WeakBoxTargets | None = None,
    num_valid: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Losses of the spatial mask, weighted, over the pixels that have ground truth.

    All are means over the valid pixels, pairs or frames of all ranks. Where nothing is valid they
    are 0 with a gradient path, so that no parameter is unused. The arithmetic is in float32, also
    under autocast. Every rank must call this in the same steps: it reduces once over the ranks.

    Args:
        mask_logits: (B, T, h, w) or (B, T, V, h, w); resized to (H, W), bilinear.
        target: Masks in {0, 1}, (..., H, W) with the same leading axes, bool or float. Any value
            where not valid.
        valid: Pixels with ground truth, shape of ``target``, or frames with ground truth, (B, T) or
            (B, T, V); bool. False in padding and in frames that nobody annotated.
        config: Terms and weights.
        weak: Frames with boxes only; read when ``box_mode`` is "weak".
        num_valid: Pixels to divide the BCE by; None: the mean of their number over the ranks.

    Returns:
        ``loss_spatial_mask``; ``loss_spatial_tv``, ``loss_spatial_temporal`` and
        ``loss_spatial_box`` where the settings ask for them, whatever the batch holds.

    Raises:
        ValueError: Shapes disagree (the message gives both).
    """
    _check_shapes(mask_logits, target, valid, weak)
    with torch.autocast(mask_logits.device.type, enabled=False):
        resized = _resized_logits(mask_logits, target.shape[-2:])
        valid = valid.to(torch.bool)
        if valid.dim() != target.dim():
            valid = valid.reshape(*valid.shape, *[1] * (target.dim() - valid.dim()))
        valid = valid.expand(target.shape).reshape(resized.shape)
        # before anything else, so that neither value nor gradient can come from other pixels
        logits = torch.where(valid, resized, 0.0)
        labels = torch.where(valid, target.reshape(resized.shape).to(logits.dtype), 0.0)
        weak = weak if config.box_mode == "weak" else None
        return _weighted_losses(resized, logits, labels, valid, config, weak, num_valid)


def _weighted_losses(
    resized: Tensor,
    logits: Tensor,
    labels: Tensor,
    valid: Tensor,
    config: SpatialMaskLossSettings,
    weak: WeakBoxTargets | None,
    num_valid: Tensor | float | None,
) -> dict[str, Tensor]:
    """``compute_mask_supervision_loss`` of (B, T, V, H, W); ``logits`` is 0 where not valid."""
    probs = logits.sigmoid()
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    if config.dice > 0:
        sums["dice"] = _dice_sum(logits, labels, valid), valid.any(-1).any(-1).sum()
    if config.use_tv:
        sums.update(variation_sums(probs, valid))
    if config.use_temporal:
        sums["temporal"] = temporal_sums(probs, labels, valid)
    counts = {name: count for name, (_, count) in sums.items()}
    counts |= {
        "valid": valid.sum(),
        "positive": labels.sum(),
        "negative": (valid & (labels == 0)).sum(),
    }
    if config.box_mode == "weak":
        counts["box_frames"] = valid.new_zeros(()) if weak is None else weak.box_frames.sum()
    counts = _shared(counts)
    means = {name: total / counts[name] for name, (total, _) in sums.items()}

    if config.pos_weight == "auto":
        pos_weight = (counts["negative"] / counts["positive"]).clamp(*_AUTO_POS_WEIGHT)
    else:
        pos_weight = logits.new_full((), config.pos_weight)
    pixels = torch.as_tensor(counts["valid"] if num_valid is None else num_valid).clamp(min=1)
    mask_loss = _bce_sum(logits, labels, valid, pos_weight) / pixels.to(logits.device)
    if config.dice > 0:
        mask_loss = mask_loss + config.dice * means["dice"]
    losses = {"loss_spatial_mask": config.weight * mask_loss}
    if config.use_tv:
        losses["loss_spatial_tv"] = config.tv_weight * _TV_SHARE * (means["dx"] + means["dy"])
    if config.use_temporal:
        losses["loss_spatial_temporal"] = config.tv_weight * _TEMPORAL_SHARE * means["temporal"]
    if config.box_mode == "weak" and weak is None:
        losses["loss_spatial_box"] = 0.0 * logits.sum()
    elif weak is not None:
        losses["loss_spatial_box"] = config.weight * box_supervision_loss(
            resized.flatten(0, 2),
            weak.boxes,
            weak.box_frames.flatten(),
            weak.valid.reshape(resized.shape).flatten(0, 2),
            config.box_negatives,
            counts["box_frames"],
        )
    return losses
