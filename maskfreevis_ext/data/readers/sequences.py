"""Folders of the MOT challenges: a text file, ``seqinfo.ini`` and ``labels.txt`` a sequence."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    check_frame_size,
)
from maskfreevis_ext.data.json_fields import MAX_NAME
from maskfreevis_ext.data.readers.files import (
    read_ini,
    read_text,
    unique_names,
    video_name,
    walk_folders,
    whole_number,
)
from maskfreevis_ext.data.readers.frames import (
    frame_names,
    frame_number,
    listed_frames,
)
from maskfreevis_ext.data.readers.options import ReadOptions
from maskfreevis_ext.errors import DataError

#: Names of classes, one a line; what CVAT writes beside its MOT and MOTS files.
LABELS = "labels.txt"
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}")


@dataclasses.dataclass(frozen=True)
class TrackedSequence:
    """A sequence of a tracking challenge.

    Attributes:
        name: Of the video.
        path: Its text file.
        size: (height, width) of ``seqinfo.ini``, or None.
        length: Frames, by ``seqinfo.ini``, or None.
        pattern: Name of a frame by its number, by ``seqinfo.ini``; "{:06d}.jpg" without.
        is_official: There is a ``seqinfo.ini``.
        labels: Class names by number from 1, of ``labels.txt``; empty without.
    """

    name: str
    path: str
    size: tuple[int, int] | None
    length: int | None
    pattern: str
    is_official: bool
    labels: dict[int, str]


#: Reads a sequence: it, its number, the categories, what files leave open, the notes of the set,
#: and whether there is no other sequence.
ReadSequence = Callable[
    [TrackedSequence, int, dict[int, str], ReadOptions, Counter[str], bool], Video
]


def sequence_set(
    path: str,
    sequences: Sequence[TrackedSequence],
    categories: dict[int, str],
    options: ReadOptions,
    read: ReadSequence,
) -> AnnotationSet:
    """A set of sequences that are read when they are needed.

    Args:
        path: Where they were found.
        sequences: From ``find_sequences``.
        categories: Class names by number.
        options: What the files leave open.
        read: Reads one of them.
    """
    notes: Counter[str] = Counter()
    is_only = len(sequences) == 1
    lazy = [
        LazyVideo(each.name, partial(read, each, number, categories, options, notes, is_only))
        for number, each in enumerate(sequences, start=1)
    ]
    return AnnotationSet(path, categories, lazy, notes)


def find_sequences(path: str) -> list[TrackedSequence]:
    """The sequences under a path.

    Args:
        path: A text file, or a folder with text files at any depth. ``<sequence>/gt/gt.txt`` is
            named after the sequence, another file after itself.

    Raises:
        DataError: There is none, or a file beside them cannot be used.
    """
    if os.path.isfile(path):
        files, root = [path], os.path.dirname(path) or "."
    else:
        root = path
        files = [
            os.path.join(path, folder, name)
            for folder, names in walk_folders(path, ".txt")
            for name in names
            if name.lower() != LABELS
        ]
        officials = [file for file in files if os.path.basename(file).lower() == "gt.txt"]
        files = officials or files  # challenges keep detections and the like beside them
    if not files:
        raise DataError(f"{path}: expected text files of sequences, but there is none.")
    names = unique_names(_name(file, root) for file in files)
    return [_sequence(name, file, root) for name, file in zip(names, files, strict=True)]


def _name(file: str, root: str) -> str:
    folder, base = os.path.split(os.path.abspath(file))
    stem = os.path.splitext(base)[0]
    if stem.lower() != "gt":
        inner = os.path.relpath(os.path.join(folder, stem), os.path.abspath(root))
        return video_name(inner.replace(os.sep, "/"))
    if os.path.basename(folder).lower() == "gt":
        folder = os.path.dirname(folder)
    inner = os.path.relpath(folder, os.path.abspath(root)).replace(os.sep, "/")
    # The file or the folder of one sequence may be given itself.
    return video_name(os.path.basename(folder) if inner.startswith(".") else inner)


def _sequence(name: str, file: str, root: str) -> TrackedSequence:
    folder = os.path.dirname(os.path.abspath(file))
    labels: dict[int, str] = {}
    for place in dict.fromkeys((folder, os.path.abspath(root))):
        if not labels and os.path.isfile(os.path.join(place, LABELS)):
            labels = read_labels(os.path.join(place, LABELS))
    ini = next(
        (
            os.path.join(place, "seqinfo.ini")
            for place in (folder, os.path.dirname(folder))
            if os.path.isfile(os.path.join(place, "seqinfo.ini"))
        ),
        None,
    )
    if ini is None:
        return TrackedSequence(name, file, None, None, "{:06d}.jpg", False, labels)
    values = read_ini(ini, "Sequence")
    sides = [whole_number(values.get(key, ""), f"{ini}: {key}") for key in ("imheight", "imwidth")]
    size = check_frame_size(sides[0], sides[1], ini)
    length = whole_number(values.get("seqlength", ""), f"{ini}: seqLength", 1)
    ending = values.get("imext", ".jpg")
    if not _ENDING.fullmatch(ending):
        raise DataError(f"{ini}: imExt: expected an ending such as .jpg, got {ending!r:.60}.")
    return TrackedSequence(name, file, size, length, "{:06d}" + ending, True, labels)


def read_labels(path: str) -> dict[int, str]:
    """Read class names, one a line.

    Args:
        path: The file.

    Returns:
        Names by number, from 1.

    Raises:
        DataError: It cannot be read, or a name is empty or there twice.
    """
    names = [line.strip() for line in read_text(path).split("\n")]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, start=1):
        if not 0 < len(name) <= MAX_NAME or name in names[: number - 1]:
            raise DataError(
                f"{path}: line {number}: expected the name of a class, each once, got {name!r:.60}."
            )
    return dict(enumerate(names, start=1))


def _first_number(
    sequence: TrackedSequence, numbers: Sequence[int], options: ReadOptions, is_only: bool
) -> int:
    """The number that the first frame has in a sequence's file.

    Args:
        sequence: The sequence.
        numbers: The frames of its lines.
        options: ``first_frame`` decides; else the names of the frames in ``images``.
        is_only: There is no other sequence.

    Returns:
        0 or 1: the challenges count from 1, KITTI from 0.
    """
    if options.first_frame is not None:
        return options.first_frame
    if 0 in numbers:
        return 0
    if options.images is not None and not sequence.is_official:
        names = listed_frames(options.images, sequence.name, is_only)
        # KITTI's pictures count from 0, and so do its lines, even if frame 0 is without objects.
        if names and frame_number(names[0]) == 0 and max(numbers, default=0) < len(names):
            return 0
    return 1


def frames_of(
    sequence: TrackedSequence, numbers: Sequence[int], options: ReadOptions, is_only: bool
) -> tuple[int, list[str], tuple[int, int] | None]:
    """First number, names and, where something says it, size of a sequence's frames.

    Args:
        sequence: The sequence.
        numbers: The frames of its lines.
        options: ``images`` and ``size``.
        is_only: There is no other sequence.

    Returns:
        Number of the first frame, file names, and (height, width) of ``seqinfo.ini`` or None.

    Raises:
        DataError: There are fewer frames than the lines need.
    """
    first = _first_number(sequence, numbers, options, is_only)
    length = max(numbers, default=first) - first + 1
    if sequence.length is not None and length > sequence.length:
        raise DataError(
            f"{sequence.path}: has frame {length - 1 + first}, but seqinfo.ini says seqLength"
            f" {sequence.length}."
        )
    length = sequence.length or max(length, 1)
    names = frame_names(
        sequence.name,
        length,
        options,
        lambda t: f"{sequence.name}/{sequence.pattern.format(t + first)}",
        is_only,
    )
    return first, names, sequence.size
