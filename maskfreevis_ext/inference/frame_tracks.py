"""The objects of one frame, as ``VideoPredictor.stream`` gives them: plain arrays.

Shape letters: K objects, (H, W) size of the frame.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from maskfreevis_ext.data.boxes import tight_box
from maskfreevis_ext.errors import ConfigError, NumericError
from maskfreevis_ext.tracks import Item, make_label


@dataclass(frozen=True)
class FrameTracks:
    """The objects that are visible in one frame, the highest score first.

    Attributes:
        index: Index of the frame in the video, from 0.
        track_ids: Ids from 1, equal in all frames of an object, (K,) int64.
        labels: Contiguous classes from 0, (K,) int64.
        scores: Scores in [0, 1], from this frame and those before it, (K,) float32.
        masks: (K, H, W) bool; each has a pixel.
        extras: What auxiliary heads say of the frame, such as ``dynamic_mask``, by name.
        class_names: Name of each class, not of each object; None where it is unknown.
    """

    index: int
    track_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    extras: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check the scores.

        Raises:
            NumericError: A score is NaN or infinite.
        """
        if not np.isfinite(self.scores).all():
            raise NumericError(
                f"Frame {self.index}: expected finite scores, got {self.scores.tolist()}. Are the"
                " weights finite, and the frames those that the model was trained for?"
            )

    def __len__(self) -> int:
        return len(self.track_ids)

    @property
    def names(self) -> list[str] | None:
        """Class name of each object; None where the names are unknown."""
        if self.class_names is None:
            return None
        return [self.class_names[label] for label in self.labels]

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes of the masks, (x0, y0, x1, y1) in pixels, (K, 4) float32.

        Pixel i covers [i, i + 1]: a mask of columns 3 ... 5 has x0 = 3 and x1 = 6.
        """
        boxes = np.zeros((len(self), 4), np.float32)
        for box, mask in zip(boxes, self.masks, strict=True):
            box[:] = tight_box(mask) or (0, 0, 0, 0)
        return boxes

    def select(self, min_score: float = 0.0, labels: Collection[int] | None = None) -> FrameTracks:
        """Select objects; they keep their ids.

        Args:
            min_score: Objects with a lower score are left out.
            labels: Classes to keep; None keeps all.
        """
        is_kept = self.scores >= min_score
        if labels is not None:
            is_kept &= np.isin(self.labels, list(labels))
        return replace(
            self,
            track_ids=self.track_ids[is_kept],
            labels=self.labels[is_kept],
            scores=self.scores[is_kept],
            masks=self.masks[is_kept],
        )

    def items(self, class_names: Sequence[str] | None = None) -> list[Item]:
        """The objects to draw, the highest score last, so that it is on top.

        The colour of an object follows from its id, and so does not change from frame to frame.

        Args:
            class_names: Name of each label, instead of ``self.class_names``; a label without a name
                is written as "class 3".
        """
        names = class_names or self.class_names or ()
        items = []
        for k in reversed(range(len(self))):
            label, track_id = int(self.labels[k]), int(self.track_ids[k])
            name = names[label] if 0 <= label < len(names) else f"class {label}"
            text = make_label(name, track_id, float(self.scores[k]))
            items.append(Item(track_id, text, self.masks[k]))
        return items

    def to_supervision(self) -> Any:
        """The objects as ``supervision.Detections``, for annotators, zones, trackers and writers.

        Returns:
            ``Detections`` with xyxy, mask, confidence, class_id and tracker_id, and with
            ``data["class_name"]`` where the names are known.

        Raises:
            ConfigError: The package supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ConfigError(
                "FrameTracks.to_supervision: expected the package supervision, got"
                f" {type(error).__name__}: {error}. Install it: pip install"
                " 'maskfreevis_ext[supervision]'."
            ) from error
        names = self.names
        return Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=self.track_ids,
            data={} if names is None else {"class_name": np.array(names)},
        )
