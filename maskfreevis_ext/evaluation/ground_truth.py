"""Ground truths and results of YouTube-VIS form, read into tracks for all metrics.

Nothing in the files is trusted: a value that cannot be right raises a ``DataError`` that names the
file, the entry and the field.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskfreevis_ext.data.format_hints import refuse_other_formats
from maskfreevis_ext.data.json_fields import (
    MAX_ID,
    Entry,
    list_of,
    read_json_value,
    short,
    unique_id,
)
from maskfreevis_ext.errors import DataError, first_few
from maskfreevis_ext.rle import MAX_SIDE, is_finite_number
from maskfreevis_ext.tracks import Track, decode_track

logger = logging.getLogger(__name__)

_MAX_FRAMES = 10**6


class NoMasksError(DataError):
    """A ground truth has objects and none of them has a mask: boxes only."""


@dataclass(frozen=True)
class Video:
    """Size of a video: height and width in pixels, and length in frames."""

    height: int
    width: int
    length: int

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return self.length, self.height, self.width


@dataclass(frozen=True)
class TrueTrack:
    """An object of a ground truth.

    Attributes:
        annotation_id: Its id in the file.
        video_id: Id of its video.
        category_id: Id of its class.
        is_crowd: Whether it stands for several objects, which are not told apart.
        area: Mean area in pixels over the frames where it has any: of the file, or of the masks.
        track: Its masks.
    """

    annotation_id: int
    video_id: int
    category_id: int
    is_crowd: bool
    area: float
    track: Track


@dataclass(frozen=True)
class FoundTrack:
    """A track of a results file: ids of video and class, score, masks."""

    video_id: int
    category_id: int
    score: float
    track: Track


@dataclass(frozen=True)
class GroundTruth:
    """What results are compared with.

    Attributes:
        name: File name for messages.
        videos: Size of each video, by id.
        categories: Class names by id, in ascending order of the ids.
        objects: The objects that have masks.
    """

    name: str
    videos: dict[int, Video]
    categories: dict[int, str]
    objects: list[TrueTrack]


def read_results(path: str | os.PathLike[str]) -> list[Any]:
    """Read a results file; its entries are checked later, by ``read_detections``.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be opened, or is not a JSON list; names the file and the place.
    """
    try:
        os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    results = read_json_value(os.fspath(path))
    if not isinstance(results, list):
        raise DataError(f"{path}: expected a list of results, got a {type(results).__name__}.")
    return results


def has_annotations(ground_truth: object) -> bool:
    """Whether the ground truth has ``annotations``, which public test sets withhold."""
    return isinstance(ground_truth, Mapping) and ground_truth.get("annotations") is not None


def read_ground_truth(content: Mapping[str, Any], name: str = "ground truth") -> GroundTruth:
    """Read videos, classes and objects of an annotation file.

    An object without a mask in any frame is left out, and a warning counts such objects: a
    prediction of one of them counts as wrong.

    Args:
        content: Content of a YTVIS annotation file with masks. ``areas`` and ``iscrowd`` may be
            absent.
        name: File name for messages.

    Raises:
        NoMasksError: There are objects, and no masks.
        DataError: An entry cannot be used.
    """
    if not isinstance(content, Mapping):
        raise DataError(
            f"{name}: expected a YTVIS annotation file (an object), got {short(content)}."
        )
    refuse_other_formats(name, content)
    videos = _read_videos(content, name)
    categories = _read_categories(content, name)
    if not has_annotations(content):
        raise DataError(
            f"{name}: 'annotations' must be a list, got nothing. They are withheld in public"
            " validation and test sets."
        )
    objects: dict[int, TrueTrack | None] = {}
    for entry in list_of(name, content, "annotations"):
        annotation_id = unique_id(entry, objects)
        objects[annotation_id] = _read_object(entry, annotation_id, videos, categories)
    with_masks = [each for each in objects.values() if each is not None]
    if objects and not with_masks:
        raise NoMasksError(
            f"{name}: the annotations have no segmentations (boxes only), and scores of masks need"
            " masks to compare with. Give a ground truth whose annotations have 'segmentations':"
            " one RLE, polygon list or null per frame."
        )
    num_left_out = len(objects) - len(with_masks)
    if num_left_out:
        logger.warning(
            "%s: %d of %d objects have no mask in any frame: they are left out, and a prediction"
            " of one of them counts as wrong.",
            name,
            num_left_out,
            len(objects),
        )
    return GroundTruth(name, videos, categories, with_masks)


def _read_videos(content: Mapping[str, Any], name: str) -> dict[int, Video]:
    videos: dict[int, Video] = {}
    for entry in list_of(name, content, "videos"):
        video_id = unique_id(entry, videos)
        names = entry.content.get("file_names")
        has_length = "length" in entry.content or not isinstance(names, list)
        videos[video_id] = Video(
            entry.integer("height", 1, MAX_SIDE),
            entry.integer("width", 1, MAX_SIDE),
            entry.integer("length", 1, _MAX_FRAMES) if has_length else len(names or []),
        )
    return videos


def _read_categories(content: Mapping[str, Any], name: str) -> dict[int, str]:
    categories: dict[int, str] = {}
    for entry in list_of(name, content, "categories"):
        category_id = unique_id(entry, categories)
        categories[category_id] = (
            entry.text("name") if "name" in entry.content else str(category_id)
        )
    return dict(sorted(categories.items()))


def _read_object(
    entry: Entry,
    annotation_id: int,
    videos: Mapping[int, Video],
    categories: Mapping[int, str],
) -> TrueTrack | None:
    """An object; None where no frame has a pixel of it."""
    video_id = _known_id(entry, "video_id", videos)
    category_id = _known_id(entry, "category_id", categories)
    crowd = entry.content.get("iscrowd", 0)
    if crowd not in (0, 1, None) or isinstance(crowd, float):
        raise entry.fail("iscrowd", "0 or 1")
    if entry.content.get("segmentations") in (None, []):
        return None
    track = read_track(entry, video_id, videos[video_id])
    area = _read_area(entry, track)
    if not track.areas.any():
        return None
    return TrueTrack(annotation_id, video_id, category_id, bool(crowd), area, track)


def read_detections(results: object, truth: GroundTruth, name: str = "results") -> list[FoundTrack]:
    """Read the tracks of a results file.

    Args:
        results: Content of a ``results.json``: dicts with video_id, category_id, score and
            segmentations (one RLE or null per frame). May be empty.
        truth: The ground truth that they are for.
        name: File name for messages.

    Raises:
        DataError: An entry cannot be used, or does not fit the ground truth.
    """
    detections = []
    for entry in list_of(name, {"results": results}, "results"):
        video_id = _known_id(entry, "video_id", truth.videos)
        category_id = _known_id(entry, "category_id", truth.categories)
        score = entry.content.get("score")
        if not is_finite_number(score):
            raise entry.fail("score", "a finite number")
        track = read_track(entry, video_id, truth.videos[video_id])
        detections.append(FoundTrack(video_id, category_id, float(score or 0), track))
    return detections


def _known_id(entry: Entry, field: str, known: Mapping[int, object]) -> int:
    """An id that is in the ground truth."""
    value = entry.integer(field, 0, MAX_ID)
    if value not in known:
        shown = first_few([str(one) for one in sorted(known)])
        raise entry.fail(field, f"one of the {len(known)} of the ground truth ({shown})")
    return value


def read_track(entry: Entry, video_id: int, video: Video) -> Track:
    """The masks of an entry.

    Args:
        entry: Of an annotation file or a results file.
        video_id: Id of its video, for messages.
        video: Size of its video.

    Raises:
        DataError: ``segmentations`` is not a list with one mask or null per frame.
    """
    masks = entry.content.get("segmentations")
    if not isinstance(masks, list):
        raise entry.fail("segmentations", "a list of one mask or null per frame")
    if len(masks) != video.length:
        raise DataError(
            f"{entry.name('segmentations')} has {len(masks)} entries, but video {video_id} has"
            f" {video.length} frames. Give one per frame, null where the object is absent."
        )
    where = f"{entry.name('segmentations').removesuffix('.segmentations')}, video {video_id}"
    return decode_track(masks, video.height, video.width, where)


def _read_area(entry: Entry, track: Track) -> float:
    """Mean of the non-zero ``areas`` of the file, as in the official evaluator, or of the masks."""
    areas = entry.content.get("areas")
    if areas is None:
        return track.mean_area
    if not isinstance(areas, list) or not all(
        area is None or (is_finite_number(area) and area >= 0) for area in areas
    ):
        raise entry.fail("areas", "a list of numbers >= 0 or null")
    visible = [area for area in areas if area]
    return float(np.mean(visible)) if visible else track.mean_area


def by_video(
    objects: Sequence[TrueTrack], detections: Sequence[FoundTrack]
) -> dict[int, tuple[list[TrueTrack], list[FoundTrack]]]:
    """Objects and detections of each video that has any, by the id of the video.

    Args:
        objects: Objects of any videos.
        detections: Detections of any videos.
    """
    grouped: dict[int, tuple[list[TrueTrack], list[FoundTrack]]] = {}
    for each in objects:
        grouped.setdefault(each.video_id, ([], []))[0].append(each)
    for found in detections:
        grouped.setdefault(found.video_id, ([], []))[1].append(found)
    return grouped
