"""DAVIS 2017: a PNG a frame, whose palette index is the object; classes in ``meta.json``."""

from __future__ import annotations

import os
from typing import IO, Any

import numpy as np
from PIL import Image

from maskfreevis_ext.data.annotation_form import AnnotationSet, Track, Video
from maskfreevis_ext.data.readers.index_png import VOID
from maskfreevis_ext.data.writers.mots import BOXES_LOST
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import write_json
from maskfreevis_ext.rle import decode_rle

OVERLAPS = "frames in which masks overlap, where the smaller one is on top"


def davis_palette() -> list[int]:
    """The 256 colours of DAVIS and PASCAL VOC: bit 3 k + c of an index is bit 7 - k of channel c.

    Returns:
        768 values: red, green, blue of index 0, of index 1, ...
    """
    index = np.arange(256)
    bits = (index[:, None, None] >> (3 * np.arange(8)[:, None] + np.arange(3))) & 1  # (256, 8, 3)
    return (bits << (7 - np.arange(8))[:, None]).sum(1).flatten().tolist()


def save_index_png(pixels: np.ndarray, file: str | IO[bytes]) -> None:
    """Write a picture of object numbers in the colours of DAVIS.

    Args:
        pixels: (H, W) uint8; 0 is the ground.
        file: The PNG file to write.
    """
    picture = Image.fromarray(pixels)  # of mode L, to which a palette may be given
    picture.putpalette(davis_palette())
    picture.save(file, "PNG")


@register_writer("davis")
def write_davis(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write ``<video>/<frame>.png`` with palette indices, and ``meta.json`` (YouTube-VOS's form).

    Args:
        dataset: The set.
        path: The folder.
        options: Not needed.

    Raises:
        DataError: A video cannot be read, or has more than 254 tracks with masks.
    """
    meta: dict[str, Any] = {}
    for video in dataset:
        indices = _indices(video)
        stems = _stems(video)
        folder = os.path.join(path, *video.name.split("/"))
        os.makedirs(folder, exist_ok=True)
        for t, stem in enumerate(stems):
            pixels, overlaps = _draw(video, t, indices)
            dataset.notes[OVERLAPS] += overlaps
            dataset.notes[BOXES_LOST] += sum(
                t in track.boxes and t not in track.masks for track in video.tracks
            )
            save_index_png(pixels, os.path.join(folder, f"{stem}.png"))
        meta[video.name] = {
            "objects": {
                str(indices[track.id]): {
                    "category": dataset.categories[track.category_id],
                    "frames": [stems[t] for t in sorted(track.masks)],
                }
                for track in video.tracks
                if track.masks
            }
        }
    write_json({"videos": meta}, os.path.join(path, "meta.json"), indent=1)


def _indices(video: Video) -> dict[int, int]:
    """Palette index by track id: the ids themselves where they fit."""
    ids = [track.id for track in video.tracks if track.masks]
    if len(ids) >= VOID:
        raise DataError(
            f"video {video.name!r}: DAVIS holds at most {VOID - 1} objects, got {len(ids)}."
        )
    if all(0 < number < VOID for number in ids):
        return {number: number for number in ids}
    return {number: index for index, number in enumerate(sorted(ids), start=1)}


def _stems(video: Video) -> list[str]:
    """File names of the masks: those of the frames, or numbers where frames share a name."""
    stems = [os.path.splitext(os.path.basename(name))[0] for name in video.file_names]
    if len(set(stems)) == len(stems) and all(stems):
        return stems
    return [f"{t:05d}" for t in range(len(stems))]


def _draw(video: Video, t: int, indices: dict[int, int]) -> tuple[np.ndarray, bool]:
    """Palette indices of a frame, uint8 (H, W), and whether masks overlap."""
    pixels = np.zeros((video.height, video.width), dtype=np.uint8)
    overlaps = False
    masks: list[tuple[Track, np.ndarray]] = [
        (track, decode_rle(track.masks[t])) for track in video.tracks if t in track.masks
    ]
    for track, mask in sorted(masks, key=lambda pair: (-int(pair[1].sum()), pair[0].id)):
        overlaps = overlaps or bool(pixels[mask].any())
        pixels[mask] = indices[track.id]
    return pixels, overlaps
