"""Conversion of annotation sets from any reader to any writer: checked, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from maskfreevis_ext.data.annotation_changes import (
    check_frames,
    drop_masks,
    each_video,
    map_classes,
    read_class_map,
    split_videos,
)
from maskfreevis_ext.data.annotation_form import AnnotationSet, Video
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.writers import WRITERS, WriteOptions
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import check_outputs, mark_outputs, move_into_place

_PARTS = ("train", "val")  # of a split
#: Problems that ``check_annotations`` describes; the rest is only counted.
MAX_PROBLEMS = 50


@dataclasses.dataclass
class Summary:
    """What a set holds.

    Attributes:
        videos: Number of videos.
        frames: Of all videos.
        tracks: Of all videos.
        boxes: Objects in frames.
        masks: Objects in frames with a mask.
        classes: Tracks by class name; every class is there.
    """

    videos: int = 0
    frames: int = 0
    tracks: int = 0
    boxes: int = 0
    masks: int = 0
    classes: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, video: Video, categories: Mapping[int, str]) -> None:
        """Count a video.

        Args:
            video: The video.
            categories: Class names by id.
        """
        self.videos += 1
        self.frames += len(video.file_names)
        self.tracks += len(video.tracks)
        self.boxes += sum(len(track.boxes) for track in video.tracks)
        self.masks += sum(len(track.masks) for track in video.tracks)
        self.classes.update(categories[track.category_id] for track in video.tracks)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.videos} videos, {self.frames} frames, {self.tracks} tracks, {self.boxes} boxes,"
            f" {self.masks} masks"
        )


@contextlib.contextmanager
def staged_outputs(
    paths: Sequence[str], is_folder: bool, inputs: Sequence[str], overwrite: bool
) -> Iterator[list[str]]:
    """Temporary outputs that become the real ones when the block ends without an error.

    Args:
        paths: Files or folders to write.
        is_folder: They are folders; each must be absent or empty.
        inputs: Paths that must not be written over.
        overwrite: Files of other origin may be replaced, too.

    Yields:
        Paths to write to; folders exist.

    Raises:
        DataError: A path is an input or must not be replaced, or cannot be written.
    """
    _check_paths(paths, is_folder, inputs, overwrite)
    parent = os.path.dirname(os.path.abspath(paths[0]))
    while not os.path.lexists(parent):  # made at the end only
        parent = os.path.dirname(parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".convert_", dir=parent) as folder:
            temporary = [os.path.join(folder, str(i)) for i in range(len(paths))]
            if is_folder:
                for path in temporary:
                    os.mkdir(path)
            yield temporary
            for source, path in zip(temporary, paths, strict=True):
                os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
                if is_folder:
                    os.replace(source, path)
                else:
                    move_into_place(source, path)
                    mark_outputs([path])
    except OSError as error:
        raise DataError(f"{paths[0]}: cannot be written: {error.strerror or error}.") from error


def check_target(job: Conversion, *more: str) -> tuple[list[str], list[str]]:
    """Check the outputs of a conversion before its inputs are read.

    Args:
        job: The conversion.
        more: Further files that are read.

    Returns:
        The outputs and the inputs.

    Raises:
        DataError: An output is an input or must not be replaced, or cannot be written.
        ConfigError: There is no such format.
    """
    if job.target_format not in WRITERS:
        known = ", ".join(sorted(WRITERS))
        raise ConfigError(f"format: can write {known}, got {job.target_format!r}.")
    is_file = bool(WRITERS[job.target_format].suffix)
    outputs = [job.target]
    if job.split is not None:
        outputs = [split_path(job.target, part, is_file) for part in _PARTS]
    inputs = [path for path in (job.source, job.read.images, job.classes, *more) if path]
    # Of a folder of annotations all files may be read, also those that a tool has made.
    root = Path(os.path.realpath(job.source))
    inputs += [
        path
        for path in outputs
        if is_file and os.path.exists(path) and root in Path(os.path.realpath(path)).parents
    ]
    _check_paths(outputs, not is_file, inputs, job.overwrite)
    return outputs, inputs


def _check_paths(
    paths: Sequence[str], is_folder: bool, inputs: Sequence[str], overwrite: bool
) -> None:
    if is_folder:
        check_outputs([], inputs, new_folders=paths)
    else:
        check_outputs(paths, inputs, overwrite=overwrite)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What to convert into what.

    Attributes:
        source_format: A name in ``READERS``.
        source: File or folder.
        target_format: A name in ``WRITERS``.
        target: File or folder; with ``split`` the folders ``train`` and ``val`` in it, or the files
            ``<name>_train`` and ``<name>_val``.
        read: What the annotations leave open.
        write: Choices of the writer.
        classes: File of a mapping of classes, or None.
        split: Part of the videos for validation, or None.
        to_boxes: Leave masks out.
        overwrite: Replace files of other origin, too.
    """

    source_format: str
    source: str
    target_format: str
    target: str
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    write: WriteOptions = dataclasses.field(default_factory=WriteOptions)
    classes: str | None = None
    split: float | None = None
    to_boxes: bool = False
    overwrite: bool = False


def open_set(
    name: str, path: str, read: ReadOptions, classes: str | None = None, to_boxes: bool = False
) -> AnnotationSet:
    """Open annotations, with what is wanted done to each video as it is read.

    Args:
        name: Format.
        path: File or folder.
        read: What the annotations leave open; with ``images`` frames are checked.
        classes: File of a mapping of classes, or None.
        to_boxes: Leave masks out.

    Returns:
        The set.

    Raises:
        DataError: The annotations or the mapping cannot be used.
        ConfigError: There is no such format.
    """
    mapping = None if classes is None else read_class_map(classes)
    dataset = read_annotations(name, path, read)
    if read.images is not None:
        dataset = check_frames(dataset, read.images)
    if mapping is not None:
        dataset = map_classes(dataset, mapping, str(classes))
    return drop_masks(dataset) if to_boxes else dataset


def convert(job: Conversion) -> dict[str, tuple[Summary, Counter[str]]]:
    """Convert annotations; outputs appear when everything has been read and written.

    Args:
        job: What to convert.

    Returns:
        What each output holds, and notes of what was mended or left out, by its path. All outputs
        share the notes.

    Raises:
        DataError: The annotations cannot be used, or an output cannot be written.
        ConfigError: There is no such format.
    """
    outputs, inputs = check_target(job)
    writer = WRITERS[job.target_format]
    dataset = open_set(job.source_format, job.source, job.read, job.classes, job.to_boxes)
    parts = {job.target: dataset}
    if job.split is not None:
        names = [video.name for video in dataset.videos]
        both = split_videos(names, job.split)
        parts = {path: dataset.subset(indices) for path, indices in zip(outputs, both, strict=True)}
    results: dict[str, tuple[Summary, Counter[str]]] = {}
    with (
        staged_outputs(outputs, not writer.suffix, inputs, job.overwrite) as temporary,
        tqdm(total=len(dataset.videos), desc="videos", unit="video") as bar,
    ):
        for output, path in zip(outputs, temporary, strict=True):
            summary = Summary()
            part = _counted(parts[output], summary, bar)
            writer.write(part, path, job.write)
            results[output] = (summary, dataset.notes)
        dataset.final_check()
    return results


def _counted(dataset: AnnotationSet, summary: Summary, bar: Any) -> AnnotationSet:
    def change(video: Video) -> Video:
        summary.add(video, dataset.categories)
        bar.update()
        return video

    return each_video(dataset, change)


def split_path(path: str, part: str, is_file: bool) -> str:
    """Output of a part: ``out/train``, or ``out_train.json`` for a file.

    Args:
        path: The output.
        part: "train" or "val".
        is_file: It is a file.
    """
    if not is_file:
        return os.path.join(path, part)
    stem, ending = os.path.splitext(path)
    return f"{stem}_{part}{ending}"


def check_annotations(dataset: AnnotationSet, report: Callable[[str], None]) -> tuple[Summary, int]:
    """Read everything; videos that cannot be used are reported, and the rest is read all the same.

    Args:
        dataset: The set.
        report: Called with each problem, ``MAX_PROBLEMS`` times at most.

    Returns:
        What could be read, and the number of problems: videos, and the set as a whole.
    """
    summary, problems = Summary(), 0
    for video in tqdm(dataset.videos, desc="videos", unit="video"):
        try:
            summary.add(video.load(), dataset.categories)
        except DataError as error:
            problems += 1
            if problems <= MAX_PROBLEMS:
                report(str(error))
    try:
        dataset.final_check()
    except DataError as error:
        problems += 1
        report(str(error))
    return summary, problems
