"""COCO JSON, of pictures or of videos."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import AnnotationSet, Track, Video
from maskfreevis_ext.data.writers.json_lists import JsonLists, json_lists
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer
from maskfreevis_ext.data.writers.ytvis import categories, json_rle

TRACKS_LOST = "tracks of more than one frame, whose identity 'coco' does not hold"


@register_writer("coco", ".json")
def write_coco(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write a COCO JSON in which every frame is a picture; who is who is lost.

    Args:
        dataset: The set. Ids of a set of pictures stay.
        path: The file.
        options: Not needed.

    Raises:
        DataError: A video cannot be read.
    """
    head = {"categories": categories(dataset)}
    keeps_ids = dataset.is_images and dataset.has_global_ids
    with json_lists(path, ("images", "annotations"), head) as lists:
        for video in dataset:
            first = video.id if keeps_ids else lists.count("images") + 1
            _add_images(lists, video, first, {})
            for track in video.tracks:
                dataset.notes[TRACKS_LOST] += len(track.boxes) > 1
                for t in sorted(track.boxes):
                    number = track.id if keeps_ids else lists.count("annotations") + 1
                    lists.append("annotations", _annotation(track, t, number, first + t))


@register_writer("coco-video", ".json")
def write_coco_video(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write a COCO JSON with ``videos``, ``video_id`` and ``frame_id`` of images, ``track_id``.

    Args:
        dataset: The set.
        path: The file.
        options: Not needed.

    Raises:
        DataError: A video cannot be read.
    """
    head = {"categories": categories(dataset)}
    with json_lists(path, ("videos", "images", "annotations"), head) as lists:
        for video in dataset:
            lists.append("videos", {"id": video.id, "name": video.name})
            first = lists.count("images") + 1
            _add_images(lists, video, first, {"video_id": video.id})
            for track in video.tracks:
                for t in sorted(track.boxes):
                    number = lists.count("annotations") + 1
                    entry = _annotation(track, t, number, first + t)
                    lists.append("annotations", {**entry, "track_id": track.id})


def _add_images(lists: JsonLists, video: Video, first: int, more: dict[str, int]) -> None:
    for t, name in enumerate(video.file_names):
        place = {**more, "frame_id": t} if more else {}
        size = {"height": video.height, "width": video.width}
        lists.append("images", {"id": first + t, "file_name": name, **size, **place})


def _annotation(track: Track, t: int, number: int, image_id: int) -> dict[str, Any]:
    box = track.boxes[t]
    entry: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": track.category_id,
        "iscrowd": int(track.is_crowd),
        "bbox": list(box),
        "area": box[2] * box[3],
    }
    if t in track.masks:
        entry["segmentation"] = json_rle(track.masks[t])
        entry["area"] = int(mask_util.area(track.masks[t]))
    if t in track.occluded:
        entry["attributes"] = {"occluded": True}
    if track.score is not None:
        entry["score"] = track.score
    return entry
