"""MOTS text files: one a video, with ``labels.txt``, the names of the classes."""

from __future__ import annotations

import os

from maskfreevis_ext.data.annotation_form import AnnotationSet, Rle, Video
from maskfreevis_ext.data.readers.sequences import LABELS
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer
from maskfreevis_ext.data.writers.ytvis import json_rle
from maskfreevis_ext.errors import DataError

BOXES_LOST = "boxes without mask left out, as this format holds masks only"
#: Ids are class x 1000 + instance.
INSTANCES = 1000


@register_writer("mots")
def write_mots(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write ``<video>/gt/gt.txt`` with lines ``frame id class height width rle``.

    This is the layout of MOTSChallenge, with ``seqinfo.ini``; frames count from 1. With
    ``options.first_frame`` 0 it is that of KITTI MOTS: ``<video>.txt``. Classes count from 1 in the
    order of their ids, with their names in ``labels.txt``; the id of a track is class x 1000 + its
    number in the class (ids that are such numbers stay).

    Args:
        dataset: The set.
        path: The folder.
        options: ``first_frame``.

    Raises:
        DataError: A video cannot be read, or has more than 999 tracks of a class.
    """
    numbers = {key: i for i, key in enumerate(dataset.categories, start=1)}
    first = 1 if options.first_frame is None else options.first_frame
    for video in dataset:
        folder = os.path.join(path, *video.name.split("/"))
        target = os.path.join(folder, "gt", "gt.txt") if first else f"{folder}.txt"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="ascii", newline="\n") as file:
            file.writelines(_lines(dataset, video, numbers, first))
        labels = os.path.join(os.path.dirname(target), LABELS)
        with open(labels, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{name}\n" for name in dataset.categories.values())
        if first:
            _write_seqinfo(video, os.path.join(folder, "seqinfo.ini"))


def mots_line(frame: int, track_id: int, class_id: int, rle: Rle) -> str:
    """A line of a MOTS file: frame, id, class, height, width and RLE of an object.

    Args:
        frame: Number of the frame.
        track_id: Id of the object.
        class_id: Its class.
        rle: Its mask, compressed.
    """
    mask = json_rle(rle)
    height, width = mask["size"]
    return f"{frame} {track_id} {class_id} {height} {width} {mask['counts']}\n"


def _write_seqinfo(video: Video, path: str) -> None:
    values = {
        "name": os.path.basename(video.name),
        "imDir": "img1",
        "seqLength": len(video.file_names),
        "imWidth": video.width,
        "imHeight": video.height,
        "imExt": os.path.splitext(video.file_names[0])[1],
    }
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("[Sequence]\n")
        file.writelines(f"{key}={value}\n" for key, value in values.items())


def _lines(dataset: AnnotationSet, video: Video, numbers: dict[int, int], first: int) -> list[str]:
    ids: dict[int, int] = {}
    for class_key, class_id in numbers.items():
        tracks = [t for t in video.tracks if t.masks and t.category_id == class_key]
        if len(tracks) >= INSTANCES:
            raise DataError(
                f"video {video.name!r}: MOTS holds at most {INSTANCES - 1} tracks of a class, got"
                f" {len(tracks)} of {dataset.categories[class_key]!r}."
            )
        is_numbered = all(track.id // INSTANCES == class_id for track in tracks)
        for number, track in enumerate(tracks, start=1):
            ids[track.id] = track.id if is_numbered else class_id * INSTANCES + number
    lines = []
    for t in range(len(video.file_names)):
        for track in video.tracks:
            if t in track.masks:
                class_id = numbers[track.category_id]
                lines.append(mots_line(t + first, ids[track.id], class_id, track.masks[t]))
            elif t in track.boxes:
                dataset.notes[BOXES_LOST] += 1
    return lines
