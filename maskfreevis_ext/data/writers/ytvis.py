"""YouTube-VIS JSON, as ``datasets/README.md`` describes it."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import AnnotationSet, Rle, Track, Video
from maskfreevis_ext.data.writers.json_lists import json_lists
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer


@register_writer("ytvis", ".json")
def write_ytvis(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write a YouTube-VIS JSON.

    Ids stay where they are unique in the whole set; otherwise annotations count from 1, and
    ``track_id`` has the number within the video. A set without any mask gets no ``segmentations``.

    Args:
        dataset: The set.
        path: The file.
        options: Not needed.

    Raises:
        DataError: A video cannot be read.
    """
    with json_lists(path, ("videos", "annotations"), {"categories": categories(dataset)}) as lists:
        for video in dataset:
            lists.append(
                "videos",
                {
                    "id": video.id,
                    "name": video.name,
                    "height": video.height,
                    "width": video.width,
                    "length": len(video.file_names),
                    "file_names": video.file_names,
                },
            )
            for track in video.tracks:
                number = track.id if dataset.has_global_ids else lists.count("annotations") + 1
                lists.append("annotations", _annotation(track, video, number))


def categories(dataset: AnnotationSet) -> list[dict[str, Any]]:
    """The ``categories`` of a JSON file.

    Args:
        dataset: The set.
    """
    return [{"id": number, "name": name} for number, name in dataset.categories.items()]


def json_rle(rle: Rle) -> dict[str, Any]:
    """A compressed RLE as JSON holds it.

    Args:
        rle: With ``counts`` as bytes or str.
    """
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": list(rle["size"]), "counts": text}


def _annotation(track: Track, video: Video, number: int) -> dict[str, Any]:
    length = len(video.file_names)
    frames = range(length)
    entry: dict[str, Any] = {
        "id": number,
        "video_id": video.id,
        "category_id": track.category_id,
        "iscrowd": int(track.is_crowd),
        "height": video.height,
        "width": video.width,
        "length": length,
        "bboxes": [list(track.boxes[t]) if t in track.boxes else None for t in frames],
        "areas": [_area(track, t) for t in frames],
    }
    if track.masks:
        entry["segmentations"] = [
            json_rle(track.masks[t]) if t in track.masks else None for t in frames
        ]
    if number != track.id:
        entry["track_id"] = track.id
    if track.score is not None:
        entry["score"] = track.score
    return entry


def _area(track: Track, t: int) -> float | None:
    """Pixels of the mask, else of the box."""
    if t in track.masks:
        return int(mask_util.area(track.masks[t]))
    return track.boxes[t][2] * track.boxes[t][3] if t in track.boxes else None
