"""Plain CSV: one object of one frame a line."""

from __future__ import annotations

import csv

from maskfreevis_ext.data.annotation_form import AnnotationSet
from maskfreevis_ext.data.readers.csv_file import COLUMNS, EXTRA_COLUMNS
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer

MASKS_LOST = "masks, which this format does not hold"


@register_writer("csv", ".csv")
def write_csv(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write the boxes as CSV in UTF-8, sorted by video, frame and track.

    Args:
        dataset: The set.
        path: The file.
        options: ``first_frame``; frames count from 0 without it.

    Raises:
        DataError: A video cannot be read.
    """
    first = options.first_frame or 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *EXTRA_COLUMNS))
        for video in dataset:
            for t, name in enumerate(video.file_names):
                for track in video.tracks:
                    if t not in track.boxes:
                        continue
                    label = dataset.categories[track.category_id]
                    place = (video.name, t + first, track.id, label)
                    frame = (video.width, video.height, name)
                    writer.writerow((*place, *map(repr, track.boxes[t]), *frame))
                    dataset.notes[MASKS_LOST] += t in track.masks
