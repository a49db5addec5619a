"""CVAT for video 1.1 XML, one file a video: boxes, and masks as masks or as polygons."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import cv2
import numpy as np

from maskfreevis_ext.data.annotation_form import AnnotationSet, Rle, Track, Video
from maskfreevis_ext.data.writers.options import WriteOptions, register_writer
from maskfreevis_ext.rle import decode_rle

CROWDS = "crowd tracks written as ordinary tracks"
PARTS_LOST = "masks of several parts or with holes, of which the polygon has the largest part"


@register_writer("cvat")
def write_cvat(dataset: AnnotationSet, path: str, options: WriteOptions) -> None:
    """Write ``<video>.xml`` files, which CVAT takes as "CVAT 1.1".

    A mask stands where the object has one, else its box. Every frame is a keyframe.

    Args:
        dataset: The set.
        path: The folder.
        options: ``masks_as``: "mask" keeps masks exactly, "polygon" writes their outline.

    Raises:
        DataError: A video cannot be read.
    """
    for video in dataset:
        target = os.path.join(path, *f"{video.name}.xml".split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8", newline="\n") as file:
            _write_video(dataset, video, _Xml(file), options)


class _Xml(XMLGenerator):
    """Indented elements."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8", short_empty_elements=True)
        self._depth = 0
        self.startDocument()

    def open(self, name: str, **attributes: object) -> None:
        self.ignorableWhitespace("\n" + "  " * self._depth)
        values = {key: str(value) for key, value in attributes.items()}
        self.startElement(name, AttributesImpl(values))
        self._depth += 1

    def close(self, name: str, breaks: bool = True) -> None:
        self._depth -= 1
        if breaks:
            self.ignorableWhitespace("\n" + "  " * self._depth)
        self.endElement(name)

    def leaf(self, name: str, text: object = "", **attributes: object) -> None:
        self.open(name, **attributes)
        self.characters(str(text))
        self.close(name, breaks=False)


def _write_video(dataset: AnnotationSet, video: Video, xml: _Xml, options: WriteOptions) -> None:
    xml.open("annotations")
    xml.leaf("version", "1.1")
    xml.open("meta")
    xml.open("task")
    length = len(video.file_names)
    for name, value in (
        ("id", video.id),
        ("name", video.name),
        ("size", length),
        ("mode", "interpolation"),
        ("overlap", 0),
        ("start_frame", 0),
        ("stop_frame", length - 1),
        ("frame_filter", ""),
    ):
        xml.leaf(name, value)
    xml.open("labels")
    for label in dataset.categories.values():
        xml.open("label")
        xml.leaf("name", label)
        xml.open("attributes")
        xml.close("attributes", breaks=False)
        xml.close("label")
    xml.close("labels")
    xml.open("original_size")
    xml.leaf("width", video.width)
    xml.leaf("height", video.height)
    for name in ("original_size", "task", "meta"):
        xml.close(name)
    for track in video.tracks:
        dataset.notes[CROWDS] += track.is_crowd
        label = dataset.categories[track.category_id]
        xml.open("track", id=track.id, label=label, source="manual")
        for name, attributes in _shapes(dataset, track, length, options):
            xml.leaf(name, **attributes)
        xml.close("track")
    xml.close("annotations")
    xml.characters("\n")
    xml.endDocument()


def _shapes(
    dataset: AnnotationSet, track: Track, length: int, options: WriteOptions
) -> Iterator[tuple[str, dict[str, object]]]:
    """Elements and their attributes, with one that is outside after each presence."""
    last: tuple[str, dict[str, object]] | None = None
    for t in range(length):
        if t in track.boxes:
            name, place = _shape(dataset, track, t, options)
            last = (name, place)
            yield name, _attributes(t, False, t in track.occluded, place)
        elif last is not None:
            yield last[0], _attributes(t, True, False, last[1])
            last = None


def _attributes(
    t: int, outside: bool, occluded: bool, place: dict[str, object]
) -> dict[str, object]:
    flags = {"keyframe": 1, "outside": int(outside), "occluded": int(occluded)}
    return {"frame": t, **flags, **place, "z_order": 0}


def _shape(
    dataset: AnnotationSet, track: Track, t: int, options: WriteOptions
) -> tuple[str, dict[str, object]]:
    if t in track.masks and options.masks_as == "polygon":
        points, is_whole = outline(track.masks[t])
        if len(points) > 2:
            dataset.notes[PARTS_LOST] += not is_whole
            return "polygon", {"points": ";".join(f"{x:g},{y:g}" for x, y in points)}
    elif t in track.masks:
        return "mask", runs_of_mask(track.masks[t])
    x, y, w, h = track.boxes[t]
    return "box", {"xtl": repr(x), "ytl": repr(y), "xbr": repr(x + w), "ybr": repr(y + h)}


def runs_of_mask(rle: Rle) -> dict[str, object]:
    """A mask in CVAT's form: runs, row by row inside its tight box, background first.

    Args:
        rle: A mask with at least one pixel.

    Returns:
        ``rle``, ``left``, ``top``, ``width`` and ``height``.
    """
    mask = decode_rle(rle)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    pixels = mask[top : top + height, left : left + width].ravel()
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    runs = np.diff(changes, prepend=0, append=pixels.size)
    text = ", ".join(map(str, runs.tolist()))
    return {"rle": text, "left": left, "top": top, "width": width, "height": height}


def outline(rle: Rle) -> tuple[np.ndarray, bool]:
    """The outline of the largest part of a mask.

    Args:
        rle: A mask.

    Returns:
        (P, 2) float64: x and y in pixels, a quarter of a pixel inside the edge; and whether the
        mask has no other part and no hole.
    """
    doubled = decode_rle(rle).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    return (largest[:, 0].astype(np.float64) + 0.5) / 2, len(contours) == 1
