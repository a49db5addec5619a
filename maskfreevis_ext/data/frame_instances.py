"""Objects of a clip as Detectron2 ``Instances``, one per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from detectron2.structures import BitMasks, Boxes, Instances


class FrameInstances(Sequence[Instances]):
    """The T ``Instances`` of a clip; each is created from the tracks when it is accessed.

    It is for Detectron2 code that expects ``instances``; this package's models use the tracks. All
    T ``Instances`` have the same N rows in the same order:

    * ``gt_classes`` int64 (N,): class of the track, also in frames without it.
    * ``gt_ids`` int64 (N,): id of the annotation; -1 where the object is absent from the frame.
    * ``gt_boxes`` ``Boxes`` (N, 4), float32 xyxy pixels; zeros where absent.
    * ``gt_masks`` ``BitMasks`` (N, H, W), only where the tracks have masks, or a teacher's; empty
      where absent.
    * ``gt_confidence`` float32 (N,), only with a teacher: 0 where it has no mask.

    The fields are views of the tracks. Accessing the same frame twice gives two ``Instances``.
    """

    def __init__(self, tracks: dict[str, torch.Tensor], image_size: tuple[int, int]) -> None:
        """Keep the tracks.

        Args:
            tracks: ``tracks`` of a sample of ``YTVISDatasetMapper``.
            image_size: (H, W) of the frames, pixels.
        """
        self.tracks, self.image_size = tracks, image_size

    def __len__(self) -> int:
        return self.tracks["ids"].shape[1]

    @overload
    def __getitem__(self, index: int) -> Instances: ...

    @overload
    def __getitem__(self, index: slice) -> list[Instances]: ...

    def __getitem__(self, index: int | slice) -> Instances | list[Instances]:
        if isinstance(index, slice):
            return [self[t] for t in range(*index.indices(len(self)))]
        frame = Instances(self.image_size)
        frame.gt_classes = self.tracks["labels"]
        frame.gt_ids = self.tracks["ids"][:, index]
        frame.gt_boxes = Boxes(self.tracks["boxes"][:, index])
        if "masks" in self.tracks:
            frame.gt_masks = BitMasks(self.tracks["masks"][:, index])
        elif "teacher_masks" in self.tracks:
            frame.gt_masks = BitMasks(self.tracks["teacher_masks"][:, index])
            frame.gt_confidence = self.tracks["teacher_confidence"][:, index]
        return frame
