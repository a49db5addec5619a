"""YouTube-VIS JSON files: read, checked, and turned into dataset dicts.

Nothing in the file is trusted. A value that cannot be right raises a ``DataError`` that names the
file, the entry with its id, and the field. Boxes that extend beyond the frame are clipped and
unusable polygons are dropped; one line of the log counts these repairs.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import MAX_FRAME_PIXELS
from maskfreevis_ext.data.boxes import clip_to_frame
from maskfreevis_ext.data.categories import read_categories
from maskfreevis_ext.data.format_hints import CornerTally, refuse_other_formats
from maskfreevis_ext.data.json_fields import (
    MAX_ID,
    Entry,
    list_of,
    path_fault,
    read_json,
    short,
    unique_id,
)
from maskfreevis_ext.data.track_masks import CheckedMask, check_masks
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import (
    MAX_SIDE,
    is_finite_number,
)

logger = logging.getLogger(__name__)

DatasetDict = dict[str, Any]


def _check_file_name(entry: Entry, index: int) -> str:
    """A frame's path, which must stay under the image root."""
    name = entry.content["file_names"][index]
    fault = path_fault(name)
    if fault is not None:
        raise entry.fail(f"file_names[{index}]", fault)
    return name


def read_videos(
    json_file: str, content: Mapping[str, Any], image_root: str
) -> dict[int, DatasetDict]:
    """Read the ``videos`` of a YouTube-VIS file.

    Args:
        json_file: Path, for messages.
        content: The file's object.
        image_root: Folder that ``file_names`` are relative to.

    Returns:
        A dataset dict without objects for each video, by id.

    Raises:
        DataError: A field of a video cannot be used, or there is no video.
    """
    videos: dict[int, DatasetDict] = {}
    for entry in list_of(json_file, content, "videos"):
        video_id = unique_id(entry, videos)
        height = entry.integer("height", 1, MAX_SIDE)
        width = entry.integer("width", 1, MAX_SIDE)
        if height * width > MAX_FRAME_PIXELS:
            raise entry.fail("height", f"such that a frame has at most {MAX_FRAME_PIXELS} pixels")
        names = entry.content.get("file_names")
        if not isinstance(names, list) or not names:
            raise entry.fail("file_names", "a list of one path per frame")
        length = len(names)
        if entry.content.get("length", length) != length or isinstance(
            entry.content.get("length"), (bool, float)
        ):
            raise entry.fail("length", f"{length}, the number of file_names")
        videos[video_id] = {
            "file_names": [
                os.path.join(image_root, _check_file_name(entry, i)) for i in range(length)
            ],
            "image_root": image_root,
            "height": height,
            "width": width,
            "length": length,
            "video_id": video_id,
            "annotations": [[] for _ in range(length)],
            "has_masks": False,
            "has_confidences": False,
        }
    if not videos:
        raise DataError(f"{json_file}: 'videos' is empty. Expected at least one video.")
    return dict(sorted(videos.items()))


class TrackReader:
    """Reads annotations into dataset dicts and counts its repairs by kind.

    Args:
        json_file: Path, for messages.
        videos: Dataset dicts of ``read_videos`` by id, which get the objects.
        class_of: What a category id of the file becomes in the objects.
    """

    #: Field of a box in a frame, and what is counted in the log.
    box_field = "bboxes[{}]"
    unit = "videos, {frames} frames"

    def __init__(
        self, json_file: str, videos: Mapping[int, DatasetDict], class_of: Mapping[int, int]
    ) -> None:
        self.json_file, self.videos, self.class_of = json_file, videos, class_of
        self.counts: Counter[str] = Counter()
        self.corners = CornerTally()

    def read(self, entry: Entry) -> None:
        """Add one track's objects to the frames of its video.

        Raises:
            DataError: A field of the track cannot be used.
        """
        video_id = entry.integer("video_id", 0, MAX_ID)
        if video_id not in self.videos:
            raise entry.fail("video_id", "the id of an entry of 'videos'")
        head = self.head_of(entry, entry.content.get("iscrowd"))
        video = self.videos[video_id]
        boxes = self._per_frame(entry, "bboxes", video)
        masks = self._per_frame(entry, "segmentations", video)
        confidences = self._confidences(entry, video)
        if boxes is None and masks is None:
            raise entry.fail("bboxes", "a list of one box or null per frame")
        self._check_areas(entry, video)
        checked = check_masks(
            masks or [None] * video["length"],
            video["height"],
            video["width"],
            lambda t: entry.name(f"segmentations[{t}]"),
        )
        is_seen = False
        for t in range(video["length"]):
            found = self.object_of(entry, t, video, boxes and boxes[t], checked[t])
            if found is not None:
                if "segmentation" in found and confidences[t] is not None:
                    found["confidence"] = confidences[t]
                video["annotations"][t].append({**head, **found})
                is_seen = True
        self.counts["tracks without any object"] += not is_seen

    def head_of(self, entry: Entry, crowd: Any) -> dict[str, int]:
        """What all objects of an annotation share: id, class and ``iscrowd`` (null is 0).

        Raises:
            DataError: The category or ``crowd`` cannot be used.
        """
        category_id = entry.integer("category_id", 0, MAX_ID)
        if category_id not in self.class_of:
            raise entry.fail("category_id", f"one of {short(sorted(self.class_of))}")
        if crowd not in (0, 1, None) or isinstance(crowd, float):
            raise entry.fail("iscrowd", "0 or 1")
        return {
            "id": entry.content["id"],
            "category_id": self.class_of[category_id],
            "iscrowd": int(crowd or 0),
        }

    def _per_frame(self, entry: Entry, field: str, video: DatasetDict) -> list[Any] | None:
        values = entry.content.get(field)
        if values is None or values == []:  # tools write [] where there is nothing
            return None
        if not isinstance(values, list):
            raise entry.fail(field, "a list of one entry per frame")
        if len(values) != video["length"]:
            raise DataError(
                f"{entry.name(field)} has {len(values)} entries, but video {video['video_id']} has"
                f" {video['length']} frames. Fill frames without the object with null."
            )
        return values

    def _check_areas(self, entry: Entry, video: DatasetDict) -> None:
        for i, area in enumerate(self._per_frame(entry, "areas", video) or ()):
            if area is not None and not (is_finite_number(area) and area >= 0):
                raise entry.fail(f"areas[{i}]", "a number >= 0 or null")

    def _confidences(self, entry: Entry, video: DatasetDict) -> list[float | None]:
        """Confidence of the mask in each frame: of the frame, else of the track, else None."""
        whole = entry.content.get("confidence")
        per_frame = self._per_frame(entry, "confidences", video) or [None] * video["length"]
        named = [("confidence", whole)]
        named += [(f"confidences[{t}]", value) for t, value in enumerate(per_frame)]
        for field, value in named:
            self.check_confidence(entry, field, value)
        return [whole if value is None else value for value in per_frame]

    @staticmethod
    def check_confidence(entry: Entry, field: str, value: Any) -> None:
        """Check the confidence of a mask.

        Raises:
            DataError: It is neither a number in [0, 1] nor None.
        """
        if value is not None and not (is_finite_number(value) and 0 <= value <= 1):
            raise entry.fail(field, "a number in [0, 1] or null")

    def object_of(
        self, entry: Entry, t: int, video: DatasetDict, raw_box: Any, mask: CheckedMask
    ) -> dict[str, Any] | None:
        """Box and mask of a track in frame t, or None if it is absent."""
        rle, area, dropped = mask
        self.counts["polygons dropped (odd count of numbers, or fewer than 3 points)"] += dropped
        box = None if raw_box is None or raw_box == [] else self._box(entry, t, video, raw_box)
        if box is None and area > 0:
            box = [float(x) for x in mask_util.toBbox(rle)]
            self.counts["boxes taken from masks"] += 1
        if box is None:
            return None
        self.counts["objects"] += 1
        found = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS}
        if rle is not None:
            found["segmentation"] = rle
        return found

    def _box(self, entry: Entry, t: int, video: DatasetDict, raw: Any) -> list[float] | None:
        """[x, y, w, h] clipped to the frame; None for a box without area."""
        field = self.box_field.format(t)
        is_box = isinstance(raw, list) and len(raw) == 4 and all(map(is_finite_number, raw))
        if not is_box:
            raise entry.fail(
                field, "[x, y, width, height] in pixels, or null where the object is absent"
            )
        x, y, w, h = (float(number) for number in raw)
        if w < 0 or h < 0:
            raise entry.fail(field, "[x, y, width, height] with a size that is not negative")
        if w == 0 or h == 0:
            self.counts["boxes without area taken as absent"] += 1
            return None
        box, is_clipped = clip_to_frame((x, y, w, h), video["height"], video["width"])
        if box is None:
            size = f"{video['width']} x {video['height']}"
            raise entry.fail(
                field,
                f"a box inside the frame of {size} pixels",
                "Boxes are [x, y, width, height], not corners; use null where the object is out"
                " of view.",
            )
        self.counts["boxes clipped to the frame"] += is_clipped
        self.corners.add((x, y, w, h), video["height"], video["width"], is_clipped)
        return list(box)


def load_ytvis_json(
    json_file: str, image_root: str, dataset_name: str | None = None
) -> list[DatasetDict]:
    """Read a YouTube-VIS annotation file into dataset dicts, one per video.

    An object is present in a frame if it has a box there; for a mask without a box the tight box
    of the mask is used.
    Masks may be compressed or uncompressed RLE, polygons, or absent (no ``segmentations``, null or
    []); a box is absent as null or []. ``areas``, ``iscrowd`` and all descriptive fields may be
    absent. Without ``annotations`` (the public test files) the videos have no objects.

    Args:
        json_file: Path of the file.
        image_root: Folder that ``file_names`` are relative to.
        dataset_name: Registered name whose metadata gets ``thing_classes`` and
            ``thing_dataset_id_to_contiguous_id``.

    Returns:
        One dict per video, by ascending id: ``file_names`` (paths), ``image_root``, ``height``,
        ``width``, ``length``, ``video_id``, ``has_masks`` (there are objects, and all but crowds
        have masks), ``has_confidences`` (some masks have a confidence, because a teacher made
        them) and ``annotations``: for each frame a list of dicts with ``id`` (of the track),
        ``category_id`` (0-based, in the order of the file's category ids), ``bbox`` and
        ``bbox_mode`` (XYWH_ABS), ``iscrowd`` and, where there is a mask, ``segmentation``
        (compressed RLE that is safe for pycocotools), with its ``confidence`` in [0, 1] where the
        file has one: ``confidences`` of the frames, or else ``confidence`` of the track.

    Raises:
        DataError: The file, an entry or a field cannot be used, or the categories clash with the
            metadata.
    """
    return videos_of_content(json_file, read_json(json_file), image_root, dataset_name)


def videos_of_content(
    json_file: str, content: Mapping[str, Any], image_root: str, dataset_name: str | None = None
) -> list[DatasetDict]:
    """``load_ytvis_json`` of a file that has been read.

    Args:
        json_file: Path, for messages.
        content: The file's object.
        image_root: Folder that ``file_names`` are relative to.
        dataset_name: Registered name whose metadata are filled.

    Returns:
        One dict per video.

    Raises:
        DataError: An entry or a field cannot be used.
    """
    refuse_other_formats(json_file, content)
    class_of = read_classes(json_file, content, dataset_name)
    videos = read_videos(json_file, content, image_root)
    return read_objects(content, TrackReader(json_file, videos, class_of))


def read_classes(
    json_file: str, content: Mapping[str, Any], dataset_name: str | None
) -> dict[int, int]:
    """Class (from 0, in the order of the ids) by category id; fills the metadata of the name.

    Args:
        json_file: Path, for messages.
        content: The file's object.
        dataset_name: Registered name, or None.

    Raises:
        DataError: The categories cannot be used, or clash with the metadata.
    """
    names = read_categories(json_file, content)
    class_of = {category_id: i for i, category_id in enumerate(names)}
    if dataset_name is not None:
        _set_metadata(dataset_name, json_file, list(names.values()), class_of)
    return class_of


def read_objects(content: Mapping[str, Any], reader: TrackReader) -> list[DatasetDict]:
    """Read all annotations into the dataset dicts of a reader.

    Args:
        content: The file's object.
        reader: Reads an annotation.

    Returns:
        The dataset dicts, complete.

    Raises:
        DataError: An annotation cannot be used.
    """
    if content.get("annotations") is not None:
        seen: dict[int, None] = {}
        for entry in list_of(reader.json_file, content, "annotations"):
            seen[unique_id(entry, seen)] = None
            reader.read(entry)
    reader.corners.check(reader.json_file)
    for video in reader.videos.values():
        objects = [o for frame in video["annotations"] for o in frame if not o["iscrowd"]]
        video["has_masks"] = bool(objects) and all("segmentation" in o for o in objects)
        video["has_confidences"] = any("confidence" in o for o in objects)
    _log_summary(reader)
    return list(reader.videos.values())


def _log_summary(reader: TrackReader) -> None:
    frames = sum(video["length"] for video in reader.videos.values())
    logger.info(
        "%s: %d %s, %d boxes.",
        reader.json_file,
        len(reader.videos),
        reader.unit.format(frames=frames),
        reader.counts.pop("objects", 0),
    )
    mended = [f"{count} {what}" for what, count in reader.counts.items() if count]
    if mended:
        logger.warning("%s: %s.", reader.json_file, "; ".join(mended))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _set_metadata(
    dataset_name: str, json_file: str, names: list[str], id_map: dict[int, int]
) -> None:
    """Fill the metadata, or compare it with the file (case and punctuation of names aside)."""
    metadata = MetadataCatalog.get(dataset_name)
    known_names = metadata.get("thing_classes")
    known_map = metadata.get("thing_dataset_id_to_contiguous_id")
    same_names = known_names is None or list(map(_plain, known_names)) == list(map(_plain, names))
    if not same_names or (known_map is not None and dict(known_map) != id_map):
        raise DataError(
            f"{json_file}: 'categories' {short(names)} differ from those of the data set"
            f" {dataset_name!r}: {short(known_names)}. Register the file under a name of its own"
            " (INPUT.DATASETS or maskfreevis_ext.register_ytvis_instances)."
        )
    if known_names is None:
        metadata.thing_classes = names
    if known_map is None:
        metadata.thing_dataset_id_to_contiguous_id = id_map
