"""Overlap of tracks: over a whole video, and in each frame.

Shape letters: T frames, D detections and G objects of a video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.evaluation.ground_truth import Video
from maskfreevis_ext.tracks import Track, encode_track, track_frames, track_iou

_COCO_PIXELS = 2**31  # pycocotools counts pixels in 32 bits


def video_iou(found: Track, truth: Track) -> float:
    """Video IoU of two tracks: pixels of the intersections of all frames over those of the unions.

    Args:
        found: The predicted track.
        truth: The object.

    Returns:
        In [0, 1]; 1 where both are empty.
    """
    if not found.areas.any() and not truth.areas.any():
        return 1.0
    return float(track_iou([found], [truth])[0, 0])


def iou_of_tracks(
    detections: Sequence[Track], objects: Sequence[Track], video: Video
) -> np.ndarray:
    """Video IoU of tracks: pixels of the intersections of all frames over those of the unions.

    Args:
        detections: D tracks of a video.
        objects: G tracks of the same video.
        video: Size of the video.

    Returns:
        Float64 (D, G); 0 where both are empty.
    """
    if video.height * video.width * video.length >= _COCO_PIXELS:
        return track_iou(detections, objects)
    # No crowd flags: with them pycocotools divides by the area of the detection, unlike YTVIS.
    return mask_util.iou(
        [encode_track(track, *video.size) for track in detections],
        [encode_track(track, *video.size) for track in objects],
        [0] * len(objects),
    )


def frame_ious(
    detections: Sequence[Track],
    objects: Sequence[Track],
    video: Video,
    *,
    over_detection: bool = False,
) -> np.ndarray:
    """IoU of tracks in each frame.

    Args:
        detections: D tracks of a video.
        objects: G tracks of the same video.
        video: Size of the video.
        over_detection: Divide by the area of the detection instead of the union.

    Returns:
        Float64 (T, D, G); 0 where both are empty.
    """
    ious = np.zeros((video.length, len(detections), len(objects)))
    if ious.size:
        found = [track_frames(track, *video.size) for track in detections]
        wanted = [track_frames(track, *video.size) for track in objects]
        flags = [int(over_detection)] * len(objects)
        for t in range(video.length):
            ious[t] = mask_util.iou([one[t] for one in found], [one[t] for one in wanted], flags)
    return ious
