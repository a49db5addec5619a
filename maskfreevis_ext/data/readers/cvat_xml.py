"""The XML of CVAT 1.1 as plain records, parsed as a stream and without entities.

A file with a document type or entities is refused: that is how XML files attack their readers, and
CVAT writes neither.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

from maskfreevis_ext.data.json_fields import MAX_NAME
from maskfreevis_ext.data.readers.files import real_number, whole_number
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import MAX_POLYGON_NUMBERS

ROTATED = "rotated boxes replaced by the upright box around them"
OTHER_SHAPES = "shapes that are no box, polygon, ellipse or mask left out"

_MAX_TEXT = 65_536
_OTHER = {"polyline", "points", "cuboid", "skeleton", "tag"}
_ELLIPSE_POINTS = 72


@dataclasses.dataclass(slots=True)
class CvatShape:
    """A shape of a track or an image.

    Attributes:
        frame: As the file counts; 0 in an image.
        kind: "box", "polygon" or "mask".
        numbers: x, y, width, height of a box; x0, y0, x1, y1, ... of a polygon; left, top, width,
            height of a mask.
        runs: Runs of a mask, row by row inside its rectangle, background first.
        is_outside: The object is absent from this frame on.
        is_occluded: Something hides a part of it.
        where: File and line.
        label: Of a shape in an image; else empty.
    """

    frame: int
    kind: str
    numbers: list[float]
    runs: str
    is_outside: bool
    is_occluded: bool
    where: str
    label: str


@dataclasses.dataclass(slots=True)
class CvatTrack:
    """A track: number in the file, label, task (empty if the file has one) and shapes."""

    number: int
    label: str
    task: str
    shapes: list[CvatShape] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class CvatImage:
    """An image of the image mode: attributes of its element, where it is, and shapes."""

    attributes: dict[str, str]
    where: str
    shapes: list[CvatShape] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class CvatFile:
    """What a file holds.

    Attributes:
        path: The file.
        tasks: For each task of ``meta`` its texts by path: "name", "original_size/width".
        labels: Names of labels, in the order of the file.
        tracks: Tracks of the video mode.
        images: Images of the image mode.
    """

    path: str
    tasks: list[dict[str, str]] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    tracks: list[CvatTrack] = dataclasses.field(default_factory=list)
    images: list[CvatImage] = dataclasses.field(default_factory=list)


def parse_cvat(path: str, notes: Counter[str]) -> CvatFile:
    """Parse a CVAT XML file.

    Args:
        path: The file.
        notes: Counts shapes that are changed or left out.

    Returns:
        Its content.

    Raises:
        DataError: The file is absent, no XML, has a document type, or a shape cannot be read.
    """
    handler = _Handler(path, notes)
    parser = handler.parser
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Check the path.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except expat.ExpatError as error:
        text = expat.errors.messages.get(error.code, str(error))
        raise DataError(
            f"{path}: line {error.lineno}: expected XML of CVAT, got: {text}. Export it again."
        ) from None
    except (LookupError, UnicodeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected XML of CVAT, got: {error}.") from None
    return handler.file


class _Handler:
    """Callbacks of the parser, which fill a ``CvatFile``."""

    def __init__(self, path: str, notes: Counter[str]) -> None:
        self.file, self.notes = CvatFile(path), notes
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self._stack: list[str] = []
        self._text = ""
        self._task_depth = 0
        self._inside: CvatTrack | CvatImage | None = None

    @property
    def _where(self) -> str:
        return f"{self.file.path}: line {self.parser.CurrentLineNumber}"

    def _refuse(self, *_: Any) -> None:
        raise DataError(
            f"{self._where}: a document type (DOCTYPE, ENTITY) is refused; CVAT writes none."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._stack and name != "annotations":
            raise DataError(
                f"{self._where}: the outermost element must be <annotations>, got <{name:.60}>."
                " Export as 'CVAT for video 1.1'."
            )
        self._stack.append(name)
        self._text = ""
        if len(self._stack) > 100:
            raise DataError(f"{self._where}: elements are nested too deeply.")
        if self._stack[:2] == ["annotations", "meta"]:
            if name in ("task", "job"):
                self.file.tasks.append({})
                self._task_depth = len(self._stack)
        elif len(self._stack) == 2 and name == "track":
            number = whole_number(
                attributes.get("id", str(len(self.file.tracks))), f"{self._where}: track id"
            )
            label = self._label(attributes)
            self._inside = CvatTrack(number, label, attributes.get("task_id", ""))
            self.file.tracks.append(self._inside)
        elif len(self._stack) == 2 and name == "image":
            self._inside = CvatImage(attributes, self._where)
            self.file.images.append(self._inside)
        elif len(self._stack) == 3 and self._inside is not None:
            self._shape(name, attributes)

    def _end(self, name: str) -> None:
        if self._stack[:2] == ["annotations", "meta"]:
            if self._stack[-2:] == ["label", "name"]:
                text = self._text.strip()
                if text and text not in self.file.labels:
                    self.file.labels.append(text)
            elif self._task_depth and len(self._stack) > self._task_depth:
                key = "/".join(self._stack[self._task_depth :])
                self.file.tasks[-1].setdefault(key, self._text.strip())
            if len(self._stack) == self._task_depth:
                self._task_depth = 0
        if len(self._stack) == 2:
            self._inside = None
        self._stack.pop()
        self._text = ""

    def _characters(self, text: str) -> None:
        if self._stack[1:2] == ["meta"] and len(self._text) < _MAX_TEXT:
            self._text += text

    def _label(self, attributes: Mapping[str, str]) -> str:
        label = attributes.get("label", "")
        if not 0 < len(label) <= MAX_NAME:
            raise DataError(f"{self._where}: label must have 1..{MAX_NAME} characters.")
        return label

    def _shape(self, name: str, attributes: dict[str, str]) -> None:
        if name not in _SHAPES:
            self.notes[OTHER_SHAPES] += name in _OTHER
            return
        where = self._where
        is_track = isinstance(self._inside, CvatTrack)
        frame = whole_number(attributes.get("frame", ""), f"{where}: frame") if is_track else 0
        kind, numbers = _SHAPES[name](attributes, f"{where}: {name}", self.notes)
        shape = CvatShape(
            frame,
            kind,
            numbers,
            attributes.get("rle", "") if kind == "mask" else "",
            self._flag(attributes, "outside"),
            self._flag(attributes, "occluded"),
            where,
            "" if is_track else self._label(attributes),
        )
        assert self._inside is not None  # the caller's condition
        self._inside.shapes.append(shape)

    def _flag(self, attributes: Mapping[str, str], name: str) -> bool:
        value = attributes.get(name, "0").strip().lower()
        if value not in ("0", "1", "false", "true"):
            raise DataError(f"{self._where}: {name} must be 0 or 1, got {value!r:.60}.")
        return value in ("1", "true")


def _values(attributes: Mapping[str, str], names: tuple[str, ...], where: str) -> list[float]:
    return [real_number(attributes.get(name, ""), f"{where} {name}") for name in names]


def _box(attributes: Mapping[str, str], where: str, notes: Counter[str]) -> tuple[str, list[float]]:
    x0, y0, x1, y1 = _values(attributes, ("xtl", "ytl", "xbr", "ybr"), where)
    angle = real_number(attributes.get("rotation", "0"), f"{where} rotation") % 360.0
    if not angle:
        return "box", [x0, y0, x1 - x0, y1 - y0]
    notes[ROTATED] += 1
    return "box", upright_box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, angle)


def upright_box(
    center_x: float, center_y: float, width: float, height: float, angle: float
) -> list[float]:
    """The box around a box that is turned about its centre.

    Args:
        center_x: Pixels.
        center_y: Pixels.
        width: Pixels.
        height: Pixels.
        angle: Degrees, clockwise in the picture.

    Returns:
        [x, y, width, height].
    """
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    wide, high = width * cos + height * sin, width * sin + height * cos
    return [center_x - wide / 2, center_y - high / 2, wide, high]


def _polygon(
    attributes: Mapping[str, str], where: str, notes: Counter[str]
) -> tuple[str, list[float]]:
    text = attributes.get("points", "")
    if text.count(",") > MAX_POLYGON_NUMBERS // 2:
        raise DataError(f"{where}: points has more than {MAX_POLYGON_NUMBERS} numbers.")
    numbers: list[float] = []
    for point in text.split(";"):
        pair = point.split(",")
        if len(pair) != 2:
            raise DataError(f"{where}: points must be 'x0,y0;x1,y1;...', got {point!r:.60} in it.")
        numbers.extend(real_number(number, f"{where} points") for number in pair)
    return "polygon", numbers


def _ellipse(
    attributes: Mapping[str, str], where: str, notes: Counter[str]
) -> tuple[str, list[float]]:
    cx, cy, rx, ry = _values(attributes, ("cx", "cy", "rx", "ry"), where)
    turn = math.radians(real_number(attributes.get("rotation", "0"), f"{where} rotation"))
    numbers: list[float] = []
    for k in range(_ELLIPSE_POINTS):
        angle = 2 * math.pi * k / _ELLIPSE_POINTS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        numbers.append(cx + x * math.cos(turn) - y * math.sin(turn))
        numbers.append(cy + x * math.sin(turn) + y * math.cos(turn))
    return "polygon", numbers


def _mask(
    attributes: Mapping[str, str], where: str, notes: Counter[str]
) -> tuple[str, list[float]]:
    return "mask", [
        whole_number(attributes.get(name, ""), f"{where} {name}")
        for name in ("left", "top", "width", "height")
    ]


_SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}
