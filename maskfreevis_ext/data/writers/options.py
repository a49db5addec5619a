"""What a writer can be told, and the registry of writers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from maskfreevis_ext.data.annotation_form import AnnotationSet


@dataclasses.dataclass(frozen=True)
class WriteOptions:
    """Choices of the writers.

    Attributes:
        masks_as: "mask" or "polygon", where a format has both (CVAT).
        first_frame: Number of the first frame; None: as the format counts.
    """

    masks_as: str = "mask"
    first_frame: int | None = None


#: Writes a set to a path, which must be a new file or, if ``is_folder``, an empty folder.
Write = Callable[[AnnotationSet, str, WriteOptions], None]


@dataclasses.dataclass(frozen=True)
class Writer:
    """A writer of a format.

    Attributes:
        write: The function. It does not check whether something is overwritten.
        suffix: Ending of the file that it writes; empty: it writes a folder.
    """

    write: Write
    suffix: str = ""


#: Writer by the name of its format.
WRITERS: dict[str, Writer] = {}


def register_writer(name: str, suffix: str = "") -> Callable[[Write], Write]:
    """Decorator that registers a writer.

    Args:
        name: Of the format, as the command line has it.
        suffix: Ending of the file that it writes; empty: it writes a folder.
    """

    def register(write: Write) -> Write:
        WRITERS[name] = Writer(write, suffix)
        return write

    return register
