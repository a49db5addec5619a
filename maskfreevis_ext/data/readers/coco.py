"""COCO JSON: single pictures, each a video of one frame."""

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
from maskfreevis_ext.data.format_hints import as_corners
from maskfreevis_ext.data.json_fields import (
    MAX_ID,
    Entry,
    list_of,
    path_fault,
    read_json,
    unique_id,
)
from maskfreevis_ext.data.readers.files import unique_names, video_name, with_slashes
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError

NO_BOX = "annotations without box and mask left out"


def read_images(path: str, content: Mapping[str, Any], notes: Counter[str]) -> dict[int, Entry]:
    """Read the ``images`` of a COCO file.

    Args:
        path: The file, for messages.
        content: Its object.
        notes: Counts names that are mended.

    Returns:
        The entries by id, with checked ``file_name``.

    Raises:
        DataError: An id is not unique, a name leaves the image folder, or there is no image.
    """
    images: dict[int, Entry] = {}
    for entry in list_of(path, content, "images"):
        images[unique_id(entry, images)] = entry
        fault = path_fault(entry.content.get("file_name"))
        if fault is not None:
            raise entry.fail("file_name", fault)
        entry.content["file_name"] = with_slashes(entry.content["file_name"], notes)
    if not images:
        raise DataError(f"{path}: 'images' is empty. Expected at least one image.")
    return images


def read_image_annotations(
    path: str, content: Mapping[str, Any], images: Mapping[int, Any], categories: Mapping[int, str]
) -> dict[int, list[Entry]]:
    """Read the ``annotations`` of a COCO file; boxes and masks are not checked yet.

    Args:
        path: The file, for messages.
        content: Its object.
        images: Has the ids of all images.
        categories: Has the ids of all categories.

    Returns:
        Annotations by the id of their image.

    Raises:
        DataError: An id is not unique, or an image or category is unknown.
    """
    found: dict[int, list[Entry]] = defaultdict(list)
    if content.get("annotations") is None:
        return found
    seen: dict[int, None] = {}
    for entry in list_of(path, content, "annotations"):
        seen[unique_id(entry, seen)] = None
        image_id = entry.integer("image_id", 0, MAX_ID)
        if image_id not in images:
            raise entry.fail("image_id", "the id of an entry of 'images'")
        if entry.integer("category_id", 0, MAX_ID) not in categories:
            raise entry.fail("category_id", "the id of an entry of 'categories'")
        found[image_id].append(entry)
    return found


def add_annotation(
    builder: VideoBuilder, entry: Entry, key: Any, frame: int, corners: bool = False
) -> None:
    """Add a COCO annotation to a video.

    Args:
        builder: Of the video.
        entry: The annotation, with a checked ``category_id``.
        key: Its track.
        frame: Its frame, from 0.
        corners: ``bbox`` has the corners x0, y0, x1, y1.

    Raises:
        DataError: Its box, mask or ``iscrowd`` cannot be used.
    """
    crowd = entry.content.get("iscrowd") or 0
    if crowd not in (0, 1) or isinstance(crowd, float):
        raise entry.fail("iscrowd", "0 or 1")
    # Tools write [] where there is no mask or no box.
    box, mask = entry.content.get("bbox") or None, entry.content.get("segmentation") or None
    if box is None and mask is None:
        builder.notes[NO_BOX] += 1
        return
    attributes = entry.content.get("attributes")
    occluded = isinstance(attributes, dict) and attributes.get("occluded") is True
    builder.add(
        key,
        entry.content["category_id"],
        frame,
        entry.name("bbox" if mask is None else "segmentation"),
        box=as_corners(box) if corners else box,
        mask=mask,
        occluded=occluded,
        is_crowd=bool(crowd),
    )


@register_reader("coco")
def read_coco(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a COCO JSON of pictures; image ids become video ids, annotation ids track ids.

    Args:
        path: The file.
        options: ``corners``.

    Returns:
        A video of one frame for each picture, named after its file.

    Raises:
        DataError: The file, an entry or a field cannot be used.
    """
    content = read_json(path)
    if "images" not in content and "videos" in content:
        raise DataError(f"{path}: has 'videos' and no 'images': it is in the format 'ytvis'.")
    categories = read_categories(path, content)
    notes: Counter[str] = Counter()
    images = read_images(path, content, notes)
    annotations = read_image_annotations(path, content, images, categories)
    names = unique_names(
        video_name(os.path.splitext(entry.content["file_name"])[0]) for entry in images.values()
    )

    def load(image_id: int, name: str) -> Video:
        entry = images[image_id]
        height, width = check_frame_size(
            entry.content.get("height"), entry.content.get("width"), entry.name("width")
        )
        video = Video(image_id, name, height, width, [entry.content["file_name"]])
        builder = VideoBuilder(video, notes)
        for annotation in annotations.get(image_id, ()):
            add_annotation(builder, annotation, annotation.content["id"], 0, options.corners)
        return builder.build()

    lazy = [
        LazyVideo(name, partial(load, image_id, name))
        for image_id, name in zip(images, names, strict=True)
    ]
    return AnnotationSet(path, categories, lazy, notes, has_global_ids=True, is_images=True)
