"""The one way in which picture files are opened: by their content, and in a few formats only.

Pillow knows formats that start other programs (EPS starts Ghostscript) or hold other things than
pictures. A file's ending says nothing about what is in it, so the content decides, and its size is
read from the header before a pixel is decoded: a small file can decode to gigabytes.
"""

from __future__ import annotations

import os
from typing import IO

from PIL import Image, UnidentifiedImageError

from maskfreevis_ext.data.annotation_form import MAX_FRAME_PIXELS
from maskfreevis_ext.data.frame_rules import EXIF_ORIENTATION
from maskfreevis_ext.errors import DataError

#: Formats that are read, by Pillow's names.
PICTURE_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_UPRIGHT = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class NotAPictureError(DataError):
    """The content of a file is in none of the formats that are read."""


def open_picture(
    source: str | os.PathLike[str] | IO[bytes],
    where: str = "",
    formats: tuple[str, ...] = PICTURE_FORMATS,
) -> Image.Image:
    """Open a picture, without decoding it.

    Args:
        source: Path or open file.
        where: Description of the file for messages; empty: the path.
        formats: Formats that are read, by Pillow's names.

    Returns:
        The picture, to be used in a ``with`` block.

    Raises:
        NotAPictureError: It is in none of the formats.
        DataError: Its header says too many pixels.
        OSError: The file cannot be read.
    """
    is_path = isinstance(source, (str, os.PathLike))
    name = where or (str(source) if is_path else "picture")
    if is_path and not os.path.isfile(source):  # type: ignore[arg-type]
        raise FileNotFoundError(f"{name}: there is no such file")  # a pipe would never end
    try:
        image = Image.open(source, formats=formats)
    except UnidentifiedImageError:
        raise NotAPictureError(
            f"{name}: expected an image, but it cannot be decoded: its content is none of"
            f" {', '.join(formats)}, whatever its name says. Replace the file, or, in a data set,"
            " remove the frame from the JSON."
        ) from None
    except (Image.DecompressionBombError, MemoryError):
        raise _too_large(name) from None
    if image.height * image.width > MAX_FRAME_PIXELS:
        image.close()
        raise _too_large(name)
    return image


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name}: the picture cannot be decoded: its header says more than {MAX_FRAME_PIXELS}"
        " pixels. Replace the file."
    )


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened picture, 1..8; 1 where it has none or a broken one.

    In a PNG file only what stands before the pixels counts: Pillow would decode them to look
    behind.

    Args:
        image: The picture, not decoded yet.
    """
    try:
        value = int(Image.Image.getexif(image).get(EXIF_ORIENTATION, 1))
    except Exception:  # EXIF data of cameras are broken in many ways; the image is not
        return 1
    return value if 1 <= value <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says.

    Args:
        image: The picture.
    """
    method = _UPRIGHT.get(orientation(image))
    return image if method is None else image.transpose(method)


def size_fault(expected: tuple[int, int], height: int, width: int) -> str:
    """What is wrong with the size of a frame; empty if it is the expected one.

    Args:
        expected: (H, W) that the annotations say.
        height: Of the frame that is made of the file.
        width: Of the same.
    """
    if (height, width) == tuple(expected):
        return ""
    return (
        f"expected {expected[1]} x {expected[0]} pixels (width x height) as the JSON says, got"
        f" {width} x {height}"
    )
