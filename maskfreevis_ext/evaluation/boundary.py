"""How well the outlines of predicted masks follow those of the objects.

The measure F of the DAVIS benchmark: Perazzi et al., "A Benchmark Dataset and Evaluation
Methodology for Video Object Segmentation", CVPR 2016, section 4. Shape letters: G objects of a
ground truth, T frames, (H, W) size of a video.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.evaluation.ground_truth import (
    Video,
    by_video,
    read_detections,
    read_ground_truth,
)
from maskfreevis_ext.evaluation.overlap import iou_of_tracks
from maskfreevis_ext.tracks import Track, track_frames

#: How far apart two outlines may be and still agree, as a share of the image diagonal; DAVIS's.
TOLERANCE = 0.008


@dataclass(frozen=True)
class BoundaryScores:
    """Quality of the masks that were found for the objects of a ground truth, in percent.

    Attributes:
        boundary_f: Mean of the boundary F over all objects.
        iou: Mean of the video IoU over all objects.
        num_objects: G.
    """

    boundary_f: float
    iou: float
    num_objects: int


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of a mask: pixels that differ from the one to the right, below or both.

    Args:
        mask: (H, W), bool.

    Returns:
        (H, W), bool. Where the mask touches the border of the image it has no outline.

    >>> outline(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)


def boundary_f(mask: np.ndarray, truth: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F measure of the outline of a mask: harmonic mean of its precision and recall.

    Precision is the share of the mask's outline that is not further than the tolerance from the
    true outline; recall the share of the true outline near the mask's.

    Args:
        mask: The predicted mask, (H, W), bool.
        truth: The true mask, (H, W), bool.
        tolerance: Distance as a share of the image diagonal, rounded up to whole pixels.

    Returns:
        A number in [0, 1]; 1 where neither mask has an outline, 0 where only one has.

    Raises:
        ValueError: The masks differ in size.

    >>> truth = np.zeros((100, 100), dtype=bool)
    >>> truth[20:60, 20:60] = True
    >>> boundary_f(np.roll(truth, 2, axis=1), truth)  # 2 pixels = ceil(0.008 * 141)
    1.0
    >>> round(boundary_f(np.roll(truth, 6, axis=1), truth), 2)  # above and below they still agree
    0.49
    """
    if mask.shape != truth.shape:
        raise ValueError(f"expected masks of one size, got {mask.shape} and {truth.shape}.")
    part = _surroundings(mask | truth)
    found, wanted = outline(mask[part]), outline(truth[part])
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    radius = math.ceil(tolerance * math.hypot(*mask.shape))
    precision = float(_is_near(wanted, radius)[found].mean())
    recall = float(_is_near(found, radius)[wanted].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _surroundings(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of an image with all pixels of a mask and those beside them.

    The outlines in it are those in the whole image: it ends at the border of the image or at least
    one pixel outside the mask.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )


def _is_near(pixels: np.ndarray, radius: int) -> np.ndarray:
    """All pixels that are at most ``radius`` away from one of the given, bool (H, W).

    There must be one. A distance transform takes the same time for every radius.
    """
    away = (~pixels).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(distance**2) <= radius**2


def frame_boundary_f(found: Track, truth: Track, video: Video, tolerance: float) -> np.ndarray:
    """Boundary F in each frame; 1 where neither the object nor the track is visible.

    Args:
        found: The predicted track.
        truth: The object.
        video: Size of their video.
        tolerance: As in ``boundary_f``.

    Returns:
        Float64 (T,), in [0, 1].
    """
    values = np.ones(video.length)
    masks, wanted = track_frames(found, *video.size), track_frames(truth, *video.size)
    for t in np.flatnonzero((found.areas > 0) | (truth.areas > 0)):
        mask, true = (mask_util.decode(frames[t]).astype(bool) for frames in (masks, wanted))
        values[t] = boundary_f(mask, true, tolerance)
    return values


def track_boundary_f(found: Track, truth: Track, video: Video, tolerance: float) -> float:
    """Mean boundary F over the frames in which the object or the track is visible, in [0, 1].

    Args:
        found: The predicted track.
        truth: The object.
        video: Size of their video.
        tolerance: As in ``boundary_f``.
    """
    is_visible = (found.areas > 0) | (truth.areas > 0)
    values = frame_boundary_f(found, truth, video, tolerance)[is_visible]
    return float(values.mean()) if len(values) else 1.0


def score_boundaries(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    tolerance: float = TOLERANCE,
    ground_truth_name: str = "ground truth",
    results_name: str = "results",
) -> BoundaryScores:
    """Boundary F and video IoU of the track that fits each object best.

    An object's track is the one of its video with the highest video IoU, whatever its class and its
    score: the measure says how good the masks are, AP says how well they are found and named. One
    track may be the best of several objects. An object without an overlapping track counts as 0;
    crowds are left out.

    Args:
        ground_truth: Content of a YTVIS annotation file with masks.
        results: Content of a ``results.json``.
        tolerance: As in ``boundary_f``.
        ground_truth_name: File name for messages.
        results_name: File name for messages.

    Returns:
        The means; NaN where the ground truth has no object.

    Raises:
        DataError: Something in either does not fit; names the entry and the field.
    """
    truth = read_ground_truth(ground_truth, ground_truth_name)
    detections = read_detections(results, truth, results_name)
    objects = [each for each in truth.objects if not each.is_crowd]
    ious: list[float] = []
    boundaries: list[float] = []
    for video_id, (wanted, found) in by_video(objects, detections).items():
        video, candidates = truth.videos[video_id], [each.track for each in found]
        tracks = [each.track for each in wanted]
        table = iou_of_tracks(candidates, tracks, video) if candidates and tracks else None
        for column, track in enumerate(tracks):
            best = int(table[:, column].argmax()) if table is not None else -1
            iou = float(table[best, column]) if table is not None else 0.0
            ious.append(iou)
            boundaries.append(
                track_boundary_f(candidates[best], track, video, tolerance) if iou > 0 else 0.0
            )
    return BoundaryScores(_percent(boundaries), _percent(ious), len(ious))


def _percent(values: list[float]) -> float:
    return 100.0 * float(np.mean(values)) if values else math.nan
