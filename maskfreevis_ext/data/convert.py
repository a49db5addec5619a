"""Conversion of annotation sets from any reader to any writer: checked, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.readers.frames import picture_size
from maskfreevis_ext.data.writers import WRITERS, WriteOptions
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import move_into_place

DROPPED_CLASS = "tracks left out, of the class"
MASKS_DROPPED = "masks left out (--to-boxes)"

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


def each_video(dataset: AnnotationSet, change: Callable[[Video], Video]) -> AnnotationSet:
    """The set with a function applied to every video when it is read.

    Args:
        dataset: The set.
        change: Takes and gives a video.
    """

    def load(video: LazyVideo) -> Callable[[], Video]:
        return lambda: change(video.load())

    videos = [LazyVideo(video.name, load(video)) for video in dataset.videos]
    return dataclasses.replace(dataset, videos=videos)


def drop_masks(dataset: AnnotationSet) -> AnnotationSet:
    """The set with boxes only.

    Args:
        dataset: The set; its notes count the masks.
    """

    def change(video: Video) -> Video:
        for track in video.tracks:
            dataset.notes[MASKS_DROPPED] += len(track.masks)
            track.masks = {}
        return video

    return each_video(dataset, change)


def read_class_map(path: str) -> dict[str, str | None]:
    """Read a mapping of classes: a JSON object {"old name": "new name", "other name": null}.

    Args:
        path: The file.

    Returns:
        New name, or None for what is dropped, by old name.

    Raises:
        DataError: The file is no such mapping, or drops everything.
    """
    mapping = read_json(path)
    for old, new in mapping.items():
        if new is not None and not (isinstance(new, str) and new):
            raise DataError(f"{path}: {old!r} must be mapped to a class name or null, got {new!r}.")
    if not any(mapping.values()):
        raise DataError(f"{path}: expected at least one class that is mapped to a name.")
    return mapping


def map_classes(
    dataset: AnnotationSet, mapping: Mapping[str, str | None], where: str
) -> AnnotationSet:
    """The set with renamed and joined classes; tracks of other classes are left out and counted.

    Args:
        dataset: The set.
        mapping: From ``read_class_map``. The new classes count from 1 in its order.
        where: File of the mapping, for messages.

    Returns:
        The set.

    Raises:
        DataError: No class of the set is in the mapping.
    """
    new_names = dict.fromkeys(new for new in mapping.values() if new is not None)
    numbers = {name: number for number, name in enumerate(new_names, start=1)}
    to_new = {
        old: numbers[new]
        for old, name in dataset.categories.items()
        if (new := mapping.get(name)) is not None
    }
    if not to_new:
        raise DataError(
            f"{where}: expected classes of {dataset.source}"
            f" ({', '.join(dataset.categories.values()):.200}), but it maps none of them."
        )

    def change(video: Video) -> Video:
        kept = []
        for track in video.tracks:
            if track.category_id in to_new:
                track.category_id = to_new[track.category_id]
                kept.append(track)
            else:
                dataset.notes[f"{DROPPED_CLASS} {dataset.categories[track.category_id]!r}"] += 1
        video.tracks = kept
        return video

    changed = each_video(dataset, change)
    return dataclasses.replace(changed, categories={n: name for name, n in numbers.items()})


def check_frames(dataset: AnnotationSet, images: str) -> AnnotationSet:
    """The set with a check, as each video is read, that its frames exist and have its size.

    Args:
        dataset: The set.
        images: Folder of the frames. Sizes are read from the header of each first frame.
    """

    def change(video: Video) -> Video:
        paths = [os.path.join(images, name.replace("\\", "/")) for name in video.file_names]
        head = {"video_id": video.id, "length": len(paths), "image_root": images}
        check_images([{**head, "file_names": paths}])
        height, width = picture_size(paths[0])
        if (height, width) != (video.height, video.width):
            raise DataError(
                f"{paths[0]}: the annotations of video {video.name!r} say {video.width} x"
                f" {video.height} pixels, the picture has {width} x {height}."
            )
        return video

    return each_video(dataset, change)


def split_videos(names: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Divide videos into training and validation, by a hash of their names.

    The same names give the same parts on every machine.

    Args:
        names: Names of the videos, unique.
        share: Part of the videos for validation, in (0, 1); at least one and not all.

    Returns:
        Positions of the training videos and of the validation videos, both ascending.

    Raises:
        ConfigError: The share is not in (0, 1).
        DataError: There are fewer than two videos.
    """
    if not 0 < share < 1:
        raise ConfigError(f"split: expected a number between 0 and 1, got {share}.")
    if len(names) < 2:
        raise DataError(f"split: expected at least two videos, got {len(names)}.")
    order = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(names[i].encode("utf-8")).digest()
    )
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    return sorted(order[count:]), sorted(order[:count])


@contextlib.contextmanager
def staged_outputs(
    paths: Sequence[str], is_folder: bool, inputs: Sequence[str], overwrite: bool
) -> Iterator[list[str]]:
    """Temporary outputs that become the real ones when the block ends without an error.

    Args:
        paths: Files or folders to write.
        is_folder: They are folders; each must be absent or empty.
        inputs: Paths that must not be written over.
        overwrite: Files that exist may be replaced.

    Yields:
        Paths to write to; folders exist.

    Raises:
        DataError: A path is an input or exists, or cannot be written.
    """
    for path in paths:
        _check_output(path, is_folder, inputs, overwrite)
    parent = os.path.dirname(os.path.abspath(paths[0]))
    try:
        os.makedirs(parent, exist_ok=True)
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
    except OSError as error:
        raise DataError(f"{paths[0]}: cannot be written: {error.strerror or error}.") from error


def _check_output(path: str, is_folder: bool, inputs: Sequence[str], overwrite: bool) -> None:
    real = os.path.realpath(path)
    for source in inputs:
        inside = os.path.commonpath([real, os.path.realpath(source)]) == real
        if inside:
            raise DataError(f"{path}: is the input {source}, or holds it; name another output.")
    if is_folder:
        if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise DataError(f"{path}: expected a new or empty folder. Name another output.")
    elif os.path.isdir(path):
        raise DataError(f"{path}: is a folder, but this format is written to a file.")
    elif os.path.lexists(path) and not overwrite:
        raise DataError(f"{path}: exists already. Name another output, or add --overwrite.")


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
        overwrite: Replace files that exist.
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
    if job.target_format not in WRITERS:
        known = ", ".join(sorted(WRITERS))
        raise ConfigError(f"format: can write {known}, got {job.target_format!r}.")
    writer = WRITERS[job.target_format]
    dataset = open_set(job.source_format, job.source, job.read, job.classes, job.to_boxes)
    parts = {job.target: dataset}
    if job.split is not None:
        names = [video.name for video in dataset.videos]
        both = split_videos(names, job.split)
        parts = {
            split_path(job.target, part, bool(writer.suffix)): dataset.subset(indices)
            for part, indices in zip(("train", "val"), both, strict=True)
        }
    inputs = [path for path in (job.source, job.read.images, job.classes) if path is not None]
    results: dict[str, tuple[Summary, Counter[str]]] = {}
    outputs = list(parts)
    with (
        staged_outputs(outputs, not writer.suffix, inputs, job.overwrite) as temporary,
        tqdm(total=len(dataset.videos), desc="videos", unit="video") as bar,
    ):
        for output, path in zip(outputs, temporary, strict=True):
            summary = Summary()
            part = _counted(parts[output], summary, bar)
            writer.write(part, path, job.write)
            results[output] = (summary, dataset.notes)
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
        What could be read, and the number of videos with a problem.
    """
    summary, problems = Summary(), 0
    for video in tqdm(dataset.videos, desc="videos", unit="video"):
        try:
            summary.add(video.load(), dataset.categories)
        except DataError as error:
            problems += 1
            if problems <= MAX_PROBLEMS:
                report(str(error))
    return summary, problems
