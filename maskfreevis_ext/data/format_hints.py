"""Annotations that are something else than they were taken for: what they are, what mends them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from maskfreevis_ext.data.boxes import Box
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import is_finite_number

#: Fewer boxes than this say nothing about their form.
_LEAST_BOXES = 8
#: Part of the boxes that stick out of their frames, from which on the form is doubted.
_STICKING_OUT = 0.2

_KEYS = (
    ("sequences", "burst", "a BURST file"),
    ("masklet", "sa-v", "a file of SA-V"),
    ("shapes", "labelme", "a file of LabelMe"),
    ("frames", "bdd100k", "a file of BDD100K or Scalabel"),
)


def convert_command(name: str, path: str, more: str = "") -> str:
    """The command that makes a YouTube-VIS file of another one.

    Args:
        name: Format of the file.
        path: The file.
        more: Further options.
    """
    more = f" {more}" if more else ""
    return (
        f"python tools/convert_dataset.py --from {name} --input {path} --to ytvis"
        f" --output OUT.json{more}"
    )


def is_image_file(content: Mapping[str, Any]) -> bool:
    """Whether a file has the form of COCO's files of single images.

    Args:
        content: Its object.
    """
    is_video = content.get("videos") is not None or _has_tracks(content.get("annotations"))
    return isinstance(content.get("images"), list) and not is_video


def refuse_other_formats(path: str, content: Mapping[str, Any]) -> None:
    """Name the format of a JSON file that is not in YouTube-VIS form.

    Args:
        path: The file.
        content: Its object.

    Raises:
        DataError: It is of a known other format; the message has the command that converts it.
    """
    videos = content.get("videos")
    has_frames = isinstance(videos, list) and any(
        isinstance(video, dict) and "file_names" in video for video in videos
    )
    if has_frames:
        return
    found = None
    if isinstance(content.get("images"), list):
        is_video = not is_image_file(content)
        found = ("coco-video", "a COCO file of videos") if is_video else ("coco", "a COCO file")
    else:
        found = next(((name, what) for key, name, what in _KEYS if key in content), None)
    if found is not None:
        raise DataError(
            f"{path}: expected a YouTube-VIS file, but this is {found[1]}. Convert it:"
            f" {convert_command(found[0], path)}"
        )


def _has_tracks(annotations: Any) -> bool:
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    if not isinstance(first, dict):
        return False
    attributes = first.get("attributes")
    inner = isinstance(attributes, dict) and "track_id" in attributes
    return inner or "track_id" in first or "instance_id" in first


def as_corners(box: Any) -> Any:
    """[x, y, width, height] of a box that was written as its corners.

    Args:
        box: [x0, y0, x1, y1]; anything else is given back as it is.
    """
    if isinstance(box, list) and len(box) == 4 and all(map(is_finite_number, box)):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return box


@dataclasses.dataclass
class CornerTally:
    """Tells boxes (x, y, width, height) from corners (x0, y0, x1, y1), when all have been seen.

    Attributes:
        boxes: Boxes that were added.
        sticking_out: Those that were clipped to their frame.
        corners: Those that would be corners inside the frame.
    """

    boxes: int = 0
    sticking_out: int = 0
    corners: int = 0

    def add(self, box: Box, height: int, width: int, is_clipped: bool) -> None:
        """Add a box.

        Args:
            box: As the file has it.
            height: Of the frame, pixels.
            width: Of the frame, pixels.
            is_clipped: As (x, y, width, height) it sticks out of the frame.
        """
        x, y, third, fourth = box
        self.boxes += 1
        self.sticking_out += is_clipped
        self.corners += 0 <= x < third <= width and 0 <= y < fourth <= height

    def check(self, path: str) -> None:
        """Refuse boxes that all look like corners, of which many stick out of their frames.

        Args:
            path: The file.

        Raises:
            DataError: They do.
        """
        many = self.boxes >= _LEAST_BOXES and self.sticking_out >= _STICKING_OUT * self.boxes
        if many and self.corners == self.boxes:
            raise DataError(
                f"{path}: 'bboxes' must be [x, y, width, height], but these look like corners"
                f" [x0, y0, x1, y1]: {self.sticking_out} of {self.boxes} boxes would stick out of"
                f" their frames. Mend it: {convert_command('ytvis', path, '--corners')}"
            )
