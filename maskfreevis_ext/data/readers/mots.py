"""MOTS text files (KITTI MOTS, MOTSChallenge): frame, id, class, height, width, RLE a line."""

from __future__ import annotations

from collections import Counter

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.readers.files import read_text, whole_number
from maskfreevis_ext.data.readers.frames import frame_size
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.readers.sequences import (
    TrackedSequence,
    find_sequences,
    frames_of,
    sequence_set,
)
from maskfreevis_ext.errors import DataError

#: Class of regions that are not annotated, and the classes where no labels.txt names them.
IGNORED_CLASS = 10
MOTS_CLASSES = {1: "car", 2: "pedestrian"}
IGNORED = "ignored regions left out"

Line = tuple[int, int, int, int, tuple[int, int], str]  # number, frame, id, class, size, counts


@register_reader("mots")
def read_mots(path: str, options: ReadOptions) -> AnnotationSet:
    """Read MOTS text files: one file, or a folder with one for each sequence.

    Frames count from 1, as in MOTSChallenge, or from 0, as in KITTI MOTS, if a line or the names
    of the pictures say so. Class names are those of ``labels.txt``, else car and pedestrian.

    Args:
        path: File or folder.
        options: What the files leave open.

    Returns:
        The sequences.

    Raises:
        DataError: A file or a line cannot be used.
    """
    sequences = find_sequences(path)
    categories = next((s.labels for s in sequences if s.labels), MOTS_CLASSES)
    return sequence_set(path, sequences, dict(categories), options, _read_video)


def _read_video(
    sequence: TrackedSequence,
    number: int,
    categories: dict[int, str],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    lines = _lines(sequence.path)
    first, names, said = frames_of(sequence, [line[1] for line in lines], options, is_only)
    sizes = [line[4] for line in lines]
    height, width = frame_size(sequence.name, names, options, sizes[0] if sizes else said)
    builder = VideoBuilder(Video(number, sequence.name, height, width, names), notes)
    for line, frame, key, class_id, size, counts in lines:
        where = f"{sequence.path}: line {line}"
        if class_id == IGNORED_CLASS and class_id not in categories:
            notes[IGNORED] += 1
            continue
        if class_id not in categories:
            known = ", ".join(f"{i} {name}" for i, name in categories.items())
            raise DataError(
                f"{where}: class must be one of {known:.200}, got {class_id}. Name the classes,"
                " one a line, in labels.txt beside the file."
            )
        builder.add(
            key, class_id, frame - first, where, mask={"size": list(size), "counts": counts}
        )
    return builder.build()


def _lines(path: str) -> list[Line]:
    found = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        cells = text.split()
        if not cells:
            continue
        where = f"{path}: line {number}"
        if len(cells) != 6:
            raise DataError(
                f"{where}: expected 'frame id class height width rle', got {len(cells)} values."
            )
        frame, key, class_id, height, width = (
            whole_number(cell, f"{where}: {name}")
            for cell, name in zip(cells, ("frame", "id", "class", "height", "width"), strict=False)
        )
        size = check_frame_size(height, width, where)
        found.append((number, frame, key, class_id, size, cells[5]))
    return found
