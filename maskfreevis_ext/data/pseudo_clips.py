"""Clips made from one image: a window drifts over it and it turns, as if a camera moved.

The motion is a smooth one between two random ends; the frames of the clip are where it is at their
times in [0, 1]. All other parameters (sizes, flip, colours) are drawn once per clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from maskfreevis_ext.data.augmentation import (
    ClipAugmentation,
    keeps_boxes_tight,
    random_colors,
    random_crop,
    random_flip,
    random_resize,
)

#: Degrees at the ends of the rotation, and range of its centre in parts of the image.
_ANGLE = 15.0
_CENTER = (0.4, 0.6)
#: Shorter sides, and longest side, of an image that a window of a size in pixels drifts over.
_CROP_SIZES, _CROP_LONGEST = [400, 500, 600], 1333
#: Paths of the window that are drawn before a clip of boxes gets none.
_DRAWS = 10


class PseudoClipAugmentation:
    """Makes the frames of a clip from one image, by INPUT.PSEUDO."""

    def __init__(self, cfg: CfgNode) -> None:
        """Read the config.

        Args:
            cfg: The config: INPUT.PSEUDO, INPUT.RANDOM_FLIP and INPUT.FORMAT.

        Raises:
            ConfigError: A key has a value that is not known.
        """
        node = cfg.INPUT.PSEUDO
        self.crop: T.RandomCrop | None = None
        if node.CROP.ENABLED:
            self.crop = random_crop(node.CROP.TYPE, node.CROP.SIZE, "INPUT.PSEUDO.CROP")
        resize = random_resize(
            node.MIN_SIZE_TRAIN,
            node.MIN_SIZE_TRAIN_SAMPLING,
            node.MAX_SIZE_TRAIN,
            "INPUT.PSEUDO",
        )
        self.steps = ClipAugmentation(
            [
                resize,
                *random_flip(cfg),
                *random_colors(node.AUGMENTATIONS, cfg.INPUT.FORMAT),
            ]
        )
        self.rotates = "rotation" in node.AUGMENTATIONS

    def __call__(
        self, image: np.ndarray, times: Sequence[float], boxes: np.ndarray | None
    ) -> tuple[list[np.ndarray], list[T.TransformList]]:
        """Make a clip.

        Args:
            image: (H, W, 3) uint8.
            times: Of the T frames, in [0, 1].
            boxes: Boxes of the objects, (N, 4), xyxy pixels, if nothing but they say the extent of
                the objects. Then the clip does not turn, because a turned box is too large, and the
                window's path keeps them tight (``keeps_boxes_tight``). None: there are masks.

        Returns:
            T images of one size, and T lists of transforms for their boxes and masks.
        """
        starts = self._windows(image, times, boxes)
        cut = [start.apply_image(image) for start in starts]
        frames, shared = self.steps(cut)
        turns = self._turns(frames[0], times) if self.rotates and boxes is None else None
        if turns is not None:
            frames = [turn.apply_image(x) for turn, x in zip(turns, frames, strict=True)]
        transforms = [T.TransformList([start, shared]) for start in starts]
        if turns is not None:
            transforms = [both + turn for both, turn in zip(transforms, turns, strict=True)]
        return frames, transforms

    def _windows(
        self, image: np.ndarray, times: Sequence[float], boxes: np.ndarray | None
    ) -> list[T.Transform]:
        """What cuts the window out of the image at each time; half of the clips show all of it."""
        nothing: list[T.Transform] = [T.NoOpTransform() for _ in times]
        if self.crop is None or np.random.rand() < 0.5:
            return nothing
        crop, resize = self.crop, T.NoOpTransform()
        if crop.crop_type.startswith("absolute"):
            resize = T.ResizeShortestEdge(_CROP_SIZES, _CROP_LONGEST, "choice").get_transform(image)
        image = resize.apply_image(image)
        size = image.shape[0], image.shape[1]
        boxes = None if boxes is None else resize.apply_box(boxes)
        for _ in range(_DRAWS):
            height, width = crop.get_crop_size(size)
            ends = np.random.randint((size[0] - height + 1, size[1] - width + 1), size=(2, 2))
            corners = [np.rint(ends[0] + (ends[1] - ends[0]) * time).astype(int) for time in times]
            cuts = [T.CropTransform(int(x), int(y), int(width), int(height)) for y, x in corners]
            if (
                boxes is None
                or len(boxes) == 0
                or all(
                    keeps_boxes_tight(one.apply_box(boxes), (int(height), int(width)))
                    for one in cuts
                )
            ):
                return [T.TransformList([resize, one]) for one in cuts]
        return nothing

    @staticmethod
    def _turns(frame: np.ndarray, times: Sequence[float]) -> list[T.Transform]:
        height, width = frame.shape[:2]
        x, y = np.random.uniform(*_CENTER, size=2)
        side = np.random.choice([-1.0, 1.0])
        return [
            T.RotationTransform(
                height,
                width,
                side * _ANGLE * (2 * time - 1),
                expand=False,
                center=(width * x, height * y),
            )
            for time in times
        ]
