"""COCO JSON of videos: images with a video and a place in it, annotations with a track.

The fields go by several names: ``track_id`` or ``instance_id`` of an annotation (CVAT's export:
``attributes.track_id``), ``frame_id``, ``frame_index`` or ``mot_frame_id`` of an image. Without
``videos`` the images of a folder are a video. TAO is of this form too, with the classes in
``tracks``.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.categories import read_categories
from maskfreevis_ext.data.frame_files import natural_key
from maskfreevis_ext.data.json_fields import MAX_ID, Entry, list_of, read_json, unique_id
from maskfreevis_ext.data.readers.coco import (
    add_annotation,
    read_image_annotations,
    read_images,
)
from maskfreevis_ext.data.readers.files import unique_names, video_name
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError

_TRACK_FIELDS = ("track_id", "instance_id")
_FRAME_FIELDS = ("frame_id", "frame_index", "mot_frame_id")


@register_reader("coco-video")
def read_coco_video(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a COCO JSON of videos; frames are ordered by their number, else by file name.

    Args:
        path: The file.
        options: ``corners``.

    Returns:
        The videos.

    Raises:
        DataError: The file, an entry or a field cannot be used.
    """
    content = read_json(path)
    return coco_video_set(path, content, options.corners)


def coco_video_set(path: str, content: Mapping[str, Any], corners: bool = False) -> AnnotationSet:
    """Make a set from the content of a COCO JSON of videos.

    Args:
        path: The file, for messages.
        content: Its object.
        corners: Boxes are the corners x0, y0, x1, y1.

    Returns:
        The videos.

    Raises:
        DataError: An entry or a field cannot be used.
    """
    if "images" not in content and "videos" in content:
        raise DataError(f"{path}: has 'videos' and no 'images': it is in the format 'ytvis'.")
    categories = read_categories(path, content)
    notes: Counter[str] = Counter()
    images = read_images(path, content, notes)
    annotations = read_image_annotations(path, content, images, categories)
    heads = _videos(path, content, images)
    names = unique_names(name for name, _ in heads.values())
    keys = {key for entries in annotations.values() for key in map(_track_key, entries)}
    videos_of_key: dict[Any, set[int]] = defaultdict(set)
    video_of_image = {
        image.content["id"]: video for video, (_, frames) in heads.items() for image in frames
    }
    for image_id, entries in annotations.items():
        for entry in entries:
            videos_of_key[_track_key(entry)].add(video_of_image[image_id])
    is_global = all(type(key) is int and len(videos_of_key[key]) == 1 for key in keys)

    def load(video_id: int, name: str) -> Video:
        frames = heads[video_id][1]
        height, width = _size(frames)
        video = Video(video_id, name, height, width, [f.content["file_name"] for f in frames])
        builder = VideoBuilder(video, notes)
        for t, frame in enumerate(frames):
            for entry in annotations.get(frame.content["id"], ()):
                add_annotation(builder, entry, _track_key(entry), t, corners)
        return builder.build()

    lazy = [
        LazyVideo(name, partial(load, video_id, name))
        for video_id, name in zip(heads, names, strict=True)
    ]
    return AnnotationSet(path, categories, lazy, notes, has_global_ids=is_global)


def _track_key(entry: Entry) -> int:
    attributes = entry.content.get("attributes")
    places = [entry.content, attributes if isinstance(attributes, dict) else {}]
    for content in places:
        for field in _TRACK_FIELDS:
            if content.get(field) is not None:
                if type(content[field]) is not int or not 0 <= content[field] <= MAX_ID:
                    raise DataError(
                        f"{entry.name(field)} must be an integer in 0..{MAX_ID}, got"
                        f" {content[field]!r:.60}."
                    )
                return content[field]
    raise entry.fail(
        "track_id",
        "the number of the object's track",
        "Annotations without tracks are read as single pictures: --from coco.",
    )


def _videos(
    path: str, content: Mapping[str, Any], images: Mapping[int, Entry]
) -> dict[int, tuple[str, list[Entry]]]:
    """Name and frames in order of each video by id."""
    frames: dict[int, list[Entry]] = defaultdict(list)
    names: dict[int, str] = {}
    if content.get("videos") is None:
        numbers: dict[str, int] = {}
        for image in images.values():
            folder = os.path.dirname(image.content["file_name"].replace("\\", "/"))
            number = numbers.setdefault(folder, len(numbers) + 1)
            names[number] = video_name(folder, "video")
            frames[number].append(image)
    else:
        for entry in list_of(path, content, "videos"):
            video_id = unique_id(entry, names)
            title = entry.content.get("name") or entry.content.get("file_name")
            names[video_id] = video_name(title if isinstance(title, str) else "", f"{video_id}")
        for image in images.values():
            video_id = image.integer("video_id", 0, MAX_ID)
            if video_id not in names:
                raise image.fail("video_id", "the id of an entry of 'videos'")
            frames[video_id].append(image)
    for video_id in names:
        if not frames[video_id]:
            raise DataError(f"{path}: video {video_id} ({names[video_id]!r}) has no image.")
    return {video_id: (names[video_id], _in_order(frames[video_id])) for video_id in names}


def _in_order(frames: list[Entry]) -> list[Entry]:
    field = next((f for f in _FRAME_FIELDS if all(f in e.content for e in frames)), None)
    if field is None:
        return sorted(frames, key=lambda entry: natural_key(entry.content["file_name"]))
    taken: dict[int, Entry] = {}
    for entry in frames:
        number = entry.integer(field, 0, MAX_ID)
        if number in taken:
            raise entry.fail(field, f"unique in its video, but {taken[number].place} has it too")
        taken[number] = entry
    return [taken[number] for number in sorted(taken)]


def _size(frames: list[Entry]) -> tuple[int, int]:
    """(height, width), which must be the same in all frames."""
    first = None
    for entry in frames:
        size = check_frame_size(
            entry.content.get("height"), entry.content.get("width"), entry.name("width")
        )
        first = first or size
        if size != first:
            raise DataError(
                f"{entry.name('width')}: the frame has {size[1]} x {size[0]} pixels, the first of"
                f" its video {first[1]} x {first[0]}. All frames of a video must have one size."
            )
    assert first is not None  # a video has frames
    return first
