"""J and F of the DAVIS benchmark for videos whose objects nobody has pointed at.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR
2016, section 4 (J, F, recall); Caelles et al., "The 2019 DAVIS Challenge on VOS: Unsupervised
Multi-Object Segmentation" (arXiv:1905.00737), for the matching of proposals.
Shape letters: T frames, D proposals and G objects of a video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskfreevis_ext.evaluation.boundary import TOLERANCE, frame_boundary_f
from maskfreevis_ext.evaluation.ground_truth import FoundTrack, GroundTruth, Video, by_video
from maskfreevis_ext.evaluation.overlap import frame_ious
from maskfreevis_ext.evaluation.score import Scores
from maskfreevis_ext.tracks import Track

#: Tracks of a video that are proposals, best scores first.
MAX_PROPOSALS = 20
#: J or F above which a frame counts as recalled.
RECALL_ABOVE = 0.5


def davis_scores(
    truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float = 0.0
) -> Scores:
    """J&F, J, F and their recalls, in percent, whatever the classes.

    The ``MAX_PROPOSALS`` tracks with the highest scores are proposals. Each object gets at most one
    of them and each proposal at most one object, so that the sum of J is largest; an object
    without a proposal is compared with nothing. Proposals that are left over do not count.
    J is the IoU of the masks in a frame and F the boundary F; both are 1 where neither mask has a
    pixel. Means are over all frames of an object, then over all objects of all videos. Crowds
    are left out.

    Args:
        truth: The ground truth.
        detections: The predicted tracks.
        min_score: Tracks with a lower score are left out.
    """
    objects = [each for each in truth.objects if not each.is_crowd]
    kept = [each for each in detections if each.score >= min_score]
    values: list[tuple[float, ...]] = []
    for video_id, (wanted, found) in by_video(objects, kept).items():
        best = sorted(found, key=lambda each: -each.score)[:MAX_PROPOSALS]
        proposals = [each.track for each in best]
        values += _score_video([each.track for each in wanted], proposals, truth.videos[video_id])
    j, f, j_recall, f_recall = 100 * np.mean(values, axis=0) if values else np.full(4, math.nan)
    metrics = {"J&F": (j + f) / 2, "J": j, "F": f, "J_recall": j_recall, "F_recall": f_recall}
    return Scores("davis_jf", {name: float(value) for name, value in metrics.items()}, [])


def _score_video(
    objects: Sequence[Track], proposals: Sequence[Track], video: Video
) -> list[tuple[float, ...]]:
    """Means of J and F over the frames and their recalls, for each object."""
    if not objects:
        return []
    empty = Track(np.array([math.prod(video.size)]), np.zeros(video.length, np.int64))
    # An object that no proposal is left for is compared with an empty one.
    candidates = [*proposals, *[empty] * max(len(objects) - len(proposals), 0)]
    j = frame_ious(candidates, objects, video)  # (T, D, G)
    areas, wanted = (np.stack([track.areas for track in x], -1) for x in (candidates, objects))
    j[(areas == 0)[:, :, None] & (wanted == 0)[:, None]] = 1
    values: list[tuple[float, ...]] = []
    for row, column in zip(*linear_sum_assignment(j.mean(0), maximize=True), strict=True):
        similarity = j[:, row, column]
        boundary = frame_boundary_f(candidates[row], objects[column], video, TOLERANCE)
        values.append(
            (
                float(similarity.mean()),
                float(boundary.mean()),
                float((similarity > RECALL_ABOVE).mean()),
                float((boundary > RECALL_ABOVE).mean()),
            )
        )
    return values
