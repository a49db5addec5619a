"""Masks that are known in some frames, such as corrected ones: labels of the pixel head there.

N objects, M networks of an object, K frames of a step, T frames, S x S cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.pseudo.windows import ObjectWindows

_EPS = 1.0  # cell; of the Dice loss of an empty mask


@dataclass(frozen=True)
class KnownMasks:
    """Known masks in the windows of the objects.

    Attributes:
        labels: Share of each cell that the mask covers, (N, T, S, S) float32 in [0, 1]; zeros where
            it is not known.
        is_known: (N, T) bool.
    """

    labels: Tensor
    is_known: Tensor

    @classmethod
    def of(
        cls, masks: Mapping[tuple[int, int], np.ndarray], windows: ObjectWindows
    ) -> KnownMasks | None:
        """Bring masks into the windows of their objects.

        Args:
            masks: Mask (H, W) bool by (object, frame).
            windows: Windows of the N objects.

        Returns:
            The masks; None if there is none.
        """
        if not masks:
            return None
        count, length = windows.boxes.shape[:2]
        labels = torch.zeros(count, length, windows.grid, windows.grid)
        is_known = torch.zeros(count, length, dtype=torch.bool)
        for (index, frame), mask in masks.items():
            fine = windows.crop(mask.astype(np.float32), index, frame, 4 * windows.grid)
            small = cv2.resize(fine, (windows.grid, windows.grid), interpolation=cv2.INTER_AREA)
            labels[index, frame] = torch.from_numpy(small)
            is_known[index, frame] = True
        return cls(labels, is_known)

    def select(self, objects: Sequence[int], frames: slice) -> KnownMasks | None:
        """The masks of some objects and frames; None if none is known."""
        chosen = list(objects)
        part = KnownMasks(self.labels[chosen, frames], self.is_known[chosen, frames])
        return part if part.is_known.any() else None

    def put_into(self, draws: Sequence[Tensor], step: int) -> None:
        """Make the first of an object's frames of a step one whose mask is known, each in turn.

        Args:
            draws: Frames (K,) of each object; changed in place.
            step: Number of the step.
        """
        for row, draw in zip(self.is_known, draws, strict=True):
            frames = row.nonzero()[:, 0]
            if len(frames):
                draw[0] = frames[step % len(frames)]

    def losses(self, losses: Tensor, logits: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        """Put the loss of the mask in place of that of the box where the mask is known.

        Cross-entropy and Dice loss, as Mask2Former has them.

        Args:
            losses: Of boxes, (M, N, K).
            logits: (M, N, K, S, S).
            chosen: Indices of objects (N, 1) and of frames (N, K).

        Returns:
            (M, N, K).
        """
        labels = self.labels[chosen].expand_as(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        probability = logits.sigmoid()
        shared = 2 * (probability * labels).sum((-1, -2)) + _EPS
        dice = 1 - shared / ((probability + labels).sum((-1, -2)) + _EPS)
        return torch.where(self.is_known[chosen], 5 * entropy.mean((-1, -2)) + 5 * dice, losses)
