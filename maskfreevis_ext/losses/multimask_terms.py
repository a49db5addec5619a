"""Loss terms of the multimask head: the best hypothesis is trained, and the ratings of all.

Ravi et al., "SAM 2", 2024 (arXiv:2408.00714), appendix D. With a multimask head these terms replace
the point-sampled mask terms. Shape letters: K decoder outputs, M extra hypotheses, N objects, T
frames, (h, w) map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.losses.hypotheses import (
    BEST,
    HYPOTHESES,
    Hypotheses,
    shrink_masks,
    tight_box_ious,
)
from maskfreevis_ext.losses.multimask import (
    IOUS_KEY,
    MASKS_KEY,
    SCORES_KEY,
    MultiStepMultiMasksAndIous,
    mask_iou,
    sigmoid_focal,
)
from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.ops.hypotheses import ABSENT_LOGIT


@dataclass(frozen=True)
class MultimaskSettings:
    """The keys of ``MODEL.MULTIMASK`` that the loss terms use; see docs/config.md."""

    mask_weight: float
    dice_weight: float
    focal_alpha: float
    focal_gamma: float
    supervise_all_iou: bool
    iou_l1: bool
    obj_gamma: float
    obj_alpha: float
    iou_from_boxes: bool
    iou_from_teacher: bool
    overwrite_absent: bool
    normalize: bool

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of the class."""
        node = cfg.MODEL.MULTIMASK
        loss = node.LOSS
        return {
            "mask_weight": loss.MASK,
            "dice_weight": loss.DICE,
            "focal_alpha": loss.FOCAL_ALPHA,
            "focal_gamma": loss.FOCAL_GAMMA,
            "supervise_all_iou": loss.SUPERVISE_ALL_IOU,
            "iou_l1": loss.IOU_L1,
            "obj_gamma": loss.OBJ_GAMMA,
            "obj_alpha": loss.OBJ_ALPHA,
            "iou_from_boxes": node.IOU_TARGET != "mask",
            "iou_from_teacher": node.IOU_TARGET == "teacher",
            "overwrite_absent": node.NO_OBJ_OVERWRITE_IN_TRAIN,
            "normalize": loss.NORM_STEPS_FRAMES,
        }

    def scale(self, num_steps: int, num_frames: int) -> float:
        """Factor on sums: 1 / (outputs x frames) with ``normalize``, else 1."""
        return 1.0 / (num_steps * num_frames) if self.normalize else 1.0


class HypothesisTerm(LossTerm):
    """Base class of the terms of mask hypotheses: a sum over objects and frames, as in SAM 2.

    For objects supervised by masks all four terms are computed together, by SAM 2's loss. Objects
    supervised by boxes train only the ratings here; their masks are trained by the box terms.
    """

    def __init__(self, weight: float, settings: MultimaskSettings) -> None:
        """Keep the weight and the settings."""
        super().__init__(weight)
        self.settings = settings

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        settings = MultimaskSettings(**MultimaskSettings.from_config(cfg))
        return {**super().from_config(cfg), "settings": settings}

    def counts(self, scene: Scene) -> Tensor:
        """Number of objects of both kinds of supervision, (K, 1)."""
        num_outputs, num_objects = scene.queries.shape
        return scene.anchor.new_full((num_outputs, 1), float(num_objects))

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Sum over the objects of both kinds of supervision divided by their number, (K,)."""
        hypotheses: Hypotheses = scene.given(HYPOTHESES)
        of_masks = scene.once("terms of masks", lambda: self._of_masks(hypotheses, scene))
        value = of_masks[self.name]
        if scene.boxes is not None:
            of_boxes = scene.once(
                "hypotheses of boxes", lambda: hypotheses.of_clips(scene.with_boxes)
            )
            value = value + self.of_boxes(of_boxes, scene)
        scale = self.settings.scale(len(hypotheses.logits), hypotheses.logits.shape[3])
        return value * scale / normalizers[:, 0] + scene.anchor

    def of_boxes(self, hypotheses: Hypotheses, scene: Scene) -> Tensor:
        """Sum over the objects supervised by boxes, (K,); 0 in the base class."""
        return scene.anchor

    def _of_masks(self, hypotheses: Hypotheses, scene: Scene) -> dict[str, Tensor]:
        """Sums of all four terms over the objects supervised by masks, (K,) each."""
        found = hypotheses.of_clips(scene.with_masks)
        masks = [scene.targets[clip]["masks"] for clip in scene.with_masks]
        stride = masks[0].shape[-1] // found.logits.shape[-1] if masks else 1
        small = [shrink_masks(mask, stride) for mask in masks]
        empty = found.logits.new_zeros(0, *found.logits.shape[3:])
        return sam2_sums(found, torch.cat(small) if small else empty, self.settings)


class HypothesisMaskTerm(HypothesisTerm):
    """Focal loss of the best hypothesis of each object supervised by masks."""

    name = "loss_mask"
    row = "MODEL.MULTIMASK.LOSS.MASK"


class HypothesisDiceTerm(HypothesisTerm):
    """Dice loss of the best hypothesis of each object supervised by masks."""

    name = "loss_dice"
    row = "MODEL.MULTIMASK.LOSS.DICE"


class IoUTerm(HypothesisTerm):
    """Error of the predicted IoU.

    The true IoU compares the mask with the true mask or, for an object supervised by boxes, with
    the mask of a teacher (on request) or the tight box of the mask with the given box.
    """

    name = "loss_iou"
    row = "MODEL.MULTIMASK.LOSS.IOU"

    def of_boxes(self, hypotheses: Hypotheses, scene: Scene) -> Tensor:
        """Error of the predicted IoUs in the frames that show the object, summed, (K,)."""
        objects = scene.boxes
        if objects is None or not self.settings.iou_from_boxes:
            return scene.anchor
        target, has_cells = tight_box_ious(hypotheses.logits, objects.boxes, objects.stride)
        if self.settings.iou_from_teacher and objects.teacher is not None:
            of_teacher = mask_iou(hypotheses.logits, objects.teacher.maps >= 0.5)
            target = torch.where(objects.teacher.confidence > 0, of_teacher.to(target), target)
        error = hypotheses.ious - target
        error = error.abs() if self.settings.iou_l1 else error.square()
        if self.settings.supervise_all_iou:
            error = error.mean(1)
        else:
            best: Tensor = scene.given(BEST)
            error = error.take_along_dim(best[:, None, :, None], 1)[:, 0]
        error = error * (objects.is_present & has_cells)
        return (error * hypotheses.is_matched[..., None]).flatten(1).sum(1)


class PresenceTerm(HypothesisTerm):
    """Focal loss of the object score, which tells in which frames the object is present."""

    name = "loss_class"
    row = "MODEL.MULTIMASK.LOSS.CLASS"

    def of_boxes(self, hypotheses: Hypotheses, scene: Scene) -> Tensor:
        """Focal loss of the object scores, summed, (K,); plain BCE by default."""
        scores, objects = hypotheses.scores, scene.boxes
        if scores is None or objects is None:
            return scene.anchor
        target = objects.is_present.to(scores.dtype).expand_as(scores)
        bce = sigmoid_focal(
            scores.reshape(-1, 1),
            target.reshape(-1, 1),
            self.settings.obj_alpha,
            self.settings.obj_gamma,
        )
        return (bce.view_as(scores) * hypotheses.is_matched[..., None]).flatten(1).sum(1)


MULTIMASK_TERMS: tuple[type[HypothesisTerm], ...] = (
    HypothesisMaskTerm,
    HypothesisDiceTerm,
    IoUTerm,
    PresenceTerm,
)


def sam2_sums(
    hypotheses: Hypotheses, targets: Tensor, settings: MultimaskSettings
) -> dict[str, Tensor]:
    """SAM 2's four losses of objects supervised by masks, summed over objects and frames.

    Args:
        hypotheses: Hypotheses of the N objects.
        targets: True masks at the resolution of the logits, (N, T, h, w), bool.
        settings: Settings of the terms.

    Returns:
        ``loss_mask``, ``loss_dice``, ``loss_iou``, ``loss_class``, (K,) each: sums without weights
        and without division by the number of objects.
    """
    names = [term.name for term in MULTIMASK_TERMS]
    if len(targets) == 0:
        return dict.fromkeys(names, hypotheses.anchor)
    loss = MultiStepMultiMasksAndIous(
        {"loss_mask": settings.mask_weight, "loss_dice": settings.dice_weight, "loss_iou": 0.0},
        focal_alpha=settings.focal_alpha,
        focal_gamma=settings.focal_gamma,
        supervise_all_iou=settings.supervise_all_iou,
        iou_use_l1_loss=settings.iou_l1,
        pred_obj_scores=hypotheses.scores is not None,
        focal_gamma_obj_score=settings.obj_gamma,
        focal_alpha_obj_score=settings.obj_alpha,
    )
    masks, ious = hypotheses.all_masks(), hypotheses.ious.transpose(1, 2)
    per_layer = []
    for k, is_matched in enumerate(hypotheses.is_matched):
        scores = None if hypotheses.scores is None else hypotheses.scores[k]
        of_layer, of_layer_ious, of_targets = masks[k], ious[k], targets
        if not hypotheses.all_matched:
            keep = is_matched.nonzero()[:, 0]
            of_layer, of_layer_ious, of_targets = of_layer[keep], of_layer_ious[keep], targets[keep]
            scores = None if scores is None else scores[keep]
        outputs = _as_steps(of_layer, of_layer_ious, scores, settings.overwrite_absent)
        terms = loss(outputs, of_targets.transpose(0, 1), num_objects=1.0)
        per_layer.append(torch.stack([terms[name] for name in names]))
    values = torch.stack(per_layer, dim=1) + hypotheses.anchor
    return dict(zip(names, values, strict=True))


def _as_steps(
    masks: Tensor, ious: Tensor, scores: Tensor | None, overwrite_absent: bool
) -> list[dict[str, list[Tensor]]]:
    """Outputs of one layer in the form that SAM 2's loss takes: T dicts, lists with one step.

    Args:
        masks: (N, M + 1, T, h, w).
        ious: (N, M + 1, T).
        scores: (N, T) or None.
        overwrite_absent: Make a mask empty where its object score says "absent".
    """
    if overwrite_absent and scores is not None:
        is_absent = scores.detach()[:, None, :, None, None] <= 0
        masks = masks.masked_fill(is_absent, ABSENT_LOGIT)
    frames = []
    for t, (mask, iou) in enumerate(zip(masks.unbind(2), ious.unbind(2), strict=True)):
        frame = {MASKS_KEY: [mask], IOUS_KEY: [iou]}
        if scores is not None:
            frame[SCORES_KEY] = [scores[:, t, None]]
        frames.append(frame)
    return frames
