"""What a data set holds: objects, lengths, sizes, and tracks that look like mistakes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectron2.structures import BoxMode

Box = tuple[float, float, float, float]

#: A step of a track looks like a jump above this many object sizes (square root of the area).
JUMP = 1.0
#: ... and above this many times the median of the track's other steps.
TIMES_MEDIAN = 4.0
#: Two boxes of neighbouring frames whose areas differ by more than this factor.
SIZE_CHANGE = 4.0
#: IoU from which two objects of a class are taken for one that was drawn twice.
TWICE = 0.9
#: Share of the frame from which a box covers all of it.
WHOLE_FRAME = 0.98


@dataclass(frozen=True)
class Suspicion:
    """Something in a track that a person should look at.

    Attributes:
        video_id: Video.
        track_id: Id of the annotation.
        frames: The two frames that differ, or the one frame.
        text: What it is.
        strength: How far it is from normal, for sorting; larger is worse.
    """

    video_id: int
    track_id: int
    frames: tuple[int, ...]
    text: str
    strength: float


@dataclass
class DataStatistics:
    """Counts over a data set; crowds are counted apart and nowhere else.

    Attributes:
        num_videos: Videos.
        num_frames: Frames.
        tracks: Tracks of each class.
        objects: Objects (a track in a frame) of each class.
        num_masks: Objects with a mask.
        num_crowds: Crowd objects.
        track_lengths: Frames in which each track is seen.
        sides: Square root of the area of each box, pixels of the file.
        shares: The same as a share of the frame's square root of area, 0..1.
        suspicions: Tracks to look at, the worst first.
        problems: Faults of the whole data set in words.
        notes: What else is worth knowing.
    """

    num_videos: int = 0
    num_frames: int = 0
    tracks: Counter[int] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)
    num_masks: int = 0
    num_crowds: int = 0
    track_lengths: list[int] = field(default_factory=list)
    sides: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    suspicions: list[Suspicion] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def describe_videos(videos: Sequence[Mapping[str, Any]]) -> DataStatistics:
    """Count objects and look for tracks that may be mistakes.

    Args:
        videos: Dataset dicts of ``load_ytvis_json``.
    """
    found = DataStatistics(len(videos), sum(len(video["file_names"]) for video in videos))
    without_objects = whole = gaps = 0
    for video in videos:
        tracks: dict[int, dict[int, Box]] = {}
        classes: dict[int, int] = {}
        root = (video["height"] * video["width"]) ** 0.5
        for t, objects in enumerate(video["annotations"]):
            for item in objects:
                if item["iscrowd"]:
                    found.num_crowds += 1
                    continue
                box = _xyxy(item)
                tracks.setdefault(item["id"], {})[t] = box
                classes[item["id"]] = item["category_id"]
                found.objects[item["category_id"]] += 1
                found.num_masks += "segmentation" in item
                side = _area(box) ** 0.5
                found.sides.append(side)
                found.shares.append(side / root)
                whole += side >= WHOLE_FRAME**0.5 * root
        without_objects += not tracks
        found.tracks.update(classes.values())
        for track_id, boxes in tracks.items():
            found.track_lengths.append(len(boxes))
            gaps += max(boxes) - min(boxes) + 1 > len(boxes)
            found.suspicions += _track_suspicions(video["video_id"], track_id, boxes)
        found.suspicions += _drawn_twice(video["video_id"], tracks, classes)
    found.suspicions.sort(key=lambda one: -one.strength)
    found.problems = _problems(found, without_objects, whole, gaps)
    return found


def _problems(found: DataStatistics, without_objects: int, whole: int, gaps: int) -> list[str]:
    single = sum(length == 1 for length in found.track_lengths)
    total = sum(found.objects.values())
    counted = (
        (without_objects, found.num_videos, "videos have no object"),
        (single, len(found.track_lengths), "tracks are seen in one frame only"),
        (gaps, len(found.track_lengths), "tracks have gaps (frames without the object between)"),
        (whole, total, "boxes cover the whole frame"),
        (total - found.num_masks if found.num_masks else 0, total, "objects have no mask"),
    )
    return [f"{count} of {of} {text}." for count, of, text in counted if count]


def _xyxy(item: Mapping[str, Any]) -> Box:
    box = BoxMode.convert(list(item["bbox"]), item["bbox_mode"], BoxMode.XYXY_ABS)
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _track_suspicions(video_id: int, track_id: int, boxes: Mapping[int, Box]) -> list[Suspicion]:
    """Jumps and changes of size between neighbouring frames."""
    steps = [(t, boxes[t], boxes[t + 1]) for t in sorted(boxes) if t + 1 in boxes]
    jumps = []
    for _, one, other in steps:
        size = ((_area(one) * _area(other)) ** 0.25) or 1.0
        across, down = (other[i] + other[i + 2] - one[i] - one[i + 2] for i in (0, 1))
        jumps.append(math.hypot(across, down) / 2 / size)
    found = []
    for index, (t, one, other) in enumerate(steps):
        rest = jumps[:index] + jumps[index + 1 :]
        usual = statistics.median(rest) if rest else 0.0
        jump = jumps[index]
        if jump > max(JUMP, TIMES_MEDIAN * usual):
            text = f"jumps by {jump:.1f} times its size (usually {usual:.2f})"
            found.append(Suspicion(video_id, track_id, (t, t + 1), text, jump))
        small, large = sorted((_area(one), _area(other)))
        factor = large / small if small else 0.0
        if factor > SIZE_CHANGE:
            text = f"its area changes {factor:.1f} times"
            found.append(Suspicion(video_id, track_id, (t, t + 1), text, factor / SIZE_CHANGE))
    return found


def _drawn_twice(
    video_id: int, tracks: Mapping[int, Mapping[int, Box]], classes: Mapping[int, int]
) -> list[Suspicion]:
    """Pairs of tracks of one class that have the same boxes wherever both are seen."""
    found = []
    ids = sorted(tracks)
    for place, one in enumerate(ids):
        for other in ids[place + 1 :]:
            shared = sorted(tracks[one].keys() & tracks[other].keys())
            if classes[one] != classes[other] or len(shared) < 2:
                continue
            if all(_iou(tracks[one][t], tracks[other][t]) >= TWICE for t in shared):
                text = f"has the boxes of track {other} in all {len(shared)} shared frames"
                found.append(Suspicion(video_id, one, (shared[0],), text, 10.0))
    return found


def _iou(one: Box, other: Box) -> float:
    inner = _area(
        (
            max(one[0], other[0]),
            max(one[1], other[1]),
            min(one[2], other[2]),
            min(one[3], other[3]),
        )
    )
    union = _area(one) + _area(other) - inner
    return inner / union if union else 0.0
