"""A batch as the loss terms see it: decoder outputs, targets, and who was matched with whom.

Shape letters: K decoder outputs (the last one first), B clips, Q queries, C classes, N objects of
several clips in one list, T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from maskfreevis_ext.losses.affinities import Affinities
from maskfreevis_ext.losses.matched_masks import (
    MatchedMasks,
    clip_of_object,
    columns_of_clips,
    matched_masks,
    zero_anchor,
)
from maskfreevis_ext.losses.teacher_masks import TeacherMasks
from maskfreevis_ext.ops.boxes import box_profiles
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.reduce import send
from maskfreevis_ext.ops.similarity import valid_cells

Made = TypeVar("Made")


class _Shared:
    """Stores values that several loss terms share, by key."""

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return {}

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """The value of ``key``; the first call computes it with ``make``."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def give(self, key: str, value: object) -> None:
        """Store a value for the loss terms."""
        self._kept[key] = value

    def given(self, key: str) -> Any:
        """The value that a head stored under ``key``.

        Raises:
            RuntimeError: There is none, because the head that stores it is missing.
        """
        if key not in self._kept:
            raise RuntimeError(f"a loss term needs {key!r}, which no head has stored in the scene")
        return self._kept[key]


@dataclass(frozen=True)
class BoxObjects(_Shared):
    """The objects of the clips supervised by boxes.

    Attributes:
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent. The losses are computed
            in the dtype of the boxes.
        clips: Index of each object's clip in ``affinities``, (N,), int64.
        affinities: Colour edges and temporal matches of those clips.
        map_size: (h, w) of the mask logits.
        stride: Pixels per cell of the masks.
        all_matched: Whether each object has a query at every output; known on the CPU, so that
            nobody waits for the GPU.
        teacher: Masks of a teacher; None where no clip has any.
        frame_sizes: (height, width) of each clip without its padding, pixels; empty: no padding.
    """

    boxes: Tensor
    clips: Tensor
    affinities: Affinities
    map_size: tuple[int, int]
    stride: int
    all_matched: bool = True
    teacher: TeacherMasks | None = None
    frame_sizes: Sequence[tuple[int, int]] = ()

    @property
    def is_present(self) -> Tensor:
        """Frames in which the object has a box, (N, T), bool."""
        return (self.boxes[..., 2:] > self.boxes[..., :2]).all(-1)

    @cached_property
    def profiles(self) -> tuple[Tensor, Tensor]:
        """Coverage of the rows (N, T, h) and columns (N, T, w) by the box, values in [0, 1]."""
        return box_profiles(self.boxes, self.map_size, self.stride)

    @cached_property
    def maps(self) -> Tensor:
        """Filled boxes, (N, T, h, w), values in [0, 1]."""
        rows, cols = self.profiles
        return rows[..., :, None] * cols[..., None, :]

    @cached_property
    def in_frame(self) -> Tensor:
        """Cells of the frame, not of its padding, (N, 1, h, w), bool."""
        if not self.frame_sizes:
            return torch.ones_like(self.maps[:, :1], dtype=torch.bool)
        cells = valid_cells(self.frame_sizes, self.map_size, self.stride, self.boxes.device)
        return cells[self.clips][:, None]


@dataclass(eq=False)
class Scene(_Shared):
    """The input of the loss terms in one training step.

    Attributes:
        layers: K decoder outputs with ``pred_logits`` (B, Q, C+1) and ``pred_masks`` (B, Q, T, h,
            w). Where the masks have no graph, each output also has ``mask_embed``, and the first
            one ``mask_features``.
        targets: B dicts (``modeling.targets.build_targets``).
        queries: Query of each object at each output, (K, N), int64, -1 where it has none.
        all_matched: Whether ``queries`` has no -1; known on the CPU, without waiting for the GPU.
        class_weights: Weight of each class in the cross-entropy, (C+1,).
        iteration: Training steps done, this one included, (1,).
        image_size: (H, W) of the padded input.
        boxes: The objects supervised by boxes; None where there are none.
        batch: The B dicts of the mapper, for heads that read more than the targets.
    """

    layers: Sequence[Mapping[str, Tensor]] = ()
    targets: Sequence[dict[str, Tensor]] = ()
    queries: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    all_matched: bool = True
    class_weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    iteration: Tensor = field(default_factory=lambda: torch.ones(1))
    image_size: tuple[int, int] = (0, 0)
    boxes: BoxObjects | None = None
    batch: Sequence[dict[str, Any]] = ()

    @cached_property
    def clips(self) -> Tensor:
        """Index of each object's clip, (N,), int64, ascending, on the CPU."""
        return clip_of_object(self.targets)

    @cached_property
    def with_masks(self) -> list[int]:
        """Indices of the clips supervised by masks."""
        return [i for i, target in enumerate(self.targets) if "masks" in target]

    @cached_property
    def with_boxes(self) -> list[int]:
        """Indices of the clips supervised by boxes."""
        return [i for i, target in enumerate(self.targets) if "masks" not in target]

    @cached_property
    def anchor(self) -> Tensor:
        """A zero for each decoder output, with a gradient path, (K,)."""
        return zero_anchor(self.layers)

    def is_matched(self, clips: list[int]) -> Tensor:
        """Whether each object of the given clips has a query, float, (K, objects)."""
        columns = send(columns_of_clips(self.clips, clips), self.queries.device)
        return (self.queries.index_select(1, columns) >= 0).to(self.anchor.dtype)

    @cached_property
    def _matched(self) -> MatchedMasks:
        return matched_masks(self.layers, self.clips, self.queries, self.anchor)

    @cached_property
    def box_masks(self) -> MatchedMasks:
        """Masks of the objects supervised by boxes; a head may replace them."""
        return self._matched.of_clips(self.with_boxes)

    @cached_property
    def mask_masks(self) -> MatchedMasks:
        """Masks of the objects supervised by masks."""
        return self._matched.of_clips(self.with_masks)

    @cached_property
    def classes(self) -> Tensor:
        """Target class of each query, (K, B, Q), int64; C means "no object"."""
        num_clips, num_queries, num_classes = self.layers[0]["pred_logits"].shape
        # one extra slot receives the objects without a query
        classes = torch.full(
            (len(self.layers), num_clips, num_queries + 1),
            num_classes - 1,
            device=self.queries.device,
        )
        start = 0
        for clip, target in enumerate(self.targets):
            labels = target["labels"].expand(len(self.layers), -1)
            of_clip = self.queries[:, start : start + labels.shape[1]]
            start += labels.shape[1]
            classes[:, clip].scatter_(1, of_clip.where(of_clip >= 0, num_queries), labels)
        return classes[..., :num_queries]

    @cached_property
    def class_logits(self) -> Tensor:
        """Class logits of all outputs, (K, B, Q, C+1), float32 at least."""
        return at_least_float32(torch.stack([layer["pred_logits"] for layer in self.layers]))
