"""COCO files of images as training data: each image is a video of one frame, made into a clip."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from maskfreevis_ext.data.annotation_form import MAX_FRAME_PIXELS
from maskfreevis_ext.data.json_fields import MAX_ID, Entry, list_of, path_fault, unique_id
from maskfreevis_ext.data.track_masks import check_masks
from maskfreevis_ext.data.ytvis import DatasetDict, TrackReader, read_classes, read_objects
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import MAX_SIDE


def images_of_content(
    json_file: str, content: Mapping[str, Any], image_root: str, dataset_name: str | None = None
) -> list[DatasetDict]:
    """Turn a COCO file of images into dataset dicts, one per image.

    Args:
        json_file: Path, for messages.
        content: The file's object.
        image_root: Folder that ``file_name`` is relative to.
        dataset_name: Registered name whose metadata get the classes.

    Returns:
        Dicts as ``load_ytvis_json`` gives for videos, of one frame, by ascending image id, which is
        their ``video_id``; with ``is_image`` True. Objects may have boxes, masks or both.

    Raises:
        DataError: An entry or a field cannot be used, or the categories clash with the metadata.
    """
    class_of = read_classes(json_file, content, dataset_name)
    images = _read_images(json_file, content, image_root)
    return read_objects(content, _ImageReader(json_file, images, class_of))


def _read_images(
    json_file: str, content: Mapping[str, Any], image_root: str
) -> dict[int, DatasetDict]:
    images: dict[int, DatasetDict] = {}
    for entry in list_of(json_file, content, "images"):
        image_id = unique_id(entry, images)
        height = entry.integer("height", 1, MAX_SIDE)
        width = entry.integer("width", 1, MAX_SIDE)
        if height * width > MAX_FRAME_PIXELS:
            raise entry.fail("height", f"such that an image has at most {MAX_FRAME_PIXELS} pixels")
        name = entry.content.get("file_name")
        fault = path_fault(name)
        if fault is not None:
            raise entry.fail("file_name", fault)
        images[image_id] = {
            "file_names": [os.path.join(image_root, str(name))],
            "image_root": image_root,
            "height": height,
            "width": width,
            "length": 1,
            "video_id": image_id,
            "annotations": [[]],
            "has_masks": False,
            "has_confidences": False,
            "is_image": True,
        }
    if not images:
        raise DataError(f"{json_file}: 'images' is empty. Expected at least one image.")
    return dict(sorted(images.items()))


class _ImageReader(TrackReader):
    """Reads annotations of images: an object with one box and one mask."""

    box_field = "bbox"
    unit = "images"

    def read(self, entry: Entry) -> None:
        """Add one object to its image.

        Raises:
            DataError: A field of the object cannot be used.
        """
        image_id = entry.integer("image_id", 0, MAX_ID)
        if image_id not in self.videos:
            raise entry.fail("image_id", "the id of an entry of 'images'")
        head = self.head_of(entry, entry.content.get("iscrowd"))
        image = self.videos[image_id]
        # Tools write [] where there is no box or no mask.
        box, mask = entry.content.get("bbox") or None, entry.content.get("segmentation") or None
        checked = check_masks(
            [mask], image["height"], image["width"], lambda _: entry.name("segmentation")
        )
        found = self.object_of(entry, 0, image, box, checked[0])
        if found is None:
            self.counts["annotations without box and mask left out"] += 1
            return
        confidence = entry.content.get("confidence")
        if confidence is not None:
            self.check_confidence(entry, "confidence", confidence)
            if "segmentation" in found:
                found["confidence"] = confidence
        image["annotations"][0].append({**head, **found})
