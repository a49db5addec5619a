"""Frames that are no pictures, are damaged, are something else, or would take all memory."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.frame_headers import read_headers
from maskfreevis_ext.data.images import image_size, read_frame, read_video_frame
from maskfreevis_ext.errors import DataError
from tests.faults.attack.cases import attack

_SIZE = (48, 64)
_LENGTH = 5
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"


def _encoded(rng: random.Random, kind: str, size: tuple[int, int] = _SIZE) -> bytes:
    pixels = np.random.RandomState(rng.randrange(2**31)).randint(0, 255, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG of zeros whose header says this size; its rows may be shorter."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(min(width, 1 << 16) + 1)  # such a header is enough
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    chunks = _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _truncated(rng: random.Random) -> bytes:
    data = _encoded(rng, rng.choice(["JPEG", "PNG"]))
    return data[: len(data) * rng.randrange(0, 95) // 100]


def _flipped(rng: random.Random) -> bytes:
    data = bytearray(_encoded(rng, rng.choice(["JPEG", "PNG", "BMP", "WEBP", "TIFF"])))
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def _no_picture(rng: random.Random) -> bytes:
    some = (
        b"",
        b"hello",
        b"<html></html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\0" * 99,
    )
    return rng.choice(some)


def _other_program(rng: random.Random) -> bytes:
    wmf = b"\xd7\xcd\xc6\x9a" + bytes(100)
    return rng.choice([_EPS, b"%PDF-1.4\n" + bytes(200), b"\xc5\xd0\xd3\xc6" + _EPS, wmf])


def _wrong_size(rng: random.Random) -> bytes:
    return _encoded(rng, "PNG", (_SIZE[1], _SIZE[0]))


def _header_bomb(rng: random.Random) -> bytes:
    return _png(*rng.choice([(60_000, 60_000), (2**31 - 1, 1), (30_000, 5_000), (0, 7)]), 3)


def _true_bomb(rng: random.Random) -> bytes:
    return _png(20_000, 12_000, 12_000)  # 240 million pixels in 230 KB


def _layers(rng: random.Random) -> bytes:
    """A TIFF or a GIF of many pictures, which is none of a frame."""
    first = Image.new("L", (_SIZE[1] + 1, _SIZE[0]))
    file = io.BytesIO()
    kind = rng.choice(["GIF", "TIFF"])
    first.save(file, format=kind, save_all=True, append_images=[first] * 20)
    return file.getvalue()


#: Kind of a frame, and whether its pixels can be right by chance.
_KINDS: tuple[tuple[Callable[[random.Random], bytes], bool], ...] = (
    *((_truncated, False), (_flipped, True), (_no_picture, False), (_other_program, False)),
    *((_wrong_size, False), (_header_bomb, False), (_true_bomb, False), (_layers, False)),
)


def _watch_ghostscript(folder: Path) -> Path:
    """Put a program of the name of Ghostscript first on the path, which leaves a mark."""
    programs = folder / "programs"
    programs.mkdir()
    mark = folder / "started"
    for name in ("gs", "gswin64c", "gswin32c"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return mark


@attack(
    "bad pictures: 8 kinds at the first, a middle and the last frame",
    "one DataError with the file, or the frame; no other program starts; within 2 GB",
    count=480,
    quick=24,
    limit=30,
)
def pictures(index: int, rng: random.Random, folder: Path) -> str | None:
    """A clip with one bad frame, through the readers of frames and of headers."""
    kind, may_be_right = _KINDS[index % len(_KINDS)]
    position = rng.choice([0, _LENGTH // 2, _LENGTH - 1])
    root = folder / "frames"
    root.mkdir()
    paths = [str(root / f"{t}.jpg") for t in range(_LENGTH)]
    for path in paths:
        Path(path).write_bytes(_encoded(rng, "JPEG"))
    Path(paths[position]).write_bytes(kind(rng))
    mark = _watch_ghostscript(folder)
    size = {"height": _SIZE[0], "width": _SIZE[1], "length": _LENGTH, "video_id": 1}
    video = {"file_names": paths, "image_root": str(root), **size}
    check_images([video])
    readers = {
        "read_video_frame": lambda: read_video_frame(video, position, "RGB"),
        "read_frame": lambda: read_frame(paths[position]),
        "image_size": lambda: image_size(paths[position]),
        "read_headers": lambda: read_headers(paths, str(folder / "cache.json")),
    }
    for name, read in readers.items():
        try:
            found = read()
        except DataError as error:
            if paths[position] not in str(error):
                return f"{kind.__name__[1:]}, {name}: a message without the file: {error}"
            continue
        if name == "read_video_frame":
            if not may_be_right or found.shape != (*_SIZE, 3):
                return f"{kind.__name__[1:]}: accepted with the shape {found.shape}"
    return f"{kind.__name__[1:]}: another program was started" if mark.exists() else None


@attack(
    "links out of the image root: file, folder, folder of a folder",
    "refused, naming the link",
    count=60,
    quick=6,
    limit=30,
)
def links(index: int, rng: random.Random, folder: Path) -> str | None:
    """A frame that is, or lies behind, a symbolic link to somewhere else."""
    root, outside = folder / "frames", folder / "outside"
    (root / "a").mkdir(parents=True)
    (outside / "a").mkdir(parents=True)
    for place in (root / "a", outside / "a"):
        for t in range(3):
            (place / f"{t}.png").write_bytes(_encoded(rng, "PNG"))
    if index % 3 == 0:
        name = f"a/{rng.randrange(3)}.png"
        (root / name).unlink()
        (root / name).symlink_to(outside / name)
    else:
        (root / "b").symlink_to(outside / "a" if index % 3 == 1 else outside)
        name = "b/0.png" if index % 3 == 1 else "b/a/0.png"
    names = [name, "a/1.png"] if rng.random() < 0.5 else ["a/1.png", name]
    video = {
        "file_names": [str(root / each) for each in names],
        "image_root": str(root),
        **{"height": _SIZE[0], "width": _SIZE[1], "length": 2, "video_id": 1},
    }
    try:
        check_images([video])
    except DataError as error:
        return None if str(root) in str(error) else f"a message without the link: {error}"
    return f"{name} is accepted"
