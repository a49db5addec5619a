"""Frames of annotated videos: from picture files, from a video file, or from a folder of those."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from maskfreevis_ext.data.frame_check import describe_frames, find_faults
from maskfreevis_ext.data.frame_files import VIDEO_SUFFIXES, check_images, check_inside
from maskfreevis_ext.data.frame_headers import read_headers
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES
from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.ytvis import DatasetDict
from maskfreevis_ext.errors import DataError, first_few
from maskfreevis_ext.inference.boxes_to_masks.chunks import Source
from maskfreevis_ext.inference.video_io import open_frames

logger = logging.getLogger(__name__)


class BrokenVideoError(DataError):
    """A video file ends before its last annotated frame."""


class PictureFiles:
    """Frames that lie in a file each.

    Args:
        video: Dict of ``load_ytvis_json``.
    """

    def __init__(self, video: DatasetDict) -> None:
        self._video = video

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8, RGB.

        Raises:
            DataError: A file is missing, damaged or of another size.
        """
        for index in indices:
            yield read_video_frame(self._video, index, "RGB")


class VideoFrames:
    """Frames of a video file, which is decoded from its beginning.

    Args:
        video: Dict of ``load_ytvis_json``.
        path: The video file.

    Raises:
        DataError: The file cannot be read, has fewer frames than are annotated, or frames of
            another size, but for the row or column that codecs add to odd sizes.
    """

    def __init__(self, video: DatasetDict, path: Path) -> None:
        self._frames = open_frames(path)
        self._video, self._path = video, path
        self._places = frame_places(video, self._frames.num_frames, path)
        self._cut(next(iter(self._frames)))

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8, RGB, by rising index.

        Raises:
            DataError: The frames have another size than the annotations say.
            BrokenVideoError: The video ends before the last of them.
        """
        wanted = [self._places[index] for index in indices]
        place = 0
        for number, frame in enumerate(self._frames):
            if place == len(wanted):
                return
            if number != wanted[place]:
                continue
            yield self._cut(frame)
            place += 1
        if place < len(wanted):
            raise BrokenVideoError(
                f"{self._path}: ends before frame {wanted[place]}, which is annotated in video"
                f" {self._video['video_id']}. Is the file complete?"
            )

    def _cut(self, frame: np.ndarray) -> np.ndarray:
        """A frame without the row and column that were added."""
        height, width = self._video["height"], self._video["width"]
        added = frame.shape[0] - height, frame.shape[1] - width
        if any(
            count not in (0, side % 2) for count, side in zip(added, (height, width), strict=True)
        ):
            raise DataError(
                f"{self._path}: expected frames of {width} x {height} pixels as the annotations of"
                f" video {self._video['video_id']} say, got {frame.shape[1]} x {frame.shape[0]}."
            )
        return np.ascontiguousarray(frame[:height, :width])


def frame_places(video: DatasetDict, num_frames: int, path: Path) -> list[int]:
    """Where the annotated frames lie in a video file.

    With as many annotated frames as the file has, they are its frames in order; otherwise the
    numbers in their names count, from 0.

    Args:
        video: Dict of ``load_ytvis_json``.
        num_frames: Frames of the file, as its header says; 0 if unknown.
        path: The file, for messages.

    Returns:
        Rising frame numbers from 0.

    Raises:
        DataError: The names have no rising numbers, or the file has fewer frames.
    """
    length = video["length"]
    if length == num_frames:
        return list(range(length))
    names = [re.findall(r"\d+", Path(name).stem) for name in video["file_names"]]
    places = [int(digits[-1]) for digits in names if digits]
    if len(places) < length or places != sorted(set(places)):
        raise DataError(
            f"{path}: has {num_frames} frames, video {video['video_id']} of the annotations"
            f" {length}, and its file names have no rising numbers that say which frames they are."
        )
    if num_frames and places[-1] >= num_frames:
        raise DataError(
            f"{path}: has {num_frames} frames, but video {video['video_id']} of the annotations"
            f" needs frame {places[-1]} ({video['file_names'][-1]}; the first frame is 0)."
        )
    return places


def open_sources(videos: Sequence[DatasetDict], images: str) -> dict[int, Source]:
    """Find the frames of all videos; of picture files the first one is checked.

    Args:
        videos: Dicts of ``load_ytvis_json`` with the image root ``images``.
        images: A folder with the frames or with video files, or one video file.

    Returns:
        Source by video id.

    Raises:
        DataError: Frames or videos are missing (all are counted), or of another size.
    """
    sources: dict[int, Source] = {}
    with_files: list[DatasetDict] = []
    if os.path.isfile(images):
        if len(videos) != 1:
            raise DataError(
                f"{images}: is one video file, but the annotations have {len(videos)} videos."
                " Give the folder of the video files or frames."
            )
        return {videos[0]["video_id"]: VideoFrames(videos[0], Path(images))}
    if not os.path.isdir(images):
        raise DataError(f"{images}: there is no such folder or video file.")
    files = {
        entry.stem: entry
        for entry in sorted(Path(images).iterdir())
        if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()
    }
    for entry in files.values():
        check_inside(entry, images, str(entry))
    for video in videos:
        path = None if os.path.isfile(video["file_names"][0]) else _video_file(video, files)
        if path is None:
            sources[video["video_id"]] = PictureFiles(video)
            with_files.append(video)
        else:
            sources[video["video_id"]] = VideoFrames(video, path)
    _check_pictures(with_files, images)
    return sources


def _check_pictures(videos: list[DatasetDict], images: str) -> None:
    """See that all frames exist and look at the first of each video."""
    check_images(videos)
    first = [{**video, "file_names": video["file_names"][:1]} for video in videos]
    headers = read_headers([video["file_names"][0] for video in videos])
    faults = find_faults(first, headers, DEFAULT_RULES)
    if faults:
        shown = first_few(faults, separator="; ")
        raise DataError(
            f"{images}: the first frames of {len(faults)} of {len(videos)} videos cannot be used:"
            f" {shown}."
        )
    for line in describe_frames(headers, DEFAULT_RULES):
        logger.warning("%s (first frames of the videos): %s", images, line)


def _video_file(video: DatasetDict, files: dict[str, Path]) -> Path | None:
    """The video file named like the folder of the frames, or the only one."""
    folder = Path(os.path.relpath(video["file_names"][0], video["image_root"])).parent
    for name in (folder.name, folder.as_posix().replace("/", "_"), str(video["video_id"])):
        if name in files:
            return files[name]
    return None
