"""From the frames and boxes of a clip to the masks of its objects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.pseudo.features import FeatureBasis, extract_features, motion_windows
from maskfreevis_ext.pseudo.grabcut import sharpen
from maskfreevis_ext.pseudo.join import Predicted, join_predictions
from maskfreevis_ext.pseudo.known import KnownMasks
from maskfreevis_ext.pseudo.pixel_head import PixelHeadSettings, PixelNetworks, fit_pixel_head
from maskfreevis_ext.pseudo.refine import refine
from maskfreevis_ext.pseudo.windows import ObjectWindows, place_windows

_OBJECTS_TOGETHER = 2  # objects fitted at once; more do not fit the caches of a processor
_GRABCUT_ITERATIONS = 2


@dataclass(frozen=True)
class ClipMasks:
    """Masks of the N objects of a clip of T frames, kept as small maps.

    Attributes:
        frames: T frames, (H, W, 3) uint8, RGB.
        windows: Where the maps lie.
        raw: Probabilities of the pixel head, (N, T, S, S) float32.
        refined: The same after smoothing by colour.
        others: Boxes of further objects in these frames, (M, T, 4).
    """

    frames: Sequence[np.ndarray]
    windows: ObjectWindows
    raw: Tensor
    refined: Tensor
    others: np.ndarray | None = None

    def mask(self, index: int, frame: int) -> np.ndarray:
        """Mask of an object in a frame, (H, W) bool; empty where it has no box.

        GrabCut decides the uncertain pixels, unless the boxes of other objects overlap that of the
        object: they often have its colours.
        """
        probability = self._lay(self.refined, index, frame)
        boxes = self.windows.boxes[:, frame]
        if self.others is not None:
            boxes = np.concatenate([boxes, self.others[:, frame]])
        if not self.windows.is_present[index, frame] or _is_overlapped(boxes, index):
            return probability > 0.5
        return sharpen(self.frames[frame], boxes[index], probability, _GRABCUT_ITERATIONS)

    def confidence(self, index: int) -> float:
        """How decided the pixel head is about an object, in [0, 1].

        It is the IoU of its mask with its probabilities, which is the IoU to be expected if they
        were right; 0 for an object without a mask.
        """
        shared = union = 0.0
        for frame in np.flatnonzero(self.windows.is_present[index]):
            probability = self._lay(self.raw, index, int(frame))
            mask = probability > 0.5
            shared += float(probability[mask].sum())
            union += float(mask.sum() + probability[~mask].sum())
        return shared / union if union else 0.0

    def _lay(self, maps: Tensor, index: int, frame: int) -> np.ndarray:
        return self.windows.to_frame(maps[index, frame].numpy(), index, frame)


def _is_overlapped(boxes: np.ndarray, index: int) -> bool:
    """Whether one of the other boxes shares pixels with a box; boxes (N, 4)."""
    others = np.delete(boxes, index, axis=0)
    low = np.maximum(others[:, :2], boxes[index, :2])
    high = np.minimum(others[:, 2:], boxes[index, 2:])
    return bool((high > low).all(-1).any())


@dataclass(frozen=True)
class ObjectHead:
    """What was fitted to some objects: further frames of them can be started from it.

    Attributes:
        bases: Scales and projections of the features, one per object.
        networks: The networks of all of them.
    """

    bases: list[FeatureBasis]
    networks: PixelNetworks

    def split(self) -> list[ObjectHead]:
        """One for each object."""
        count = len(self.bases)
        parameters = zip(*(part.chunk(count) for part in self.networks.parameters), strict=True)
        return [
            ObjectHead([basis], self._networks(part))
            for basis, part in zip(self.bases, parameters, strict=True)
        ]

    @staticmethod
    def join(heads: Sequence[ObjectHead]) -> ObjectHead:
        """One for several objects."""
        bases = [basis for head in heads for basis in head.bases]
        parameters = zip(*(head.networks.parameters for head in heads), strict=True)
        return ObjectHead(bases, heads[0]._networks([torch.cat(parts) for parts in parameters]))

    def _networks(self, parameters: Iterable[Tensor]) -> PixelNetworks:
        networks = copy(self.networks)
        networks.parameters = [part.detach().clone().requires_grad_() for part in parameters]
        return networks


class Clip:
    """Frames of a clip and the boxes of its objects, some of which are segmented at a time.

    Args:
        frames: T frames of one size, (H, W, 3) uint8, RGB.
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty (x1 <= x0) where an object is absent. Each
            object has a box in at least one frame.
        settings: How to fit.
        known: Masks (H, W) bool that are known, by (object, frame).

    Raises:
        DataError: The frames differ in size, or their number is not that of the boxes.
    """

    def __init__(
        self,
        frames: Sequence[np.ndarray],
        boxes: np.ndarray,
        settings: PixelHeadSettings,
        known: Mapping[tuple[int, int], np.ndarray] | None = None,
    ) -> None:
        sizes = {frame.shape[:2] for frame in frames}
        if len(sizes) != 1 or len(frames) != boxes.shape[1]:
            raise DataError(
                f"expected {boxes.shape[1]} frames of one size, got {len(frames)} of the sizes "
                f"{sorted(sizes)} (height, width)."
            )
        self.frames = frames
        self.windows = place_windows(boxes, sizes.pop(), settings.grid, settings.margin)
        self.settings = settings
        self.known = KnownMasks.of(known or {}, self.windows)

    @cached_property
    def _motion(self) -> np.ndarray | None:
        return motion_windows(self.frames, self.windows) if self.settings.use_motion else None

    def groups(
        self, objects: Iterable[int] | None = None, started: Collection[int] = ()
    ) -> list[list[int]]:
        """Objects that are fitted together: a few, with boxes in about the same frames.

        Objects with known masks are apart from the others, as they are fitted in another way, and
        those that go on from another clip from those that begin.

        Args:
            objects: Which; None: all.
            started: Those that go on from another clip.
        """
        present = self.windows.is_present
        has_known = np.zeros(len(present), dtype=bool)
        if self.known is not None:
            has_known = self.known.is_known.any(1).numpy()
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for index in range(len(present)) if objects is None else objects:
            kinds.setdefault((bool(has_known[index]), index in started), []).append(index)
        groups = []
        for members in kinds.values():
            members.sort(key=lambda index: int(present[index].argmax()))
            groups += [
                sorted(members[start : start + _OBJECTS_TOGETHER])
                for start in range(0, len(members), _OBJECTS_TOGETHER)
            ]
        return groups

    def fit(
        self,
        objects: Sequence[int],
        backbone: nn.Module,
        head: ObjectHead | None = None,
        steps: int | None = None,
        predicted: Predicted | None = None,
    ) -> tuple[Tensor, Tensor, ObjectHead]:
        """Fit a pixel head to some objects.

        Args:
            objects: Their indices, n of them.
            backbone: Takes (RGB - 127) / 128, (B, 3, H, W), and gives named maps, the finest first
                at stride 4; in evaluation mode.
            head: What was fitted to the same objects in other frames, to go on from; its networks
                are changed. None: from the beginning.
            steps: Steps of the fit; None: as the settings say.
            predicted: What a trained model says about all objects of the clip.

        Returns:
            Probabilities before and after smoothing by colour, (n, T, S, S) float32 each, and what
            was fitted. Frames before the first and after the last box of the objects are zero.
        """
        chosen = list(objects)
        frames = self._span(chosen)
        windows = ObjectWindows(
            self.windows.boxes[chosen, frames],
            self.windows.places[chosen, frames],
            self.windows.frame_size,
            self.windows.grid,
        )
        known = None if self.known is None else self.known.select(chosen, frames)
        settings = replace(self.settings, steps=self.settings.steps if steps is None else steps)
        if known is not None:  # how much of its box an object fills is seen in the known masks
            settings = replace(settings, area_weight=0.0, fill_weight=0.0)
        features = extract_features(
            self.frames[frames],
            windows,
            backbone,
            settings.components,
            None if self._motion is None else self._motion[chosen, frames],
            None if head is None else head.bases,
        )
        networks = None if head is None else head.networks
        in_span = replace(
            self.windows,
            boxes=self.windows.boxes[:, frames],
            places=self.windows.places[:, frames],
        )
        others = in_span.covered_by_others(chosen)
        raw, networks = fit_pixel_head(features, windows, settings, others, known, networks)
        if predicted is not None:
            raw = join_predictions(raw, predicted.select(chosen, frames)) * windows.inside_frame()
        if known is not None:
            raw = torch.where(known.is_known[..., None, None], known.labels, raw)
        refined = refine(raw, features.lab) * windows.inside_frame()
        whole = raw.new_zeros(2, len(chosen), len(self.frames), *raw.shape[2:])
        whole[0, :, frames], whole[1, :, frames] = raw, refined
        return whole[0], whole[1], ObjectHead(features.bases, networks)

    def masks(self, objects: Sequence[int], raw: Tensor, refined: Tensor) -> ClipMasks:
        """The maps of ``fit`` with what turns them into masks.

        Args:
            objects: Their indices, n of them; in the result they are 0..n-1.
            raw: (n, T, S, S).
            refined: (n, T, S, S).
        """
        chosen = list(objects)
        others = np.delete(self.windows.boxes, chosen, axis=0)
        windows = replace(
            self.windows,
            boxes=self.windows.boxes[chosen],
            places=self.windows.places[chosen],
        )
        return ClipMasks(self.frames, windows, raw, refined, others)

    def _span(self, objects: Sequence[int]) -> slice:
        """From the first to behind the last frame in which one of the objects has a box."""
        frames = np.flatnonzero(self.windows.is_present[objects].any(0))
        return slice(int(frames[0]), int(frames[-1]) + 1) if len(frames) else slice(None)


def segment_clip(
    frames: Sequence[np.ndarray],
    boxes: np.ndarray,
    backbone: nn.Module,
    settings: PixelHeadSettings | None = None,
    known: Mapping[tuple[int, int], np.ndarray] | None = None,
) -> ClipMasks:
    """Fit a pixel head to the objects of a clip, and give their masks.

    Args:
        frames: T frames of one size, (H, W, 3) uint8, RGB.
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty (x1 <= x0) where an object is absent. Each
            object has a box in at least one frame.
        backbone: Takes (RGB - 127) / 128, (B, 3, H, W), and gives named maps, the finest first at
            stride 4; in evaluation mode. ``EfficientNetLite0`` with ImageNet weights is meant.
        settings: How to fit; None for the defaults.
        known: Masks (H, W) bool that are known, by (object, frame), such as corrected ones.

    Returns:
        The masks.

    Raises:
        DataError: The frames differ in size, or their number is not that of the boxes.
    """
    settings = settings or PixelHeadSettings()
    clip = Clip(frames, boxes, settings, known)
    shape = (*clip.windows.boxes.shape[:2], settings.grid, settings.grid)
    raw, refined = torch.zeros(shape), torch.zeros(shape)
    for group in clip.groups():
        raw[group], refined[group], _ = clip.fit(group, backbone)
    return ClipMasks(frames, clip.windows, raw, refined)
