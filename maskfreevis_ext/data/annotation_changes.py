"""Changes of annotation sets, made to each video as it is read: classes, masks, names of frames."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video
from maskfreevis_ext.data.frame_files import check_images, similar_name
from maskfreevis_ext.data.images import image_size
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.errors import ConfigError, DataError

DROPPED_CLASS = "tracks left out, of the class"
MENDED_NAMES = "file names corrected in case or ending to those in the image folder"
MASKS_DROPPED = "masks left out (--to-boxes)"


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

    A name that differs from that of a file in case or ending alone is corrected and counted.

    Args:
        dataset: The set.
        images: Folder of the frames. Sizes are read from the header of each first frame.
    """

    def change(video: Video) -> Video:
        _mend_names(video, images, dataset.notes)
        paths = [os.path.join(images, name) for name in video.file_names]
        head = {"video_id": video.id, "length": len(paths), "image_root": images}
        check_images([{**head, "file_names": paths}])
        height, width = image_size(paths[0])
        if (height, width) != (video.height, video.width):
            raise DataError(
                f"{paths[0]}: the annotations of video {video.name!r} say {video.width} x"
                f" {video.height} pixels, the picture has {width} x {height}."
            )
        return video

    return each_video(dataset, change)


def _mend_names(video: Video, images: str, notes: Counter[str]) -> None:
    listed: dict[str, list[str]] = {}
    for t, name in enumerate(video.file_names):
        if os.path.isfile(os.path.join(images, name)):
            continue
        folder, base = os.path.split(name)
        if folder not in listed:
            place = os.path.join(images, folder)
            listed[folder] = os.listdir(place) if os.path.isdir(place) else []
        other = similar_name(base, listed[folder])
        if other is not None:
            video.file_names[t] = os.path.join(folder, other)
            notes[MENDED_NAMES] += 1


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
