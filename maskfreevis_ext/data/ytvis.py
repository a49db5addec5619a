"""YouTube-VIS JSON files: read, checked, and turned into dataset dicts.

Nothing in the file is trusted. What cannot be right ends in one ``DataError`` that names the file,
the entry with its id, and the field; what can be mended (boxes that stick out of the frame,
unusable polygons) is, and the log says so once.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.rle import (
    MAX_SIDE,
    decode_rle,
    is_finite_number,
    segmentation_to_rle,
)

logger = logging.getLogger(__name__)

#: Limits on what a file may ask for.
MAX_JSON_BYTES = 2 << 30
MAX_CATEGORIES = 10_000
MAX_FRAME_PIXELS = 178_000_000
_MAX_ID = 2**53
_MAX_NAME = 1024

_REPR = reprlib.Repr()  # short, and safe with values that are huge or deeply nested
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlist = _REPR.maxdict = 5
_REPR.maxlevel = 3

DatasetDict = dict[str, Any]


def _short(value: Any) -> str:
    return _REPR.repr(value)


class _DuplicateKey(ValueError):
    pass


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _DuplicateKey(f"an object has the key {key!r} twice")
    return content


def read_json(json_file: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Content of an annotation file, which must be one JSON object.

    Args:
        json_file: Path.
        max_bytes: Largest file that is read.

    Returns:
        The object. Its content is not checked.

    Raises:
        DataError: The file is absent, too large, or not a JSON object with unique keys.
    """
    try:
        size = os.stat(json_file).st_size
        if size > max_bytes:
            raise DataError(
                f"{json_file}: expected at most {max_bytes} bytes, got {size}. Split the data set."
            )
        with open(json_file, "rb") as file:
            content = json.loads(file.read(), object_pairs_hook=_object_of_unique_keys)
    except FileNotFoundError:
        raise DataError(
            f"{json_file}: there is no such annotation file. Check the path; built-in data sets"
            " lie under the folder named by the environment variable DETECTRON2_DATASETS (default"
            " 'datasets')."
        ) from None
    except OSError as error:
        raise DataError(f"{json_file}: cannot be read ({error.strerror or error}).") from error
    except RecursionError:
        raise DataError(f"{json_file}: brackets are nested too deeply.") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{json_file}: expected valid JSON, got: {error}. Write it again."
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{json_file}: expected one JSON object with 'videos', 'categories' and 'annotations',"
            f" got {type(content).__name__}. See datasets/README.md."
        )
    return content


class _Entry:
    """An object of the JSON, with its place in the file for messages and typed access."""

    def __init__(self, json_file: str, place: str, content: Any) -> None:
        self.json_file, self.place, self.content = json_file, place, content
        if not isinstance(content, dict):
            raise DataError(f"{json_file}: {place} must be an object, got {_short(content)}.")

    def name(self, field: str) -> str:
        """File, place and field, as a message starts."""
        entry_id = self.content.get("id")
        known = f" (id {_short(entry_id)})" if type(entry_id) is int else ""
        return f"{self.json_file}: {self.place}{known}.{field}"

    def fail(self, field: str, expected: str, remedy: str = "") -> DataError:
        """Error about a field: what was expected and what is there."""
        root = field.split("[")[0]
        got = "nothing" if root not in self.content else _short(self._value(field))
        return DataError(f"{self.name(field)} must be {expected}, got {got}. {remedy}".rstrip())

    def _value(self, field: str) -> Any:
        value = self.content
        for key in re.findall(r"[^\[\]]+", field):
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value

    def integer(self, field: str, low: int, high: int) -> int:
        """An integer field in [low, high]."""
        value = self.content.get(field)
        if type(value) is not int or not low <= value <= high:
            raise self.fail(field, f"an integer in {low}..{high}")
        return value

    def text(self, field: str) -> str:
        """A string field that is not empty."""
        value = self.content.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
            raise self.fail(field, f"a string of 1 to {_MAX_NAME} characters")
        return value


def _list_of(json_file: str, content: Mapping[str, Any], field: str) -> list[_Entry]:
    entries = content.get(field)
    if not isinstance(entries, list):
        got = "nothing" if field not in content else _short(entries)
        raise DataError(f"{json_file}: '{field}' must be a list, got {got}.")
    return [_Entry(json_file, f"{field}[{i}]", entry) for i, entry in enumerate(entries)]


def _unique_id(entry: _Entry, seen: Mapping[int, Any]) -> int:
    entry_id = entry.integer("id", 0, _MAX_ID)
    if entry_id in seen:
        raise entry.fail("id", "unique", "Give every entry its own id.")
    return entry_id


def _read_categories(json_file: str, content: Mapping[str, Any]) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    entries = _list_of(json_file, content, "categories")
    if not 0 < len(entries) <= MAX_CATEGORIES:
        raise DataError(
            f"{json_file}: 'categories' must have 1..{MAX_CATEGORIES} entries, got {len(entries)}."
        )
    names: dict[int, str] = {}
    taken: set[str] = set()
    for entry in entries:
        category_id = _unique_id(entry, names)
        name = entry.text("name")
        if name in taken:
            raise entry.fail("name", "unique", "Two categories cannot share a name.")
        taken.add(name)
        names[category_id] = name
    return dict(sorted(names.items()))


def _check_file_name(entry: _Entry, index: int) -> str:
    """A frame's path, which must stay under the image root."""
    name = entry.content["file_names"][index]
    field = f"file_names[{index}]"
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise entry.fail(field, f"a path of 1 to {_MAX_NAME} characters")
    parts = re.split(r"[/\\]", name)
    is_inside = ".." not in parts and parts[0] != "" and not re.match(r"[A-Za-z]:", name)
    if not is_inside or "\0" in name:
        raise entry.fail(
            field, "a path that stays under the image root", "Absolute paths and '..' are refused."
        )
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise entry.fail(field, "a path in valid Unicode") from None
    return name


def _read_videos(
    json_file: str, content: Mapping[str, Any], image_root: str
) -> dict[int, DatasetDict]:
    """A dataset dict without objects for each video, by id."""
    videos: dict[int, DatasetDict] = {}
    for entry in _list_of(json_file, content, "videos"):
        video_id = _unique_id(entry, videos)
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


class _TrackReader:
    """Reads annotations into dataset dicts and counts what it mends."""

    def __init__(
        self, json_file: str, videos: Mapping[int, DatasetDict], class_of: Mapping[int, int]
    ) -> None:
        self.json_file, self.videos, self.class_of = json_file, videos, class_of
        self.counts: Counter[str] = Counter()

    def read(self, entry: _Entry) -> None:
        """Add one track's objects to the frames of its video."""
        video_id = entry.integer("video_id", 0, _MAX_ID)
        if video_id not in self.videos:
            raise entry.fail("video_id", "the id of an entry of 'videos'")
        category_id = entry.integer("category_id", 0, _MAX_ID)
        if category_id not in self.class_of:
            raise entry.fail("category_id", f"one of {_short(sorted(self.class_of))}")
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
        is_seen = False
        for t in range(video["length"]):
            found = self._object(entry, t, video, boxes and boxes[t], masks and masks[t])
            if found is not None:
                video["annotations"][t].append({**head, **found})
                is_seen = True
        self.counts["tracks without any object"] += not is_seen

    def _per_frame(self, entry: _Entry, field: str, video: DatasetDict) -> list[Any] | None:
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

    def _check_areas(self, entry: _Entry, video: DatasetDict) -> None:
        for i, area in enumerate(self._per_frame(entry, "areas", video) or ()):
            if area is not None and not (is_finite_number(area) and area >= 0):
                raise entry.fail(f"areas[{i}]", "a number >= 0 or null")

    def _object(
        self, entry: _Entry, t: int, video: DatasetDict, raw_box: Any, raw_mask: Any
    ) -> dict[str, Any] | None:
        """Box and mask of a track in frame t, or None where it is absent."""
        height, width = video["height"], video["width"]
        where = entry.name(f"segmentations[{t}]")
        rle, area, dropped = segmentation_to_rle(raw_mask, height, width, where)
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

    def _box(self, entry: _Entry, t: int, video: DatasetDict, raw: Any) -> list[float] | None:
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
        x1, y1 = max(x, 0.0), max(y, 0.0)
        x2, y2 = min(x + w, float(video["width"])), min(y + h, float(video["height"]))
        if x2 <= x1 or y2 <= y1:
            size = f"{video['width']} x {video['height']}"
            raise entry.fail(
                field,
                f"a box inside the frame of {size} pixels",
                "Boxes are [x, y, width, height], not corners; use null where the object is out"
                " of view.",
            )
        if max(x1 - x, y1 - y, x + w - x2, y + h - y2) > 1e-3:
            self.counts["boxes clipped to the frame"] += 1
        return [x1, y1, x2 - x1, y2 - y1]


def load_ytvis_json(
    json_file: str, image_root: str, dataset_name: str | None = None
) -> list[DatasetDict]:
    """Dataset dicts of a YouTube-VIS annotation file.

    An object is in a frame where its box is; where there is only a mask, the box is taken from it.
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
    names = _read_categories(json_file, content)
    id_map = {category_id: i for i, category_id in enumerate(names)}
    if dataset_name is not None:
        _set_metadata(dataset_name, json_file, list(names.values()), id_map)
    videos = _read_videos(json_file, content, image_root)
    reader = _TrackReader(json_file, videos, id_map)
    if content.get("annotations") is not None:
        seen: dict[int, None] = {}
        for entry in _list_of(json_file, content, "annotations"):
            seen[_unique_id(entry, seen)] = None
            reader.read(entry)
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
            f"{json_file}: 'categories' {_short(names)} differ from those of the data set"
            f" {dataset_name!r}: {_short(known_names)}. Register the file under a name of its own"
            " (INPUT.DATASETS or maskfreevis_ext.data.register_ytvis_instances)."
        )
    if known_names is None:
        metadata.thing_classes = names
    if known_map is None:
        metadata.thing_dataset_id_to_contiguous_id = id_map


def register_ytvis_instances(
    name: str, metadata: Mapping[str, Any], json_file: str, image_root: str
) -> None:
    """Register a YouTube-VIS data set, one's own or a public one.

    ``register_ytvis_instances("my_train", {}, "my/train.json", "my/images")``. Class names come
    from the file. Registering the same again does nothing.

    Args:
        name: For ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        metadata: Further metadata, or an empty mapping.
        json_file: Path of the annotation file; read only when the data set is used.
        image_root: Folder that the file's ``file_names`` are relative to.

    Raises:
        ConfigError: The name is empty, or taken by other files.
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
    known.set(json_file=json_file, image_root=image_root, evaluator_type="ytvis", **metadata)


def check_images(dataset_dicts: list[DatasetDict]) -> None:
    """Make sure that the frames of all videos exist; reads folders, not files.

    Args:
        dataset_dicts: From ``load_ytvis_json``.

    Raises:
        DataError: Files are missing (the first few are named, and how many there are), or a
            symbolic link leads out of the image root.
    """
    folders: dict[str, dict[str, bool]] = {}
    missing: list[str] = []
    for video in dataset_dicts:
        for t, path in enumerate(video["file_names"]):
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = _list_folder(folder)
                _check_inside(folder, video)
            is_link = folders[folder].get(name)
            if is_link is None and not os.path.isfile(path):  # file systems may ignore case
                missing.append(f"{path} (video {video['video_id']}, frame {t})")
            elif is_link:
                _check_inside(path, video)
    if missing:
        total = sum(video["length"] for video in dataset_dicts)
        shown = "; ".join(missing[:5]) + ("; ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing)} of {total} frames do not exist: {shown}. Check the image root (and"
            " the environment variable DETECTRON2_DATASETS for built-in data sets) and the"
            " 'file_names' of the JSON."
        )


def _list_folder(folder: str) -> dict[str, bool]:
    """Files of a folder, and whether each is a symbolic link; empty without such a folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _check_inside(path: str, video: DatasetDict) -> None:
    root = video.get("image_root")
    if root is None:
        return
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, real_root]) != real_root:
        raise DataError(
            f"{path} (video {video['video_id']}) is a link that leads out of the image root"
            f" {root}, to {real}. Put the frames there, or make the image root itself the link."
        )


def object_masks(video: DatasetDict) -> torch.Tensor:
    """Masks of a video's objects without crowds, by ascending track id.

    Args:
        video: A dict of ``load_ytvis_json``.

    Returns:
        (G, T, H, W), bool, empty where an object is absent.

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
