"""Tracks of a video: predictions of a model or a results file, and masks joined over the frames.

``Prediction`` selects, numbers and names tracks in the same way for drawing, training pictures,
demo and evaluator. ``Track`` holds the run lengths of one object over a whole video: in COCO's
column-major order the concatenated runs of the frames are the runs of an image H x (T*W) with the
frames side by side, so no bitmap is needed.
Shape letters: T frames, (H, W) size of a frame, J runs of a joined track.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from maskfreevis_ext.errors import DataError, NumericError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import (
    MalformedRunsError,
    decode_counts,
    decode_rle,
    encode_counts,
    encode_masks,
    merge_runs,
)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One object in one frame, as it is drawn.

    Attributes:
        track_id: Determines the colour if ``color`` is None; an object has the same id in all
            frames.
        label: Text beside the object; "" for none.
        mask: Bool (H, W), or None.
        box: (x0, y0, x1, y1) in pixels, drawn as a rectangle, or None.
        color: (red, green, blue) in 0..255 instead of the colour of ``track_id``.
        is_filled: False: only the outline of the mask is drawn.
    """

    track_id: int
    label: str = ""
    mask: np.ndarray | None = None
    box: Box | None = None
    color: tuple[int, int, int] | None = None
    is_filled: bool = True


def make_label(name: str, track_id: int, score: float | None = None) -> str:
    """Text of a track: class, id and, where there is one, score."""
    return f"{name} #{track_id}" + ("" if score is None else f" {score:.2f}")


class RleMasks:
    """The masks of one track of a results file, decoded when they are accessed.

    Args:
        segmentations: One RLE, polygon list or None for each frame.
        size: (H, W) of the video.
        where: Start of an error message: file and entry.
    """

    def __init__(self, segmentations: Sequence[Any], size: tuple[int, int], where: str) -> None:
        self.segmentations, self.size, self.where = segmentations, size, where

    def __len__(self) -> int:
        return len(self.segmentations)

    def __getitem__(self, frame: int) -> np.ndarray:
        """Mask of a frame, bool (H, W); empty where the object is absent.

        Raises:
            DataError: The mask is malformed.
        """
        where = f"{self.where}, segmentations[{frame}]"
        rle, _, _ = segmentation_to_rle(self.segmentations[frame], *self.size, where)
        return np.zeros(self.size, dtype=bool) if rle is None else decode_rle(rle, where)


@dataclass(frozen=True)
class Prediction:
    """The predicted tracks of one video by descending score; from ``sort`` or ``from_output``.

    Attributes:
        scores: Score of each track, in descending order.
        labels: Contiguous class of each track, from 0.
        masks: Bool (T, H, W) of each track, in CPU memory or still encoded.
        numbers: Number of each track, for its label and colour: 1 for the highest score of the
            video. ``select`` keeps the numbers.
    """

    scores: list[float]
    labels: list[int]
    masks: list[Tensor | np.ndarray | RleMasks]
    numbers: list[int]

    @classmethod
    def sort(
        cls,
        scores: Sequence[float],
        labels: Sequence[int],
        masks: Sequence[Tensor | np.ndarray | RleMasks],
    ) -> Prediction:
        """Sort tracks by descending score (stable) and number them from 1.

        Args:
            scores: One number per track.
            labels: Contiguous class of each track, from 0.
            masks: Masks of each track, bool (T, H, W).

        Raises:
            NumericError: A score is NaN or infinite.
            ValueError: The numbers of scores, labels and masks differ.
        """
        bad = next((score for score in scores if not math.isfinite(score)), None)
        if bad is not None:
            raise NumericError(
                f"Scores of tracks: expected finite numbers, got {float(bad)}. Are the weights"
                " finite, and the frames those that the model was trained for?"
            )
        if not len(scores) == len(labels) == len(masks):
            counts = f"{len(scores)}, {len(labels)} and {len(masks)}"
            raise ValueError(f"expected as many scores as labels and masks, got {counts}.")
        order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
        return cls(
            scores=[float(scores[index]) for index in order],
            labels=[int(labels[index]) for index in order],
            masks=[masks[index] for index in order],
            numbers=list(range(1, len(order) + 1)),
        )

    @classmethod
    def from_output(cls, output: Mapping[str, Any]) -> Prediction:
        """Sort and number the tracks of a model's output for one video.

        Args:
            output: ``pred_scores``, ``pred_labels`` (contiguous) and ``pred_masks``, bool (T, H, W)
                each, in CPU memory.

        Raises:
            NumericError: A score is NaN or infinite.
            ValueError: The numbers of scores, labels and masks differ.
        """
        return cls.sort(output["pred_scores"], output["pred_labels"], output["pred_masks"])

    def __len__(self) -> int:
        return len(self.scores)

    def select(
        self,
        min_score: float = -math.inf,
        labels: Collection[int] | None = None,
        top_k: int | None = None,
    ) -> Prediction:
        """Select tracks; they keep their numbers.

        Args:
            min_score: Tracks with a lower score are left out.
            labels: Classes to keep; None keeps all.
            top_k: Largest number of tracks, those with the highest scores; None keeps all.
        """
        kept = [
            index
            for index, (score, label) in enumerate(zip(self.scores, self.labels, strict=True))
            if score >= min_score and (labels is None or label in labels)
        ][:top_k]
        return Prediction(
            scores=[self.scores[index] for index in kept],
            labels=[self.labels[index] for index in kept],
            masks=[self.masks[index] for index in kept],
            numbers=[self.numbers[index] for index in kept],
        )

    def items(self, frame: int, class_names: Sequence[str] | None = None) -> list[Item]:
        """The objects that are visible in a frame, the highest score last, so that it is on top.

        Args:
            frame: Index of the frame.
            class_names: Name of each label; a label without a name is written as "class 3".

        Raises:
            DataError: An encoded mask is malformed.
        """
        names = class_names or ()
        items = []
        for index in reversed(range(len(self))):
            mask = np.asarray(self.masks[index][frame], dtype=bool)
            if mask.any():
                label, number = self.labels[index], self.numbers[index]
                name = names[label] if 0 <= label < len(names) else f"class {label}"
                items.append(Item(number, make_label(name, number, self.scores[index]), mask))
        return items

    def results(self, video_id: int) -> list[dict[str, Any]]:
        """Entries of a YouTube-VIS results file, whose ``category_id`` is still the label.

        Args:
            video_id: Id of the video in the annotation file.

        Returns:
            One dict per track: video_id, score, category_id and segmentations (one compressed RLE
            per frame).
        """
        return [
            {
                "video_id": video_id,
                "score": score,
                "category_id": label,
                "segmentations": masks.segmentations
                if isinstance(masks, RleMasks)
                else encode_masks(masks),
            }
            for score, label, masks in zip(self.scores, self.labels, self.masks, strict=True)
        ]


def with_category_ids(
    results: Iterable[Mapping[str, Any]], category_ids: Mapping[int, int]
) -> list[dict[str, Any]]:
    """Replace the labels of results by the category ids of a data set.

    Args:
        results: Entries of ``Prediction.results``.
        category_ids: Category id of each label; tracks of other labels are left out.
    """
    return [
        {**entry, "category_id": category_ids[entry["category_id"]]}
        for entry in results
        if entry["category_id"] in category_ids
    ]


@dataclass(frozen=True)
class Track:
    """One object over the T frames of a video.

    Attributes:
        runs: Run lengths of the frames side by side, int64 (J,): background first (may be 0), all
            others positive.
        areas: Pixels of the object in each frame, int64 (T,).
    """

    runs: np.ndarray
    areas: np.ndarray

    @property
    def mean_area(self) -> float:
        """Mean area in pixels over the frames where the object has any; 0 where it has none."""
        visible = self.areas[self.areas > 0]
        return float(visible.mean()) if len(visible) else 0.0


def decode_track(segmentations: Sequence[object], height: int, width: int, where: str) -> Track:
    """Read the masks of a track and join them, checking each.

    Args:
        segmentations: One entry per frame, at least one: None (empty mask), an RLE dict ``{"size":
            [h, w], "counts": ...}`` with compressed (str, bytes) or plain (list of int) counts, or
            a list of polygons.
        height: Height of every frame in pixels.
        width: Width of every frame in pixels.
        where: What the masks belong to, for messages: "results.json: results[3]".

    Returns:
        The track.

    Raises:
        DataError: An entry is not a mask of that size; names the frame and the fault.
    """
    counts = [
        _compressed_counts(entry, height, width, f"{where}: segmentations[{frame}]")
        for frame, entry in enumerate(segmentations)
    ]
    try:
        runs = decode_counts(counts, height * width)
    except MalformedRunsError as error:
        place = f"{where}: segmentations[{error.index}]"
        raise DataError(
            f"{place}: 'counts' {error}. Make RLEs with pycocotools.mask.encode."
        ) from None
    return Track(merge_runs(runs.lengths, runs.is_object), runs.areas())


def _compressed_counts(entry: object, height: int, width: int, where: str) -> bytes:
    """Compressed counts of one frame's mask; counts that are compressed already are not checked."""
    if isinstance(entry, Mapping) and entry.get("size") == [height, width]:
        counts = entry.get("counts")
        if isinstance(counts, bytes):
            return counts
        if isinstance(counts, str) and counts.isascii():
            return counts.encode("ascii")
    rle, _, _ = segmentation_to_rle(entry, height, width, where)
    return encode_counts(np.array([height * width])) if rle is None else rle["counts"]


def encode_track(track: Track, num_frames: int, height: int, width: int) -> dict[str, Any]:
    """The compressed RLE of a track's frames laid side by side.

    Args:
        track: The track.
        num_frames: T.
        height: H in pixels.
        width: W in pixels.

    Returns:
        ``{"size": [H, T * W], "counts": bytes}``, as pycocotools takes it.
    """
    return {"size": [height, num_frames * width], "counts": encode_counts(track.runs)}


def track_frames(track: Track, num_frames: int, height: int, width: int) -> list[dict[str, Any]]:
    """The compressed RLE of each frame of a track.

    Args:
        track: The track.
        num_frames: T.
        height: H in pixels.
        width: W in pixels.

    Returns:
        T dicts ``{"size": [H, W], "counts": bytes}``, as pycocotools takes them.
    """
    ends = np.cumsum(track.runs)
    frame_ends = np.arange(1, num_frames + 1) * (height * width)
    cuts = np.union1d(ends, frame_ends)  # every run of the result ends at one of these
    lengths = np.diff(cuts, prepend=0)
    is_object = np.searchsorted(ends, cuts) % 2 == 1
    parts = np.searchsorted(cuts, frame_ends) + 1
    return [
        {"size": [height, width], "counts": encode_counts(merge_runs(length, is_true))}
        for length, is_true in zip(
            np.split(lengths, parts[:-1]), np.split(is_object, parts[:-1]), strict=True
        )
    ]


def track_masks(track: Track, num_frames: int, height: int, width: int) -> np.ndarray:
    """The masks of a track, bool (T, H, W).

    Args:
        track: The track.
        num_frames: T.
        height: H in pixels.
        width: W in pixels.
    """
    pixels = np.repeat(np.arange(len(track.runs)) % 2 == 1, track.runs)
    return pixels.reshape(num_frames, width, height).transpose(0, 2, 1)


def track_iou(detections: Sequence[Track], objects: Sequence[Track]) -> np.ndarray:
    """IoU of tracks from their run lengths, in 64 bits: for videos too long for pycocotools.

    Args:
        detections: D tracks.
        objects: G tracks of the same video.

    Returns:
        IoU, float64 (D, G); 0 where both are empty.
    """
    ious = np.zeros((len(detections), len(objects)))
    for column, one in enumerate(objects):
        edges = np.concatenate([[0], np.cumsum(one.runs)])
        covered = np.concatenate([[0], np.cumsum(one.runs * (np.arange(len(one.runs)) % 2))])
        for row, other in enumerate(detections):
            # Number of the object's pixels before the end of each run of the detection.
            ends = np.cumsum(other.runs)
            ends = ends[: len(ends) // 2 * 2]
            place = np.searchsorted(edges, ends, side="right") - 1
            place = np.minimum(place, len(one.runs) - 1)
            before = covered[place] + (place % 2) * (ends - edges[place])
            intersection = int((before[1::2] - before[0::2]).sum())
            union = int(one.areas.sum()) + int(other.areas.sum()) - intersection
            ious[row, column] = intersection / union if union else 0.0
    return ious
