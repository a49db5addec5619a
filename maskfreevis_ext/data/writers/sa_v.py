"""SA-V (the data of SAM 2): ``<video>_manual.json`` files with an RLE for each frame and object."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import AnnotationSet, Video
from maskfreevis_ext.data.writers.mots import BOXES_LOST
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer
from maskfreevis_ext.data.writers.ytvis import json_rle
from maskfreevis_ext.files import write_json
from maskfreevis_ext.rle import encode_counts

CLASSES_LOST = "tracks whose class this format does not hold"
#: Mean pixels from which an object is medium or large, as SA-V says.
_BUCKETS = ((96**2, "large"), (32**2, "medium"), (0, "small"))


@register_writer("sa-v")
def write_sa_v(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write SA-V JSON files; every frame counts as annotated.

    Args:
        dataset: The set.
        path: The folder.
        options: Not needed.

    Raises:
        DataError: A video cannot be read.
    """
    for video in dataset:
        target = os.path.join(path, *f"{video.name}_manual.json".split("/"))
        write_json(_content(dataset, video), target)


def _content(dataset: AnnotationSet, video: Video) -> dict[str, Any]:
    length, pixels = len(video.file_names), video.height * video.width
    tracks = [track for track in video.tracks if track.masks]
    dataset.notes[CLASSES_LOST] += len(tracks)
    dataset.notes[BOXES_LOST] += sum(len(track.boxes) - len(track.masks) for track in video.tracks)
    empty = encode_counts(np.array([pixels])).decode("ascii")
    absent = {"size": [video.height, video.width], "counts": empty}
    masklet = [
        [json_rle(track.masks[t]) if t in track.masks else absent for track in tracks]
        for t in range(length)
    ]
    sizes = [
        sum(int(mask_util.area(mask)) for mask in track.masks.values()) / len(track.masks)
        for track in tracks
    ]
    firsts = [min(track.masks) for track in tracks]
    return {
        "video_id": video.name,
        "video_frame_count": length,
        "video_height": video.height,
        "video_width": video.width,
        "video_resolution": pixels,
        "masklet": masklet,
        "masklet_id": [track.id for track in tracks],
        "masklet_size_rel": [size / pixels for size in sizes],
        "masklet_size_abs": sizes,
        "masklet_size_bucket": [
            next(name for least, name in _BUCKETS if size >= least) for size in sizes
        ],
        "masklet_visibility_changes": [
            sum((t in track.masks) != (t - 1 in track.masks) for t in range(first + 1, length))
            for track, first in zip(tracks, firsts, strict=True)
        ],
        "masklet_first_appeared_frame": firsts,
        "masklet_frame_count": [length] * len(tracks),
        "masklet_edited_frame_count": [0] * len(tracks),
        "masklet_type": ["manual"] * len(tracks),
        "masklet_num": len(tracks),
    }
