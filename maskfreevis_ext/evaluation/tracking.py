"""HOTA and IDF1 of mask tracks: how well objects keep their identity over a video.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021
(arXiv:2009.07736). IDF1: Ristani et al., "Performance Measures and a Data Set for Multi-Target,
Multi-Camera Tracking", ECCV Workshops 2016 (arXiv:1609.01775). Both compare the tracks of one class
frame by frame by the IoU of their masks, and know no scores: tracks below a confidence are left
out. Values are those of each class, and the mean of all classes that have an object.
Shape letters: T frames, D detections and G objects of one video and class, A thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskfreevis_ext.evaluation.ground_truth import (
    FoundTrack,
    GroundTruth,
    TrueTrack,
    Video,
    by_video,
)
from maskfreevis_ext.evaluation.overlap import frame_ious
from maskfreevis_ext.evaluation.score import Scores
from maskfreevis_ext.tracks import Track

#: IoU thresholds of HOTA: 0.05 to 0.95 in steps of 0.05.
ALPHAS = np.arange(1, 20) / 20
#: Least IoU of a match for IDF1.
IDF1_IOU = 0.5
_EPSILON = np.finfo(float).eps
_CROWD_COVER = 0.5  # a detection with a larger share of its area in a crowd is not counted


@dataclass(frozen=True)
class FrameMatches:
    """The tracks of one class of one video, frame by frame.

    Attributes:
        ious: IoU of the masks, float64 (T, G, D); 0 where one of them is absent.
        objects: Whether an object is in the frame, bool (T, G).
        detections: Whether a detection is in the frame, bool (T, D).
    """

    ious: np.ndarray
    objects: np.ndarray
    detections: np.ndarray


def match_frames(
    objects: Sequence[TrueTrack], detections: Sequence[FoundTrack], video: Video
) -> FrameMatches:
    """Compare the tracks of one class of one video.

    What lies in a crowd by more than half of its area and matches no object (IoU below 0.5) is
    taken out: it is neither right nor wrong.

    Args:
        objects: Objects and crowds.
        detections: Predicted tracks.
        video: Size of the video.
    """
    crowds = [each.track for each in objects if each.is_crowd]
    wanted = [each.track for each in objects if not each.is_crowd]
    found = [each.track for each in detections]
    ious = frame_ious(found, wanted, video)  # (T, D, G)
    present = _presence(found, video)
    if crowds and found:
        cover = frame_ious(found, crowds, video, over_detection=True).max(-1)
        present &= (cover <= _CROWD_COVER) | (ious.max(-1, initial=0) >= IDF1_IOU)
        ious = ious * present[..., None]
    return FrameMatches(ious.transpose(0, 2, 1), _presence(wanted, video), present)


def _presence(tracks: Sequence[Track], video: Video) -> np.ndarray:
    """Whether each of N tracks is in each frame, bool (T, N)."""
    return np.array([track.areas > 0 for track in tracks], bool).reshape(-1, video.length).T


@dataclass(frozen=True)
class HotaSums:
    """Sums that HOTA is made of, float64 (A,) each; those of several videos can be added.

    Attributes:
        true_positives: Matches.
        false_negatives: Objects in a frame without a match.
        false_positives: Detections in a frame without a match.
        association: Over the matches, the association IoU of the two tracks.
        localization: Over the matches, the IoU of the two masks.
    """

    true_positives: np.ndarray
    false_negatives: np.ndarray
    false_positives: np.ndarray
    association: np.ndarray
    localization: np.ndarray

    def __add__(self, other: HotaSums) -> HotaSums:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return HotaSums(*(one + two for one, two in pairs))

    def values(self) -> dict[str, float]:
        """HOTA, DetA, AssA and LocA in [0, 1]: means over the thresholds.

        Without any match LocA is 1, as in the authors' implementation.
        """
        matched = np.maximum(self.true_positives, 1)
        everything = self.true_positives + self.false_negatives + self.false_positives
        detection = self.true_positives / np.maximum(everything, 1)
        association = self.association / matched
        localization = np.where(self.true_positives > 0, self.localization / matched, 1.0)
        return {
            "HOTA": float(np.sqrt(detection * association).mean()),
            "DetA": float(detection.mean()),
            "AssA": float(association.mean()),
            "LocA": float(localization.mean()),
        }


def hota_sums(frames: FrameMatches) -> HotaSums:
    """The sums of HOTA for one class of one video.

    In each frame objects and detections are matched one to one, so that the IoUs, weighted by how
    well the two tracks fit over the whole video, have the largest sum; a match counts for the
    thresholds that its IoU reaches. Two tracks have the association IoU: matches of the two,
    divided by the frames in which one of the two or both are there.

    Args:
        frames: The tracks, by ``match_frames``.
    """
    ious = frames.ious
    num_objects, num_detections = frames.objects.sum(0), frames.detections.sum(0)
    either = ious.sum(1, keepdims=True) + ious.sum(2, keepdims=True) - ious
    overlap = np.divide(ious, either, out=np.zeros_like(ious), where=either > _EPSILON).sum(0)
    lengths = num_objects[:, None] + num_detections[None]
    alignment = overlap / np.maximum(lengths - overlap, _EPSILON)
    matches = np.zeros((len(ALPHAS), *overlap.shape))
    localization = np.zeros(len(ALPHAS))
    for iou, objects, detections in zip(ious, frames.objects, frames.detections, strict=True):
        rows, columns = np.flatnonzero(objects), np.flatnonzero(detections)
        score = (alignment * iou)[np.ix_(rows, columns)]
        best = linear_sum_assignment(score, maximize=True)
        rows, columns = rows[best[0]], columns[best[1]]
        is_match = iou[rows, columns] >= ALPHAS[:, None] - _EPSILON  # (A, pairs)
        matches[:, rows, columns] += is_match
        localization += is_match @ iou[rows, columns]
    true_positives = matches.sum((1, 2))
    association = matches / np.maximum(lengths - matches, 1)
    return HotaSums(
        true_positives,
        num_objects.sum() - true_positives,
        num_detections.sum() - true_positives,
        (matches * association).sum((1, 2)),
        localization,
    )


@dataclass(frozen=True)
class IdentitySums:
    """Sums that IDF1 is made of; those of several videos can be added.

    Attributes:
        true_positives: Frames in which an object is found by the track that stands for it (IDTP).
        num_objects: Frames of all objects (IDTP + IDFN).
        num_detections: Frames of all detections (IDTP + IDFP).
    """

    true_positives: int
    num_objects: int
    num_detections: int

    def __add__(self, other: IdentitySums) -> IdentitySums:
        return IdentitySums(
            self.true_positives + other.true_positives,
            self.num_objects + other.num_objects,
            self.num_detections + other.num_detections,
        )

    def values(self) -> dict[str, float]:
        """IDF1, IDP and IDR in [0, 1]."""
        both = self.num_objects + self.num_detections
        return {
            "IDF1": 2 * self.true_positives / max(both, 1),
            "IDP": self.true_positives / max(self.num_detections, 1),
            "IDR": self.true_positives / max(self.num_objects, 1),
        }


def identity_sums(frames: FrameMatches) -> IdentitySums:
    """The sums of IDF1 for one class of one video.

    Each object is given at most one track and each track at most one object, once for the whole
    video, so that the frames in which their IoU is at least 0.5 are most.

    Args:
        frames: The tracks, by ``match_frames``.
    """
    together = (frames.ious >= IDF1_IOU).sum(0)
    rows, columns = linear_sum_assignment(together, maximize=True)
    return IdentitySums(
        int(together[rows, columns].sum()),
        int(frames.objects.sum()),
        int(frames.detections.sum()),
    )


def hota_scores(
    truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float = 0.0
) -> Scores:
    """HOTA, DetA, AssA and LocA, means of the classes, and HOTA of each class.

    Args:
        truth: The ground truth.
        detections: The predicted tracks.
        min_score: Tracks with a lower score are left out.
    """
    values = _by_class(hota_sums, truth, detections, min_score)
    return _mean_of_classes("hota", ("HOTA", "DetA", "AssA", "LocA"), truth, values)


def identity_scores(
    truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float = 0.0
) -> Scores:
    """IDF1, IDP and IDR, means of the classes, and IDF1 of each class.

    Args:
        truth: The ground truth.
        detections: The predicted tracks.
        min_score: Tracks with a lower score are left out.
    """
    values = _by_class(identity_sums, truth, detections, min_score)
    return _mean_of_classes("idf1", ("IDF1", "IDP", "IDR"), truth, values)


Sums = TypeVar("Sums", "HotaSums", "IdentitySums")


def _by_class(
    sums_of: Callable[[FrameMatches], Sums],
    truth: GroundTruth,
    detections: Sequence[FoundTrack],
    min_score: float,
) -> dict[int, dict[str, float]]:
    """Values of each class, from sums over all videos."""
    sums: dict[int, Sums] = {}
    for category_id, frames in _classes(truth, detections, min_score):
        each = sums_of(frames)
        sums[category_id] = sums[category_id] + each if category_id in sums else each
    return {category_id: each.values() for category_id, each in sums.items()}


def _classes(
    truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float
) -> list[tuple[int, FrameMatches]]:
    """Class and tracks for each class of each video; only classes that have an object anywhere."""
    known = {each.category_id for each in truth.objects if not each.is_crowd}
    kept = [each for each in detections if each.score >= min_score]
    parts = []
    for video_id, (objects, found) in by_video(truth.objects, kept).items():
        for category_id in sorted(known):
            of_class = [each for each in objects if each.category_id == category_id]
            guesses = [each for each in found if each.category_id == category_id]
            if of_class or guesses:
                frames = match_frames(of_class, guesses, truth.videos[video_id])
                parts.append((category_id, frames))
    return parts


def _mean_of_classes(
    task: str,
    names: Sequence[str],
    truth: GroundTruth,
    values: Mapping[int, Mapping[str, float]],
) -> Scores:
    """Scores in percent, from values in [0, 1] of the classes that have an object."""
    metrics = {
        name: 100 * float(np.mean([each[name] for each in values.values()])) if values else math.nan
        for name in names
    }
    per_class = [
        (label, 100 * values[category_id][names[0]] if category_id in values else math.nan)
        for category_id, label in truth.categories.items()
    ]
    return Scores(task, metrics, per_class)
