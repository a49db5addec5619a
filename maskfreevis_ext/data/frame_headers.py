"""Headers of image files: size, orientation, depth, and whether the file is complete.

They are read in threads, since most of the time goes to waiting for the disk, and kept in a file
with the size and time of each image, so that a second start reads what has changed only. Images of
more than 8 bits are decoded, for the range of their values.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.data.images import deep_pixels
from maskfreevis_ext.data.pictures import NotAPictureError, open_picture, orientation
from maskfreevis_ext.errors import DataError, first_line
from maskfreevis_ext.files import AnyPath, write_json

logger = logging.getLogger(__name__)

#: Raised when the meaning of a stored header changes.
VERSION = 1
_THREADS = 8
_AT_ONCE = 32  # files of one task of a thread
_AS_STORED = FrameRules(exif="ignore")
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_STRIPS = ((273, 279), (324, 325))  # TIFF tags: offsets and byte counts of strips and of tiles


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        width: Of the pixels as stored.
        height: Of the pixels as stored.
        orientation: EXIF orientation, 1..8.
        depth: "8" bits or less per channel, or the type of deeper pixels, such as "uint16".
        values: Least and largest value of deeper pixels; empty for others.
        fault: What is wrong with the file; empty if nothing is.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    depth: str = "8"
    values: tuple[float, ...] = ()
    fault: str = ""

    def size(self, rules: FrameRules) -> tuple[int, int]:
        """(width, height) of the frame that is made of the file."""
        swap = rules.turns(self.orientation)
        return (self.height, self.width) if swap else (self.width, self.height)


def read_header(path: AnyPath, size: tuple[int, int] | None = None) -> Header:
    """Read the header of an image file, and look whether the file ends where it should.

    A file whose end does not look right, or whose format has no end to look at, is decoded.

    Args:
        path: The file.
        size: Expected (width, height), upright or not. A file of another size is not decoded.

    Returns:
        The header; with ``fault`` for a file that is no image or is truncated.
    """
    width = height = 0
    try:
        with open_picture(path) as image:
            width, height = image.size
            header = Header(width, height, orientation(image))
            if size is not None and sorted(size) != sorted(image.size):
                return header
            if not _ends_well(path, image):
                image.load()
            pixels = deep_pixels(image, path, _AS_STORED)
        if pixels is None:
            return header
        values = float(pixels.min()), float(pixels.max())
        fault = "" if all(map(math.isfinite, values)) else "its pixels are not all finite numbers"
        return header._replace(depth=str(pixels.dtype), values=values, fault=fault)
    except FileNotFoundError:
        return Header(fault="there is no such file")
    except NotAPictureError:
        return Header(fault="it is no image")
    except DataError as error:
        return Header(fault=str(error).removeprefix(f"{os.fspath(path)}: ").rstrip("."))
    except Exception as error:  # Pillow raises whatever its decoders meet
        return Header(width, height, fault=f"damaged: {first_line(error)}")


def _ends_well(path: AnyPath, image: Image.Image) -> bool:
    """Whether the last bytes of a file are those of a complete image; False if unknown."""
    size = os.path.getsize(path)
    if image.format == "TIFF":
        tags: Mapping[int, Any] = image.tag_v2  # type: ignore[attr-defined]
        for offsets, counts in _STRIPS:
            if offsets in tags and counts in tags:
                pairs = zip(_as_tuple(tags[offsets]), _as_tuple(tags[counts]), strict=True)
                return getattr(image, "n_frames", 1) == 1 and size >= max(map(sum, pairs))
        return False
    with open(path, "rb") as file:
        if image.format == "WEBP":
            return size >= 8 + int.from_bytes(file.read(8)[4:], "little")
        file.seek(max(0, size - len(_PNG_END)))
        end = file.read()
    if image.format == "PNG":
        return end == _PNG_END
    return image.format == "JPEG" and end.endswith(_JPEG_END)


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def read_headers(
    paths: Sequence[str],
    cache: AnyPath | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Header]:
    """Headers of many files, in threads, with a progress bar.

    Args:
        paths: The files.
        cache: File with the headers of an earlier run, which is used and not changed; None or an
            absent file: all headers are read.
        sizes: Expected (width, height) of files; those of another size are not decoded.

    Returns:
        Header of each file.
    """
    expected = sizes or {}
    known = _Cache(cache)
    found: dict[str, Header] = {}
    waiting: list[str] = []
    for path in dict.fromkeys(paths):
        header = known.get(path)
        if header is None:
            waiting.append(path)
        else:
            found[path] = header
    groups = [waiting[start : start + _AT_ONCE] for start in range(0, len(waiting), _AT_ONCE)]
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(waiting), desc="checking frames", unit="frame", disable=not waiting) as bar,
    ):
        tasks = pool.map(
            lambda group: [read_header(path, expected.get(path)) for path in group], groups
        )
        for group, headers in zip(groups, tasks, strict=True):
            found.update(zip(group, headers, strict=True))
            bar.update(len(group))
    return found


class _Cache:
    """Headers of an earlier run by folder and name, with size and time of the files."""

    def __init__(self, path: AnyPath | None) -> None:
        self._folders: dict[str, Any] = {}
        if path is not None:
            # An absent, damaged or older file holds nothing.
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
                with open(path, encoding="utf-8") as file:
                    content = json.load(file)
                if content.get("version") == VERSION:
                    self._folders = dict(content["folders"])

    def get(self, path: str) -> Header | None:
        """The header of a file that has not changed, or None."""
        folder, name = os.path.split(os.path.abspath(path))
        try:
            size, time, *header = self._folders[folder][name]
            width, height, orientation, depth, values = header
        except (KeyError, TypeError, ValueError):
            return None
        try:
            if [size, time] != _mark(path):
                return None
        except OSError:
            return None
        return Header(width, height, orientation, depth, tuple(values))


def _mark(path: AnyPath) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def keep_headers(headers: Mapping[str, Header], cache: AnyPath) -> None:
    """Add headers to a file for ``read_headers``; faulty files are left out.

    Folders that no longer exist are dropped. A file that cannot be written gives a line in the log.

    Args:
        headers: Header of each file.
        cache: The file, which is replaced at the end.
    """
    folders: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for folder, entries in _Cache(cache)._folders.items():
        if isinstance(entries, dict) and os.path.isdir(folder):
            folders[folder].update(entries)
    for path, header in headers.items():
        folder, name = os.path.split(os.path.abspath(path))
        folders[folder].pop(name, None)
        if not header.fault:
            with contextlib.suppress(OSError):
                folders[folder][name] = [*_mark(path), *header[:5]]
    try:
        write_json({"version": VERSION, "folders": folders}, cache)
    except OSError as error:
        logger.info("The headers of the frames are not kept: %s.", error)
