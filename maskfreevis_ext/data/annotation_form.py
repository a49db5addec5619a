"""The form that every annotation format is read into and written from: videos, tracks, objects.

A reader (``data/readers``) gives an ``AnnotationSet``, a writer (``data/writers``) takes one. Its
videos are loaded one at a time, when they are asked for, so that a set of mask pictures or of many
files never lies in memory as a whole. Conventions, whatever the format counts in:

* frames count from 0, and frame t is ``file_names[t]``, relative to the image folder;
* a box is (x, y, width, height) in pixels, pixel i covering [i, i + 1], inside the frame;
* a mask is a compressed COCO RLE ``{"size": [H, W], "counts": bytes}`` that passed the checks of
  ``maskfreevis_ext.rle`` and has at least one pixel;
* an object of a track has a box in every frame in which it is present, and perhaps a mask; where
  a format has only the mask, the box is the tight one around it.

What a reader mends or leaves out is counted in ``AnnotationSet.notes``, never silent.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from pycocotools import mask as mask_util

from maskfreevis_ext.data.boxes import Box, clip_to_frame
from maskfreevis_ext.data.json_fields import MAX_ID, UNWRITABLE, short
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import MAX_SIDE, is_finite_number

#: A compressed RLE.
Rle = dict[str, Any]

#: Most pixels of a frame, and most frames of a video.
MAX_FRAME_PIXELS = 178_000_000
MAX_FRAMES = 1_000_000

CLIPPED = "boxes clipped to the frame"
NO_AREA = "boxes without area taken as absent"
OUTSIDE = "boxes wholly outside the frame taken as absent"
FROM_MASK = "boxes taken from masks"
BAD_POLYGONS = "polygons dropped (odd count of numbers, or fewer than 3 points)"
EMPTY_TRACKS = "tracks without any object"
MIXED_CLASS = "objects of another class than the first of their track (the first is kept)"


@dataclasses.dataclass(slots=True)
class Track:
    """One object through a video.

    Attributes:
        id: Number of the track, unique in its video.
        category_id: Key of ``AnnotationSet.categories``.
        boxes: Box by frame; its keys are the frames in which the object is present.
        masks: Mask by frame, for some, all or none of the frames with a box.
        occluded: Frames in which something hides a part of the object, where the format says so.
        is_crowd: The track is a group of objects: neither trained on nor counted as one.
        score: Confidence in [0, 1], for results.
    """

    id: int
    category_id: int
    boxes: dict[int, Box] = dataclasses.field(default_factory=dict)
    masks: dict[int, Rle] = dataclasses.field(default_factory=dict)
    occluded: set[int] = dataclasses.field(default_factory=set)
    is_crowd: bool = False
    score: float | None = None


@dataclasses.dataclass(slots=True)
class Video:
    """A video and its tracks.

    Attributes:
        id: Unique in its set.
        name: Unique in its set; a relative path with "/" that can name a folder.
        height: Of every frame, pixels.
        width: Of every frame, pixels.
        file_names: One path per frame, relative to the image folder.
        tracks: The tracks, each with at least one object.
    """

    id: int
    name: str
    height: int
    width: int
    file_names: list[str]
    tracks: list[Track] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class LazyVideo:
    """A video that has not been read yet.

    Attributes:
        name: Its name.
        load: Reads it; raises ``DataError``.
    """

    name: str
    load: Callable[[], Video]


@dataclasses.dataclass
class AnnotationSet:
    """Annotated videos of any format.

    Attributes:
        source: Path that they were read from, for messages.
        categories: Class names by id.
        videos: The videos, in order.
        notes: How often something was mended or left out, by what. Grows as videos are read.
        has_global_ids: Track ids are unique in the whole set, so that a writer can keep them.
        is_images: The set holds single pictures: each video has one frame.
        final_check: Called when all videos have been read; raises ``DataError`` where the set as a
            whole cannot be right.
    """

    source: str
    categories: dict[int, str]
    videos: Sequence[LazyVideo]
    notes: Counter[str]
    has_global_ids: bool = False
    is_images: bool = False
    final_check: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Check the names, which every writer must be able to write.

        Raises:
            DataError: The name of a class or a video has control characters or broken Unicode.
        """
        names = [("class", name) for name in self.categories.values()]
        names += [("video", video.name) for video in self.videos]
        for what, name in names:
            if UNWRITABLE.search(name):
                raise DataError(
                    f"{self.source}: the name of a {what} must be text without control characters,"
                    f" got {short(name)}."
                )

    def __iter__(self) -> Iterator[Video]:
        """Read one video after the other.

        Yields:
            The videos.

        Raises:
            DataError: A video cannot be used.
        """
        for video in self.videos:
            yield video.load()

    def subset(self, indices: Sequence[int]) -> AnnotationSet:
        """The same set with some of the videos; notes are shared.

        Args:
            indices: Positions in ``videos``.
        """
        return dataclasses.replace(self, videos=[self.videos[i] for i in indices])


def check_frame_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check the size of the frames of a video.

    Args:
        height: Pixels.
        width: Pixels.
        where: Start of an error message.

    Returns:
        (height, width).

    Raises:
        DataError: A side is no integer in 1..``MAX_SIDE``, or a frame is too large.
    """
    for name, side in (("width", width), ("height", height)):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise DataError(
                f"{where}: the {name} of a frame must be an integer in 1..{MAX_SIDE}, got"
                f" {short(side)}."
            )
    if height * width > MAX_FRAME_PIXELS:
        raise DataError(
            f"{where}: a frame must have at most {MAX_FRAME_PIXELS} pixels, got {width} x {height}."
        )
    return height, width


class VideoBuilder:
    """Collects the objects of a video in any order, checks them, and makes the ``Video``.

    Args:
        video: The video without tracks; its size must have been checked.
        notes: Where mended and left out objects are counted.
        drops_outside: A box wholly outside the frame is counted and left out (formats of trackers,
            whose boxes follow objects out of view); otherwise it is an error.
    """

    def __init__(self, video: Video, notes: Counter[str], drops_outside: bool = False) -> None:
        self.video, self.notes, self.drops_outside = video, notes, drops_outside
        self._tracks: dict[Hashable, Track] = {}

    def add(
        self,
        key: Hashable,
        category_id: int,
        frame: int,
        where: str,
        *,
        box: Any = None,
        mask: Any = None,
        occluded: bool = False,
        is_crowd: bool = False,
    ) -> None:
        """Add the object of a track in a frame.

        Args:
            key: The track: an integer, or any name.
            category_id: Its class.
            frame: Frame, from 0.
            where: Start of an error message: file, entry or line.
            box: x, y, width, height, unchecked; None where there is only a mask.
            mask: RLE, compressed or not, or list of polygons, unchecked; None where there is none.
            occluded: Something hides a part of the object.
            is_crowd: The object is a group.

        Raises:
            DataError: The frame, the box or the mask cannot be right, or the track has an object
                in this frame already.
        """
        length = len(self.video.file_names)
        if not 0 <= frame < length:
            raise DataError(
                f"{where}: the frame must be in 0..{length - 1} (counted from 0) of the video"
                f" {self.video.name!r}, got {frame}."
            )
        rle, area, dropped = segmentation_to_rle(mask, self.video.height, self.video.width, where)
        self.notes[BAD_POLYGONS] += dropped
        clipped = None if box is None else self._clip(box, where)
        if clipped is None and area:
            x, y, w, h = (float(number) for number in mask_util.toBbox(rle))
            clipped = (x, y, w, h)
            self.notes[FROM_MASK] += 1
        track = self._track(key, category_id, is_crowd)
        if clipped is None:
            return
        if frame in track.boxes:
            raise DataError(
                f"{where}: track {key!r} of video {self.video.name!r} is in frame {frame} twice."
                " Give every object of a frame its own id."
            )
        track.boxes[frame] = clipped
        if rle is not None and area:
            track.masks[frame] = rle
        if occluded:
            track.occluded.add(frame)

    def _track(self, key: Hashable, category_id: int, is_crowd: bool) -> Track:
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = Track(0, category_id, is_crowd=is_crowd)
        self.notes[MIXED_CLASS] += track.category_id != category_id
        return track

    def _clip(self, raw: Any, where: str) -> Box | None:
        """The box inside the frame, or None if nothing of it is."""
        if not (
            isinstance(raw, (list, tuple)) and len(raw) == 4 and all(map(is_finite_number, raw))
        ):
            raise DataError(
                f"{where}: a box must be 4 finite numbers [x, y, width, height], got {short(raw)}."
            )
        x, y, width, height = (float(number) for number in raw)
        if width < 0 or height < 0:
            raise DataError(
                f"{where}: the width and height of a box must not be negative, got {short(raw)}."
            )
        if width == 0 or height == 0:
            self.notes[NO_AREA] += 1
            return None
        box, is_clipped = clip_to_frame((x, y, width, height), self.video.height, self.video.width)
        if box is None and not self.drops_outside:
            size = f"{self.video.width} x {self.video.height}"
            raise DataError(
                f"{where}: the box {short(raw)} lies outside the frame of {size} pixels. Boxes are"
                " [x, y, width, height], not corners."
            )
        self.notes[CLIPPED if box else OUTSIDE] += is_clipped
        return box

    def build(self) -> Video:
        """Number the tracks and put those with objects into the video.

        Integer keys become the ids; if one key is something else, tracks count from 1.

        Returns:
            The video.
        """
        keys = list(self._tracks)
        is_numbered = all(type(key) is int and 0 <= key <= MAX_ID for key in keys)
        for number, key in enumerate(keys, start=1):
            track = self._tracks[key]
            track.id = key if is_numbered else number  # type: ignore[assignment]
            if track.boxes:
                self.video.tracks.append(track)
            else:
                self.notes[EMPTY_TRACKS] += 1
        return self.video
