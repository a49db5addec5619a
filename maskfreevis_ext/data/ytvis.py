"""YouTube-VIS JSON files: read, checked, and turned into dataset dicts.

Nothing in the file is trusted. A value that cannot be right raises a ``DataError`` that names the
file, the entry with its id, and the field. Boxes that extend beyond the frame are clipped and
unusable polygons are dropped; one line of the log counts these repairs.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
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
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.rle import (
    MAX_SIDE,
    decode_rle,
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
        category_id = entry.integer("category_id", 0, MAX_ID)
        if category_id not in self.class_of:
            raise entry.fail("category_id", f"one of {short(sorted(self.class_of))}")
        crowd = entry.content.get("iscrowd", 0)
        if crowd not in (0, 1) or isinstance(crowd, float):
            raise entry.fail("iscrowd", "0 or 1")
        video = self.videos[video_id]
        boxes = self._per_frame(entry, "bboxes", video)
        masks = self._per_frame(entry, "segmentations", video)
        if boxes is None and masks is None:
            raise entry.fail("bboxes", "a list of one box or null per frame")
        self._check_areas(entry, video)
        head = {
            "id": entry.content["id"],
            "category_id": self.class_of[category_id],
            "iscrowd": int(crowd),
        }
        checked = check_masks(
            masks or [None] * video["length"],
            video["height"],
            video["width"],
            lambda t: entry.name(f"segmentations[{t}]"),
        )
        is_seen = False
        for t in range(video["length"]):
            found = self._object(entry, t, video, boxes and boxes[t], checked[t])
            if found is not None:
                video["annotations"][t].append({**head, **found})
                is_seen = True
        self.counts["tracks without any object"] += not is_seen

    def _per_frame(self, entry: Entry, field: str, video: DatasetDict) -> list[Any] | None:
        values = entry.content.get(field)
        if values is None:
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

    def _object(
        self, entry: Entry, t: int, video: DatasetDict, raw_box: Any, mask: CheckedMask
    ) -> dict[str, Any] | None:
        """Box and mask of a track in frame t, or None if it is absent."""
        rle, area, dropped = mask
        self.counts["polygons dropped (odd count of numbers, or fewer than 3 points)"] += dropped
        box = None if raw_box is None else self._box(entry, t, video, raw_box)
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
        field = f"bboxes[{t}]"
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
    Masks may be compressed or uncompressed RLE, polygons, or absent (no ``segmentations``, or
    null). ``areas``, ``iscrowd`` and all descriptive fields may be absent. Without ``annotations``
    (the public test files) the videos have no objects.

    Args:
        json_file: Path of the file.
        image_root: Folder that ``file_names`` are relative to.
        dataset_name: Registered name whose metadata gets ``thing_classes`` and
            ``thing_dataset_id_to_contiguous_id``.

    Returns:
        One dict per video, by ascending id: ``file_names`` (paths), ``image_root``, ``height``,
        ``width``, ``length``, ``video_id``, ``has_masks`` (there are objects, and all but crowds
        have masks) and ``annotations``: for each frame a list of dicts with ``id`` (of the track),
        ``category_id`` (0-based, in the order of the file's category ids), ``bbox`` and
        ``bbox_mode`` (XYWH_ABS), ``iscrowd`` and, where there is a mask, ``segmentation``
        (compressed RLE that is safe for pycocotools).

    Raises:
        DataError: The file, an entry or a field cannot be used, or the categories clash with the
            metadata.
    """
    content = read_json(json_file)
    refuse_other_formats(json_file, content)
    names = read_categories(json_file, content)
    id_map = {category_id: i for i, category_id in enumerate(names)}
    if dataset_name is not None:
        _set_metadata(dataset_name, json_file, list(names.values()), id_map)
    videos = read_videos(json_file, content, image_root)
    reader = TrackReader(json_file, videos, id_map)
    if content.get("annotations") is not None:
        seen: dict[int, None] = {}
        for entry in list_of(json_file, content, "annotations"):
            seen[unique_id(entry, seen)] = None
            reader.read(entry)
    reader.corners.check(json_file)
    for video in videos.values():
        objects = [o for frame in video["annotations"] for o in frame if not o["iscrowd"]]
        video["has_masks"] = bool(objects) and all("segmentation" in o for o in objects)
    _log_summary(json_file, videos, reader.counts)
    return list(videos.values())


def _log_summary(json_file: str, videos: Mapping[int, DatasetDict], counts: Counter[str]) -> None:
    frames = sum(video["length"] for video in videos.values())
    logger.info(
        "%s: %d videos, %d frames, %d boxes.",
        json_file,
        len(videos),
        frames,
        counts.pop("objects", 0),
    )
    mended = [f"{count} {what}" for what, count in counts.items() if count]
    if mended:
        logger.warning("%s: %s.", json_file, "; ".join(mended))


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


def register_ytvis_instances(
    name: str, metadata: Mapping[str, Any], json_file: str, image_root: str
) -> None:
    """Register a data set in YouTube-VIS form under a name.

    Example: ``register_ytvis_instances("my_train", {}, "my/train.json", "my/images")``. The class
    names are read from the file. Registering the same name with the same paths again does nothing.

    Args:
        name: Name by which ``DATASETS.TRAIN`` and ``DATASETS.TEST`` refer to it.
        metadata: Further metadata, or an empty mapping; ``evaluator_type`` chooses another
            evaluator than "ytvis".
        json_file: Path of the annotation file; read only when the data set is used.
        image_root: Folder that the file's ``file_names`` are relative to.

    Raises:
        ConfigError: The name is empty, or registered with other files already.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"A data set's name must be a string that is not empty, got {name!r}.")
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    known = MetadataCatalog.get(name)
    if name in DatasetCatalog.list():
        taken = (known.get("json_file"), known.get("image_root"))
        if taken == (json_file, image_root):
            return
        raise ConfigError(
            f"The data set name {name!r} is taken by {taken[0]} with images in {taken[1]}; got"
            f" {json_file} with images in {image_root}. Choose another name."
        )
    DatasetCatalog.register(name, functools.partial(load_ytvis_json, json_file, image_root, name))
    known.set(json_file=json_file, image_root=image_root, has_videos=True)
    known.set(**{"evaluator_type": "ytvis", **metadata})


def object_masks(video: DatasetDict) -> torch.Tensor:
    """Decode the masks of a video's objects, without crowds.

    Args:
        video: A dict of ``load_ytvis_json``.

    Returns:
        (G, T, H, W) bool of G objects by ascending track id; False where an object is absent.

    Raises:
        DataError: An object has only a box.
    """
    tracks = sorted(
        {item["id"] for frame in video["annotations"] for item in frame if not item["iscrowd"]}
    )
    masks = np.zeros((len(tracks), video["length"], video["height"], video["width"]), dtype=bool)
    for t, frame in enumerate(video["annotations"]):
        for item in frame:
            if item["iscrowd"]:
                continue
            if "segmentation" not in item:
                raise DataError(
                    f"video {video['video_id']}, frame {t}, annotation {item['id']}: a true IoU "
                    "needs a mask, and there is only a box. Name a data set with 'segmentations'."
                )
            masks[tracks.index(item["id"]), t] = decode_rle(item["segmentation"])
    return torch.from_numpy(masks)
