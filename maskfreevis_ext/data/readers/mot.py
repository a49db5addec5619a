"""MOTChallenge text files (gt.txt, results of trackers): a box of a frame a line."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from maskfreevis_ext.data.annotation_form import AnnotationSet, Video, VideoBuilder
from maskfreevis_ext.data.readers.davis import OBJECT
from maskfreevis_ext.data.readers.files import read_text, real_number, whole_number
from maskfreevis_ext.data.readers.frames import frame_size
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.readers.sequences import (
    TrackedSequence,
    find_sequences,
    frames_of,
    sequence_set,
)
from maskfreevis_ext.errors import DataError

#: Classes of MOT16, MOT17 and MOT20.
MOT_CLASSES = dict(
    enumerate(
        (
            "pedestrian",
            "person on vehicle",
            "car",
            "bicycle",
            "motorbike",
            "non motorized vehicle",
            "static person",
            "distractor",
            "occluder",
            "occluder on the ground",
            "occluder full",
            "reflection",
            "crowd",
        ),
        start=1,
    )
)
IGNORED = "lines that the ground truth marks as not to be considered, left out"
NO_TRACK = "detections without a track (id -1) left out"


class _Line(NamedTuple):
    number: int
    frame: int
    key: int
    box: list[float]
    is_considered: bool
    class_id: int | None
    visibility: float


@register_reader("mot")
def read_mot(path: str, options: ReadOptions) -> AnnotationSet:
    """Read MOT text files: one file, or a folder of sequences with ``gt/gt.txt``.

    A line is ``frame, id, left, top, width, height, considered, class, visibility``; results of
    trackers (class -1, or none) and the ten columns of MOT15 have the class "object". Frames count
    from 1, or from 0 if a line says so. With ``seqinfo.ini``, as the challenges have it, pixels
    count from 1 too, as the challenges say; without, they are taken as they stand.

    Args:
        path: File or folder.
        options: ``images`` or ``size`` where there is no ``seqinfo.ini``.

    Returns:
        The sequences. Classes are those of ``labels.txt``, else those of MOT17.

    Raises:
        DataError: A file or a line cannot be used.
    """
    sequences = find_sequences(path)
    named = next((s.labels for s in sequences if s.labels), MOT_CLASSES)
    categories = {**named, max(named) + 1: OBJECT} if OBJECT not in named.values() else dict(named)
    return sequence_set(path, sequences, categories, options, _read_video)


def _read_video(
    sequence: TrackedSequence,
    number: int,
    categories: dict[int, str],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    lines = _lines(sequence.path)
    first, names, said = frames_of(sequence, [line.frame for line in lines], options, is_only)
    height, width = frame_size(sequence.name, names, options, said)
    builder = VideoBuilder(
        Video(number, sequence.name, height, width, names), notes, drops_outside=True
    )
    plain = next(key for key, name in categories.items() if name == OBJECT)
    for line in lines:
        where = f"{sequence.path}: line {line.number}"
        if line.key < 0:
            notes[NO_TRACK] += 1
            continue
        if not line.is_considered:
            notes[IGNORED] += 1
            continue
        class_id = plain if line.class_id is None else line.class_id
        if class_id not in categories:
            raise DataError(
                f"{where}: class must be in {min(categories)}..{max(categories)}, got {class_id}."
                " Name the classes, one a line, in labels.txt beside the file."
            )
        x, y, w, h = line.box
        shift = 1.0 if sequence.is_official else 0.0
        builder.add(
            line.key,
            class_id,
            line.frame - first,
            where,
            box=[x - shift, y - shift, w, h],
            occluded=line.visibility < 0.5,
        )
    return builder.build()


def _lines(path: str) -> list[_Line]:
    found = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{path}: line {number}"
        cells = text.split(",") if "," in text else text.split()
        while cells and not cells[-1].strip():
            cells.pop()
        if not 6 <= len(cells) <= 10:
            raise DataError(
                f"{where}: expected 'frame, id, left, top, width, height, considered, class,"
                f" visibility', got {len(cells)} values."
            )
        frame = whole_number(cells[0], f"{where}: frame")
        key = whole_number(cells[1], f"{where}: id", low=-1)
        sides = ("left", "top", "width", "height")
        box = [
            real_number(cell, f"{where}: {side}")
            for cell, side in zip(cells[2:6], sides, strict=True)
        ]
        rest = [real_number(cell, f"{where}: column {i}") for i, cell in enumerate(cells[6:], 7)]
        is_gt = len(rest) in (2, 3) and rest[1] >= 0  # otherwise a tracker's, or of MOT15
        class_id = whole_number(cells[7], f"{where}: class") if is_gt else None
        found.append(
            _Line(
                number,
                frame,
                key,
                box,
                rest[0] != 0 if rest and (is_gt or len(rest) == 4) else True,
                class_id,
                rest[2] if is_gt and len(rest) == 3 else 1.0,
            )
        )
    return found
