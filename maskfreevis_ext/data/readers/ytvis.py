"""YouTube-VIS JSON, by the same code that reads it for training."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Track,
    Video,
)
from maskfreevis_ext.data.categories import read_categories
from maskfreevis_ext.data.format_hints import CornerTally, as_corners, refuse_other_formats
from maskfreevis_ext.data.json_fields import MAX_ID, Entry, list_of, read_json, unique_id
from maskfreevis_ext.data.readers.files import unique_names, video_name, with_slashes
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.ytvis import TrackReader, read_videos
from maskfreevis_ext.rle import is_finite_number


@register_reader("ytvis")
def read_ytvis(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a YouTube-VIS JSON (``datasets/README.md``); ids stay as they are.

    Args:
        path: The file.
        options: ``corners``.

    Returns:
        The videos, named after the folders of their frames.

    Raises:
        DataError: The file, an entry or a field cannot be used.
    """
    content = read_json(path)
    refuse_other_formats(path, content)
    categories = read_categories(path, content)
    videos = read_videos(path, content, "")
    entries: dict[Any, list[Entry]] = defaultdict(list)
    if content.get("annotations") is not None:
        seen: dict[int, None] = {}
        for entry in list_of(path, content, "annotations"):
            seen[unique_id(entry, seen)] = None
            video_id = entry.integer("video_id", 0, MAX_ID)
            if video_id not in videos:
                raise entry.fail("video_id", "the id of an entry of 'videos'")
            entries[video_id].append(entry)
    notes: Counter[str] = Counter()
    for video in videos.values():
        video["file_names"] = [with_slashes(name, notes) for name in video["file_names"]]
    if options.corners:
        for annotation in itertools.chain.from_iterable(entries.values()):
            boxes = annotation.content.get("bboxes")
            if isinstance(boxes, list):
                annotation.content["bboxes"] = [as_corners(box) for box in boxes]
    names = unique_names(_name(video) for video in videos.values())

    corners = CornerTally()

    def load(video_id: int, name: str) -> Video:
        reader = TrackReader(
            path, {video_id: {**videos[video_id], "annotations": []}}, {c: c for c in categories}
        )
        reader.counts, reader.corners = notes, corners
        return _read_video(reader, video_id, name, entries[video_id])

    lazy = [
        LazyVideo(name, partial(load, video_id, name))
        for video_id, name in zip(videos, names, strict=True)
    ]
    return AnnotationSet(
        path,
        categories,
        lazy,
        notes,
        has_global_ids=True,
        final_check=partial(corners.check, path),
    )


def _name(video: dict[str, Any]) -> str:
    folder = os.path.dirname(video["file_names"][0].replace("\\", "/"))
    return video_name(folder, f"video_{video['video_id']}")


def _read_video(reader: TrackReader, video_id: int, name: str, entries: list[Entry]) -> Video:
    head = reader.videos[video_id]
    video = Video(video_id, name, head["height"], head["width"], head["file_names"])
    for entry in entries:
        head["annotations"] = [[] for _ in range(head["length"])]
        reader.read(entry)
        track = Track(entry.content["id"], entry.content["category_id"])
        track.is_crowd = bool(entry.content.get("iscrowd"))
        score = entry.content.get("score", entry.content.get("confidence"))
        track.score = float(score) if is_finite_number(score) else None
        for t, objects in enumerate(head["annotations"]):
            for item in objects:
                track.boxes[t] = tuple(item["bbox"])
                if "segmentation" in item:
                    track.masks[t] = item["segmentation"]
        if track.boxes:
            video.tracks.append(track)
    reader.counts.pop("objects", None)
    return video
