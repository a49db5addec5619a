"""Losses of the spatial mask: from masks where they exist, else from boxes or not at all.

Shape letters: B clips, T frames, V views (absent in most models), (h, w) cells of the head, (H, W)
pixels of the targets, F = B * T (* V) frames in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.spatial_boxes import box_supervision_loss, require_shape
from maskfreevis_ext.losses.spatial_sums import (
    bce_sum,
    dice_sum,
    temporal_sums,
    variation_sums,
)
from maskfreevis_ext.losses.term import LossTerm, shared_normalizers, weighted_losses

_TV_SHARE = 0.1  # weight of loss_spatial_tv / TV_WEIGHT
_TEMPORAL_SHARE = 0.05  # weight of loss_spatial_temporal / TV_WEIGHT
_AUTO_POS_WEIGHT = (1.0, 100.0)  # least and largest POS_WEIGHT "auto"


@dataclass(frozen=True)
class SpatialMaskLossSettings:
    """The keys of ``MODEL.SPATIAL_MASK.LOSS``; the config checks their values.

    Attributes:
        weight: Weight of ``loss_spatial_mask`` and ``loss_spatial_box``.
        dice: Weight of the Dice loss inside ``loss_spatial_mask``; 0: no Dice loss.
        use_tv: Add ``loss_spatial_tv``, which smooths the probabilities.
        tv_weight: 0.1 of it is the weight of ``loss_spatial_tv``, 0.05 of it the weight of
            ``loss_spatial_temporal``.
        use_temporal: Add ``loss_spatial_temporal``, for a camera that stands still.
        box_mode: Supervision of frames with boxes only: none ("skip") or the boxes ("weak").
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

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of the class; ``POS_WEIGHT`` 0 is "auto"."""
        node = cfg.MODEL.SPATIAL_MASK.LOSS
        return {
            "weight": node.WEIGHT,
            "dice": node.DICE,
            "use_tv": node.USE_TV,
            "tv_weight": node.TV_WEIGHT,
            "use_temporal": node.USE_TEMPORAL,
            "box_mode": node.BOX_MODE,
            "box_negatives": node.BOX_NEGATIVES,
            "pos_weight": node.POS_WEIGHT or "auto",
        }


@dataclass(frozen=True)
class WeakBoxTargets:
    """Box targets of the frames without masks.

    Attributes:
        boxes: One tensor (n, 4) per frame, F of them; xyxy in pixels of the targets' (H, W) grid.
            n may be 0; a box that is empty or outside the frame is left out.
        box_frames: Frames supervised by their boxes, (B, T) or (B, T, V), bool. False for frames
            with masks, which say more.
        valid: Pixels that are not padding, bool, shape of the targets (..., H, W).
    """

    boxes: Sequence[Tensor]
    box_frames: Tensor
    valid: Tensor


def _check_shapes(
    mask_logits: Tensor, target: Tensor, valid: Tensor, weak: WeakBoxTargets | None
) -> None:
    """Raise ValueError with the expected and the given shape, unless all shapes agree."""
    if mask_logits.dim() not in (4, 5) or target.shape[:-2] != mask_logits.shape[:-2]:
        raise ValueError(
            "mask_logits is (B, T, h, w) or (B, T, V, h, w) and target has the same leading axes, "
            f"got {tuple(mask_logits.shape)} and {tuple(target.shape)}"
        )
    lead = target.shape[:-2]
    require_shape("valid", valid, target.shape, *([lead] if len(lead) == 2 else [lead, lead[:2]]))
    if weak is not None:
        require_shape("weak.valid", weak.valid, target.shape)
        require_shape("weak.box_frames", weak.box_frames, lead)


def _resized_logits(mask_logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits resized to (B, T, V, H, W), float32 at least; V = 1 if they have no view axis."""
    logits = mask_logits if mask_logits.dtype == torch.float64 else mask_logits.float()
    if logits.dim() == 4:
        logits = logits.unsqueeze(2)
    if logits.shape[-2:] == tuple(size):
        return logits
    frames = logits.flatten(0, 2).unsqueeze(1)  # (F, 1, h, w)
    frames = F.interpolate(frames, size=tuple(size), mode="bilinear", align_corners=False)
    return frames.view(*logits.shape[:3], *size)


#: Key under which the spatial mask head stores its ``SpatialInputs`` in the scene.
SPATIAL_INPUTS = "spatial mask"


@dataclass(frozen=True)
class SpatialInputs:
    """Mask logits and targets of a batch in one shape, with V = 1 where there are no views.

    Attributes:
        resized: Logits at the size of the targets, (B, T, V, H, W), float32 at least.
        logits: ``resized``, set to 0 (without a gradient) where there is no ground truth.
        labels: Targets, 0 where there is no ground truth.
        valid: Pixels with ground truth, bool.
        weak: Box targets of the frames without masks.
    """

    resized: Tensor
    logits: Tensor
    labels: Tensor
    valid: Tensor
    weak: WeakBoxTargets | None

    @cached_property
    def probs(self) -> Tensor:
        """Sigmoid of ``logits``."""
        return self.logits.sigmoid()


def spatial_inputs(
    mask_logits: Tensor, target: Tensor, valid: Tensor, weak: WeakBoxTargets | None = None
) -> SpatialInputs:
    """Bring logits and targets of the spatial mask to the same shape.

    The arguments are those of ``compute_mask_supervision_loss``.

    Raises:
        ValueError: Shapes disagree (the message gives both).
    """
    _check_shapes(mask_logits, target, valid, weak)
    resized = _resized_logits(mask_logits, target.shape[-2:])
    valid = valid.to(torch.bool)
    if valid.dim() != target.dim():
        valid = valid.reshape(*valid.shape, *[1] * (target.dim() - valid.dim()))
    valid = valid.expand(target.shape).reshape(resized.shape)
    logits = torch.where(valid, resized, 0.0)
    labels = torch.where(valid, target.reshape(resized.shape).to(logits.dtype), 0.0)
    return SpatialInputs(resized, logits, labels, valid, weak)


class SpatialTerm(LossTerm):
    """Base class of the spatial mask's terms: one value (K = 1), a mean over valid pixels."""

    def __init__(self, settings: SpatialMaskLossSettings) -> None:
        """Keep the settings, which include the weight."""
        super().__init__(self.weight_of(settings))
        self.settings = settings

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        return {"settings": SpatialMaskLossSettings(**SpatialMaskLossSettings.from_config(cfg))}

    @staticmethod
    def weight_of(settings: SpatialMaskLossSettings) -> float:
        """Weight of the term."""
        return settings.weight

    def counts(self, scene: Scene) -> Tensor:
        """Numbers of valid pixels or pairs of each part, (1, n)."""
        inputs: SpatialInputs = scene.given(SPATIAL_INPUTS)
        counts = [count.float() for _, count in self.parts(inputs)]
        return torch.stack(counts)[None]

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Sum of the means of all parts, (1,)."""
        parts = self.parts(scene.given(SPATIAL_INPUTS))
        totals = torch.stack([total for total, _ in parts])
        return (totals / normalizers[0]).sum(0, keepdim=True)

    def floor(self, means: Tensor) -> Tensor:
        """Replace 0 by 1; a mean over processes between 0 and 1 stays as it is."""
        return torch.where(means > 0, means, 1.0)

    def parts(self, inputs: SpatialInputs) -> list[tuple[Tensor, Tensor]]:
        """The parts of the term: the sum of each, and the number of its summands."""
        raise NotImplementedError


class SpatialMaskTerm(SpatialTerm):
    """BCE between mask and target, and optionally the Dice loss of each frame."""

    name = "loss_spatial_mask"
    row = "MODEL.SPATIAL_MASK.LOSS.WEIGHT"
    num_counts = 4  # valid pixels, frames with valid pixels, foreground, background

    def counts(self, scene: Scene) -> Tensor:
        """Valid pixels, frames with valid pixels, foreground and background pixels, (1, 4)."""
        inputs: SpatialInputs = scene.given(SPATIAL_INPUTS)
        valid, labels = inputs.valid, inputs.labels
        has_valid = valid.any(-1).any(-1)
        counts = valid.sum(), has_valid.sum(), labels.sum(), (valid & (labels == 0)).sum()
        return torch.stack([count.float() for count in counts])[None]

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Mean BCE plus the weighted mean Dice loss, (1,)."""
        inputs: SpatialInputs = scene.given(SPATIAL_INPUTS)
        num_pixels, num_frames, positive, negative = normalizers[0]
        pos_weight = self.settings.pos_weight
        if pos_weight == "auto":
            factor = (negative / positive).clamp(*_AUTO_POS_WEIGHT)
        else:
            factor = torch.full_like(negative, float(pos_weight))
        logits, labels, valid = inputs.logits, inputs.labels, inputs.valid
        value = bce_sum(logits, labels, valid, factor) / num_pixels.clamp(min=1)
        if self.settings.dice > 0:
            value = value + self.settings.dice * dice_sum(logits, labels, valid) / num_frames
        return value[None]


class SpatialVariationTerm(SpatialTerm):
    """Neighbouring pixels have similar probabilities (total variation)."""

    name = "loss_spatial_tv"
    row = "MODEL.SPATIAL_MASK.LOSS.TV_WEIGHT"
    num_counts = 2

    @staticmethod
    def weight_of(settings: SpatialMaskLossSettings) -> float:
        """Weight of the term."""
        return settings.tv_weight * _TV_SHARE

    def parts(self, inputs: SpatialInputs) -> list[tuple[Tensor, Tensor]]:
        """Sums of the differences along x and along y."""
        sums = variation_sums(inputs.probs, inputs.valid)
        return [sums["dx"], sums["dy"]]


class SpatialTemporalTerm(SpatialTerm):
    """Background pixels keep their probability over time; for a camera that stands still."""

    name = "loss_spatial_temporal"
    row = "MODEL.SPATIAL_MASK.LOSS.TV_WEIGHT"

    @staticmethod
    def weight_of(settings: SpatialMaskLossSettings) -> float:
        """Weight of the term."""
        return settings.tv_weight * _TEMPORAL_SHARE

    def parts(self, inputs: SpatialInputs) -> list[tuple[Tensor, Tensor]]:
        """Sum of the changes from each frame to the next."""
        return [temporal_sums(inputs.probs, inputs.labels, inputs.valid)]


class SpatialBoxTerm(SpatialTerm):
    """``box_supervision_loss`` of the frames with boxes and without masks."""

    name = "loss_spatial_box"
    row = "MODEL.SPATIAL_MASK.LOSS.WEIGHT"

    def counts(self, scene: Scene) -> Tensor:
        """Number of frames supervised by boxes, (1, 1)."""
        inputs: SpatialInputs = scene.given(SPATIAL_INPUTS)
        if inputs.weak is None:
            return inputs.logits.new_zeros(1, 1)
        return inputs.weak.box_frames.sum().float().view(1, 1)

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Mean over the frames supervised by boxes, (1,)."""
        inputs: SpatialInputs = scene.given(SPATIAL_INPUTS)
        weak = inputs.weak
        if weak is None:
            return 0.0 * inputs.logits.sum()[None]
        value = box_supervision_loss(
            inputs.resized.flatten(0, 2),
            weak.boxes,
            weak.box_frames.flatten(),
            weak.valid.reshape(inputs.resized.shape).flatten(0, 2),
            self.settings.box_negatives,
            normalizers[0, 0],
        )
        return value[None]


def spatial_terms(settings: SpatialMaskLossSettings) -> list[LossTerm]:
    """The terms that the settings switch on; the list does not depend on the data."""
    terms: list[LossTerm] = [SpatialMaskTerm(settings)]
    if settings.use_tv:
        terms.append(SpatialVariationTerm(settings))
    if settings.use_temporal:
        terms.append(SpatialTemporalTerm(settings))
    if settings.box_mode == "weak":
        terms.append(SpatialBoxTerm(settings))
    return terms


def compute_mask_supervision_loss(
    mask_logits: Tensor,
    target: Tensor,
    valid: Tensor,
    config: SpatialMaskLossSettings,
    weak: WeakBoxTargets | None = None,
    num_valid: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Weighted losses of the spatial mask over the pixels that have ground truth.

    All are means over the valid pixels, pairs or frames of all ranks. Where nothing is valid they
    are 0 with a gradient path, so that no parameter is unused. They are computed in float32, under
    autocast too. Every rank must call this in the same steps, as it contains a collective call.

    Args:
        mask_logits: (B, T, h, w) or (B, T, V, h, w); resized to (H, W), bilinear.
        target: Masks in {0, 1}, (..., H, W) with the same leading axes, bool or float. Values at
            invalid pixels are ignored.
        valid: Pixels with ground truth, shape of ``target``, or frames with ground truth, (B, T) or
            (B, T, V); bool. False in padding and in frames that nobody annotated.
        config: Terms and weights.
        weak: Box targets of the frames without masks; used when ``box_mode`` is "weak".
        num_valid: Divisor of the BCE; None: the mean number of valid pixels over the ranks.

    Returns:
        ``loss_spatial_mask``, and ``loss_spatial_tv``, ``loss_spatial_temporal`` and
        ``loss_spatial_box`` if the settings switch them on. The keys do not depend on the data.

    Raises:
        ValueError: Shapes disagree (the message gives both).

    Example:
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
        >>> valid = torch.tensor([[True, False]])  # one frame has ground truth
        >>> settings = SpatialMaskLossSettings()
        >>> losses = compute_mask_supervision_loss(logits, target, valid, settings)
        >>> round(losses["loss_spatial_mask"].item(), 4)
        0.6931
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        scene, terms = Scene(), spatial_terms(config)
        scene.give(SPATIAL_INPUTS, spatial_inputs(mask_logits, target, valid, weak))
        normalizers = shared_normalizers(terms, scene)
        if num_valid is not None:
            normalizers[SpatialMaskTerm.name][0, 0] = num_valid
        return weighted_losses(terms, scene, normalizers)
