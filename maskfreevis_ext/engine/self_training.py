"""Self-training: an average of the model's own weights is the teacher of clips with boxes.

Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017 (arXiv:1703.01780), for the
average. Its masks are believed as far as they agree with the given boxes and over time.
Shape letters: N objects of a clip, T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskfreevis_ext.engine.ema import FollowWeights, copy_for_average
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.losses.hypotheses import tight_box_ious
from maskfreevis_ext.modeling.matcher import query_of_object
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from maskfreevis_ext.modeling.targets import build_targets
from maskfreevis_ext.ops.boxes import box_profiles

Batch = list[dict[str, Any]]


@dataclass(frozen=True)
class SelfTrainingSettings:
    """The keys of ``MODEL.MASKFREE.SELF_TRAINING``; see docs/config.md."""

    decay: float = 0.998
    start_iter: int = 500
    box_iou: float = 0.8
    steadiness: float = 0.7

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of the class."""
        node = cfg.MODEL.MASKFREE.SELF_TRAINING
        return {
            "decay": node.DECAY,
            "start_iter": node.START_ITER,
            "box_iou": node.BOX_IOU,
            "steadiness": node.STEADINESS,
        }


def agreement(
    mask_logits: Tensor, boxes: Tensor, stride: int, least_iou: float, least_steadiness: float
) -> Tensor:
    """How far masks agree with the given boxes, and over time.

    Args:
        mask_logits: (N, T, h, w).
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent.
        stride: Pixels per cell.
        least_iou: Least IoU of the mask's tight box with the given box.
        least_steadiness: Least share of the box that a mask fills in any frame that agrees, as a
            share of the largest one.

    Returns:
        (N, T): the IoU of the boxes where both are reached, else 0.

    Example:
        >>> logits = torch.full((1, 1, 2, 4), -1.0)
        >>> logits[..., :2] = 1
        >>> agreement(logits, torch.tensor([[[0.0, 0, 8, 8]]]), 4, 0.8, 0.7)
        tensor([[1.]])
    """
    ious, _ = tight_box_ious(mask_logits, boxes, stride)
    agrees = ious >= least_iou
    rows, cols = box_profiles(boxes, (mask_logits.shape[-2], mask_logits.shape[-1]), stride)
    area = rows.sum(-1) * cols.sum(-1)
    fill = (mask_logits > 0).sum((-2, -1)) / area.clamp(min=0.5)
    lowest = fill.masked_fill(~agrees, torch.inf).amin(1, keepdim=True)
    highest = (fill * agrees).amax(1, keepdim=True)
    return ious * (agrees & (lowest >= least_steadiness * highest))


class EmaTeacher:
    """A copy of the model whose weights follow it slowly, and which adds its masks to clips.

    Attributes:
        model: The copy, in evaluation mode.
        is_active: Whether it teaches yet.
    """

    def __init__(self, model: nn.Module, settings: SelfTrainingSettings) -> None:
        """Copy the model.

        Args:
            model: The ``VideoMaskFormer`` that is trained, without a wrapper for several processes.
            settings: When it teaches, and what it must agree with.

        Raises:
            ConfigError: The model is of another kind.
        """
        if not isinstance(model, VideoMaskFormer):
            raise ConfigError(
                "MODEL.META_ARCHITECTURE: expected VideoMaskFormer with "
                f"MODEL.MASKFREE.SELF_TRAINING.ENABLED, got {type(model).__name__}."
            )
        self.model = copy_for_average(model)
        self.settings = settings
        self.is_active = False

    def teach(self, batch: Batch) -> Batch:
        """The batch, in which clips supervised by boxes have the teacher's masks.

        Args:
            batch: Samples of the mapper; they are not changed. Clips that have masks, or a teacher
                already, stay as they are.
        """
        return [self._taught(s) if s["supervision"] == "box" else s for s in batch]

    def _taught(self, sample: dict[str, Any]) -> dict[str, Any]:
        if not len(sample["tracks"]["labels"]):
            return sample
        masks, confidence = self.masks_of(sample)
        own = {"teacher_masks": masks.cpu(), "teacher_confidence": confidence.cpu()}
        return {**sample, "supervision": "teacher", "tracks": {**sample["tracks"], **own}}

    @torch.no_grad()
    def masks_of(self, sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Masks of the given objects, (N, T, H, W) bool, and their confidence, (N, T).

        The query of an object is the one that the matcher gives it by class and boxes. The heads
        choose among its masks and rate them; the confidence is ``agreement`` times this rating.

        Args:
            sample: A clip supervised by boxes.
        """
        outputs, sizes = self.model.predict(sample)
        targets = build_targets([sample], sizes.padded_size, self.model.device)
        alone = {name: outputs[name][None] for name in ("pred_logits", "pred_masks")}
        matches = self.model.criterion.matcher([alone], targets, sizes.padded_size)
        queries = query_of_object(matches, targets)[0].to(self.model.device)
        logits, factor = self.model.rate(outputs, queries.clamp(min=0))
        stride = sizes.padded_size[0] // logits.shape[-2]
        settings = self.settings
        confidence = agreement(
            logits.float(), targets[0]["boxes"], stride, settings.box_iou, settings.steadiness
        )
        confidence = confidence * factor[:, None] * (queries >= 0)[:, None]
        masks = (logits > 0).repeat_interleave(stride, -2).repeat_interleave(stride, -1)
        height, width = sizes.frame_size
        return masks[..., :height, :width], confidence


class TaughtBatches:
    """A loader whose batches have passed the teacher, once it is active."""

    def __init__(self, loader: Iterable[Batch], teacher: EmaTeacher) -> None:
        """Keep both; the batches of ``loader`` are lists of samples of the mapper."""
        self.loader, self.teacher = loader, teacher

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield self.teacher.teach(batch) if self.teacher.is_active else batch


class FollowModel(FollowWeights):
    """Lets the teacher follow the model after each step; its weights are part of checkpoints."""

    def __init__(self, teacher: EmaTeacher) -> None:
        """Keep the teacher."""
        super().__init__(teacher.model, teacher.settings.decay)
        self.teacher = teacher

    def before_step(self) -> None:
        """Teach from START_ITER on."""
        self.teacher.is_active = self.trainer.iter >= self.teacher.settings.start_iter

    def state_dict(self) -> dict[str, Any]:
        """The weights of the teacher."""
        return {"teacher": self.model.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the weights of a checkpoint."""
        self.model.load_state_dict(state_dict["teacher"])
        self.is_restored = True
