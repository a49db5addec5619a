"""What a reader needs beside the annotations, and the registry of readers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from maskfreevis_ext.data.annotation_form import AnnotationSet
from maskfreevis_ext.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What annotation files leave open.

    Attributes:
        images: Folder of the frames: their names and sizes, where the annotations lack them.
        size: (height, width) of all frames, where neither annotations nor pictures say it.
        first_frame: Number of the first frame, where files count differently (0 or 1); None: as
            the format says.
        corners: Boxes of ytvis, coco, coco-video and csv files are corners x0, y0, x1, y1, a common
            mistake that is to be mended.
    """

    images: str | None = None
    size: tuple[int, int] | None = None
    first_frame: int | None = None
    corners: bool = False


Reader = Callable[[str, ReadOptions], AnnotationSet]

#: Reader by the name of its format.
READERS: dict[str, Reader] = {}


def register_reader(name: str) -> Callable[[Reader], Reader]:
    """Decorator that registers a reader.

    Args:
        name: Of the format, as the command line has it.
    """

    def register(reader: Reader) -> Reader:
        READERS[name] = reader
        return reader

    return register


def read_annotations(
    name: str, path: str | os.PathLike[str], options: ReadOptions | None = None
) -> AnnotationSet:
    """Open annotations of any format that is known.

    Args:
        name: Of the format.
        path: File or folder.
        options: What the annotations leave open.

    Returns:
        The set. Its videos are read when they are asked for.

    Raises:
        ConfigError: There is no such format.
        DataError: The annotations cannot be used.
    """
    if name not in READERS:
        raise ConfigError(f"format: expected one of {', '.join(sorted(READERS))}, got {name!r}.")
    return READERS[name](os.fspath(path), options or ReadOptions())
