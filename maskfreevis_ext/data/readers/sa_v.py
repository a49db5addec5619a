"""SA-V (the data of SAM 2): a JSON a video, with an RLE for each annotated frame and object."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    MAX_FRAMES,
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.json_fields import MAX_ID, Entry, read_json
from maskfreevis_ext.data.readers.davis import OBJECT
from maskfreevis_ext.data.readers.files import list_files, unique_names, video_name
from maskfreevis_ext.data.readers.frames import listed_frames
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.readers.sa_v_masks import mask_set
from maskfreevis_ext.errors import DataError

_KINDS = ("_manual", "_auto")


@register_reader("sa-v")
def read_sa_v(path: str, options: ReadOptions) -> AnnotationSet:
    """Read SA-V JSON files; all objects are of the class "object".

    SA-V annotates every fourth frame; the frames of a video here are the annotated ones, with the
    file names that they have among all frames (00000, 00004, ...).

    Args:
        path: A file, a folder of files ``<video>_manual.json`` and ``<video>_auto.json``, or the
            PNG masks of the validation and test sets (``sa_v_masks.py``).
        options: ``images`` gives the names of the frames.

    Returns:
        A video for each file, or for each folder of masks.

    Raises:
        DataError: A file cannot be used.
    """
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(path, name) for name in list_files(path, ".json")]
        if not files:
            return mask_set(path, options)
    notes: Counter[str] = Counter()
    stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
    names = [video_name(stem) for stem in stems]
    for kind in _KINDS:
        shorter = [name.removesuffix(kind) for name in names]
        if len(set(shorter)) == len(shorter):  # both kinds of a video stay apart
            names = shorter
    names = unique_names(names)

    def load(i: int) -> Video:
        return _read_video(i + 1, names[i], files[i], options, notes, len(files) == 1)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(names)]
    return AnnotationSet(path, {1: OBJECT}, lazy, notes)


def _read_video(
    number: int,
    name: str,
    file: str,
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    entry = Entry(file, "the file", read_json(file))
    height, width = check_frame_size(
        _whole(entry, "video_height"), _whole(entry, "video_width"), file
    )
    masklet = entry.content.get("masklet")
    if not isinstance(masklet, list) or not 0 < len(masklet) <= MAX_FRAMES:
        raise entry.fail("masklet", "a list of one list a frame")
    ids = _ids(entry)
    step = _step(entry, len(masklet))
    title = entry.content.get("video_id")
    folder = video_name(title, name) if isinstance(title, str) else name
    names = _frame_names(folder, len(masklet), step, options, is_only)
    builder = VideoBuilder(Video(number, name, height, width, names), notes)
    for t, frame in enumerate(masklet):
        if not isinstance(frame, list) or len(frame) != len(ids):
            raise entry.fail(f"masklet[{t}]", f"a list of {len(ids)} masks, one for each object")
        for i, (key, mask) in enumerate(zip(ids, frame, strict=True)):
            builder.add(key, 1, t, f"{file}: masklet[{t}][{i}]", mask=mask)
    return builder.build()


def _whole(entry: Entry, field: str) -> Any:
    """A number that SA-V writes as a float."""
    value = entry.content.get(field)
    is_whole = isinstance(value, float) and abs(value) < MAX_ID and value == int(value)
    return int(value) if is_whole else value


def _ids(entry: Entry) -> list[int]:
    masklet = entry.content["masklet"]
    ids = entry.content.get("masklet_id")
    if ids is None:
        return list(range(len(masklet[0]) if isinstance(masklet[0], list) else 0))
    if not isinstance(ids, list) or any(type(i) is not int or not 0 <= i <= MAX_ID for i in ids):
        raise entry.fail("masklet_id", "a list of integers >= 0")
    if len(set(ids)) < len(ids):
        raise entry.fail("masklet_id", "a list of different integers")
    return ids


def _step(entry: Entry, annotated: int) -> int:
    """Frames of the video for one that is annotated."""
    total = _whole(entry, "video_frame_count")
    if total is None:
        return 1
    if type(total) is not int or not annotated <= total <= MAX_FRAMES:
        raise entry.fail("video_frame_count", f"an integer in {annotated}..{MAX_FRAMES}")
    for step in (1, 4, *range(2, total + 1)):
        if (total + step - 1) // step == annotated:
            return step
    raise entry.fail(
        "video_frame_count", f"a count of which every n-th frame gives the {annotated} of masklet"
    )


def _frame_names(
    name: str, length: int, step: int, options: ReadOptions, is_only: bool
) -> list[str]:
    if options.images is None:
        return [f"{name}/{t * step:05d}.jpg" for t in range(length)]
    listed = listed_frames(options.images, name, is_only)
    if len(listed) > (length - 1) * step:
        return listed[: (length - 1) * step + 1 : step]
    if len(listed) == length:  # only the annotated ones were kept
        return listed
    raise DataError(
        f"{os.path.join(options.images, name)}: expected {(length - 1) * step + 1} frames or the"
        f" {length} annotated ones, got {len(listed)}. Check --images."
    )
