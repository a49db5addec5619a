"""Tracks as files, written frame by frame: DAVIS masks, YouTube-VIS, COCO and MOTS.

Memory hardly grows with the video: masks go to the disk as they come. A file appears when it is
finished; pictures appear one by one. Shape letters: K objects of a frame, (H, W) its size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.writers.davis import save_index_png
from maskfreevis_ext.data.writers.mots import mots_line
from maskfreevis_ext.files import atomic_write
from maskfreevis_ext.inference.frame_tracks import FrameTracks

logger = logging.getLogger(__name__)


class FrameEntry(NamedTuple):
    """A frame with its objects, as track files take it.

    Attributes:
        number: Number of the frame among those that are written, from 0.
        name: File name of its picture.
        size: (H, W).
        tracks: The objects, the highest score first.
        rles: Compressed RLE of each, (K,).
    """

    number: int
    name: str
    size: tuple[int, int]
    tracks: FrameTracks
    rles: Sequence[Mapping[str, Any]]


class TrackFile(Protocol):
    """Writes the tracks of one video."""

    def write(self, frame: FrameEntry) -> None:
        """Add the next frame."""

    def finish(self) -> list[Path]:
        """Complete what was written; returns the files."""


def category_list(
    category_ids: Mapping[int, int], names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The categories of a COCO or YouTube-VIS file.

    Args:
        category_ids: Category id by label.
        names: Name of each label; None: "class 0", "class 1", ...
    """
    return [
        {"id": category_id, "name": names[label] if names else f"class {label}"}
        for label, category_id in category_ids.items()
    ]


class DavisMasks:
    """A PNG per frame whose pixels are track ids, in the colours of DAVIS; 0 is the ground.

    Where objects overlap, the one with the highest score is kept. A pixel has 8 bits: objects with
    an id above 255 are left out, with a warning.

    Args:
        folder: The folder of the pictures.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._left_out: set[int] = set()

    def write(self, frame: FrameEntry) -> None:
        """Write the picture of the next frame."""
        pixels = np.zeros(frame.size, np.uint8)
        for track_id, mask in zip(
            frame.tracks.track_ids[::-1], frame.tracks.masks[::-1], strict=True
        ):
            if track_id > 255:
                self._left_out.add(int(track_id))
            else:
                pixels[mask] = track_id
        self._files.append(self._folder / f"{Path(frame.name).stem}.png")
        with atomic_write(self._files[-1]) as file:
            save_index_png(pixels, file)

    def finish(self) -> list[Path]:
        """Warn of objects that were left out; returns the files."""
        if self._left_out:
            logger.warning(
                "%s: %d objects with ids above 255 do not fit into 8-bit masks and were left out.",
                *(self._folder, len(self._left_out)),
            )
        return self._files


class _OneFile:
    """A file that appears when it is finished.

    Args:
        path: The file; it is opened with the first frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = self._stack.enter_context(atomic_write(self.path))
        return self._file

    def _text(self, text: str) -> None:
        self._open().write(text.encode())

    def finish(self) -> list[Path]:
        """Complete the file; returns it."""
        if self._file is None:
            return []
        with self._stack:
            self._end()
        return [self.path]

    def _end(self) -> None:
        """Write what stands after the last frame."""


class MotsFile(_OneFile):
    """MOTSChallenge text: frame (from 1), id, class, height, width and RLE of each object a line.

    The objects of a frame do not overlap: the one with the highest score is kept.

    Args:
        path: The file.
        category_ids: Category id by label.
    """

    def __init__(self, path: Path, category_ids: Mapping[int, int]) -> None:
        super().__init__(path)
        self._category_ids = category_ids

    def write(self, frame: FrameEntry) -> None:
        """Add the lines of the next frame."""
        free = np.ones(frame.size, bool)
        lines = []
        tracks = frame.tracks
        for track_id, label, mask in zip(
            tracks.track_ids.tolist(), tracks.labels.tolist(), tracks.masks, strict=True
        ):
            visible = mask & free
            free &= ~mask
            if visible.any():
                rle = mask_util.encode(np.asfortranarray(visible, np.uint8))
                lines.append(mots_line(frame.number + 1, track_id, self._category_ids[label], rle))
        self._text("".join(lines))


class CocoFile(_OneFile):
    """A COCO data set: an image per frame; annotations also have ``track_id`` and ``score``.

    Args:
        path: The file.
        categories: See ``category_list``.
        category_ids: Category id by label.
    """

    def __init__(
        self, path: Path, categories: list[dict[str, Any]], category_ids: Mapping[int, int]
    ) -> None:
        super().__init__(path)
        self._categories = categories
        self._category_ids = category_ids
        self._images: list[dict[str, Any]] = []
        self._num_annotations = 0

    def write(self, frame: FrameEntry) -> None:
        """Add the next frame."""
        height, width = frame.size
        image_id = frame.number + 1
        image = {"id": image_id, "file_name": frame.name, "height": height, "width": width}
        self._images.append(image)
        if self._file is None:
            self._text('{"annotations": [')
        tracks = frame.tracks
        for track_id, label, score, rle in zip(
            tracks.track_ids.tolist(),
            tracks.labels.tolist(),
            tracks.scores.tolist(),
            frame.rles,
            strict=True,
        ):
            self._num_annotations += 1
            annotation = {
                "id": self._num_annotations,
                "image_id": image_id,
                "category_id": self._category_ids[label],
                "track_id": track_id,
                "score": round(score, 6),
                "iscrowd": 0,
                "area": int(mask_util.area(rle)),
                "bbox": mask_util.toBbox(rle).tolist(),
                "segmentation": rle,
            }
            comma = "," if self._num_annotations > 1 else ""
            self._text(f"{comma}\n{json.dumps(annotation, allow_nan=False)}")

    def _end(self) -> None:
        self._text(f'\n], "images": {json.dumps(self._images, allow_nan=False)}')
        self._text(f', "categories": {json.dumps(self._categories, allow_nan=False)}}}\n')


@dataclass
class _KeptTrack:
    """What is known of a track; its masks are in the spool."""

    label: int
    score: float
    frames: array = field(default_factory=lambda: array("q"))
    offsets: array = field(default_factory=lambda: array("q"))
    lengths: array = field(default_factory=lambda: array("q"))


class YtvisFile(_OneFile):
    """YouTube-VIS ``results.json``: an entry per track, with null in frames without the object.

    The class and score of a track are those of its last frame, where they are best known.

    Args:
        path: The file.
        video_id: Id of the video in the entries.
        category_ids: Category id by label.
    """

    def __init__(self, path: Path, video_id: int, category_ids: Mapping[int, int]) -> None:
        super().__init__(path)
        self._video_id = video_id
        self._category_ids = category_ids
        self._tracks: dict[int, _KeptTrack] = {}
        self._num_frames = 0
        self._size = (0, 0)
        self._spool: IO[bytes] | None = None

    def write(self, frame: FrameEntry) -> None:
        """Keep the masks of the next frame."""
        self._open()
        if self._spool is None:
            self._spool = self._stack.enter_context(tempfile.TemporaryFile(dir=self.path.parent))
        self._size, self._num_frames = frame.size, frame.number + 1
        tracks = frame.tracks
        for track_id, label, score, rle in zip(
            tracks.track_ids.tolist(),
            tracks.labels.tolist(),
            tracks.scores.tolist(),
            frame.rles,
            strict=True,
        ):
            track = self._tracks.setdefault(track_id, _KeptTrack(label, score))
            track.label, track.score = label, score
            counts = rle["counts"].encode("ascii")
            track.frames.append(frame.number)
            track.offsets.append(self._spool.tell())
            track.lengths.append(len(counts))
            self._spool.write(counts)

    def _end(self) -> None:
        self._text("[")
        ordered = sorted(self._tracks.values(), key=lambda track: -track.score)
        for number, track in enumerate(ordered):
            entry = {
                "video_id": self._video_id,
                "score": track.score,
                "category_id": self._category_ids[track.label],
                "segmentations": self._segmentations(track),
            }
            self._text(f"{',' if number else ''}\n{json.dumps(entry, allow_nan=False)}")
        self._text("\n]\n")

    def _segmentations(self, track: _KeptTrack) -> list[dict[str, Any] | None]:
        assert self._spool is not None
        entries: list[dict[str, Any] | None] = [None] * self._num_frames
        for frame, offset, length in zip(track.frames, track.offsets, track.lengths, strict=True):
            self._spool.seek(offset)
            counts = self._spool.read(length).decode("ascii")
            entries[frame] = {"size": list(self._size), "counts": counts}
        return entries
