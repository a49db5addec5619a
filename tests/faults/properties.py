"""Properties that hold for whatever hypothesis makes: the JSON loader and the converter.

A property takes values drawn by hypothesis. The test suite tries some, ``make attack`` many.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from maskfreevis_ext.data.annotation_form import AnnotationSet, Video
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.readers import read_annotations
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.ground_truth import read_ground_truth
from tests.helpers.annotations import make_set, plain, videos, written
from tests.helpers.damage import check_sound

#: Formats with masks that the package writes and reads.
MASK_FORMATS = ("coco-video", "cvat", "davis", "mots", "sa-v", "ytvis")

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["v1/0.png", "../x", "/etc/x", "a\0b", "cat", "PQ7", "0"]),
)
JUNK = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def _rarely(good: st.SearchStrategy, junk: st.SearchStrategy = JUNK) -> st.SearchStrategy:
    """Mostly a value that may be right, sometimes anything."""
    return st.integers(0, 14).flatmap(lambda roll: junk if roll == 0 else good)


def _entry(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """An object whose fields are rarely anything at all, and rarely absent."""
    keep = st.lists(st.integers(0, 25), min_size=len(fields), max_size=len(fields))
    whole = st.fixed_dictionaries({name: _rarely(value) for name, value in fields.items()})
    return st.tuples(whole, keep).map(
        lambda pair: {
            key: value for (key, value), roll in zip(pair[0].items(), pair[1], strict=True) if roll
        }
    )


_NUMBER = st.integers(-2, 40) | st.floats(-5, 45)
_BOX = st.none() | st.lists(_rarely(_NUMBER), min_size=4, max_size=4)
_RLE = st.fixed_dictionaries(
    {
        "size": st.just([20, 30]) | st.lists(st.integers(0, 31), min_size=2, max_size=2),
        "counts": st.text("0123PQRoabc`~", max_size=12)
        | st.lists(st.integers(-1, 600), max_size=6)
        | st.integers(0, 600).map(lambda run: [run, 600 - run]),
    }
)
_POLYGONS = st.lists(st.lists(_NUMBER, max_size=10), max_size=3)
_FRAMES = 2
CONTENTS = _entry(
    videos=st.lists(
        _entry(
            id=st.integers(1, 3),
            height=st.just(20),
            width=st.just(30),
            length=st.just(_FRAMES),
            file_names=st.lists(
                _rarely(st.sampled_from(["v1/0.png", "v1/1.png"])),
                min_size=_FRAMES,
                max_size=_FRAMES,
            ),
        ),
        min_size=1,
        max_size=2,
    ),
    categories=st.lists(
        _entry(id=st.integers(1, 4), name=st.sampled_from(["cat", "dog", "bird"])),
        min_size=1,
        max_size=2,
    ),
    annotations=st.lists(
        _entry(
            id=st.integers(1, 9),
            video_id=st.integers(1, 3),
            category_id=st.integers(1, 4),
            iscrowd=st.integers(0, 1),
            bboxes=st.lists(_rarely(_BOX), min_size=_FRAMES, max_size=_FRAMES),
            segmentations=st.none()
            | st.lists(_rarely(st.none() | _RLE | _POLYGONS), min_size=_FRAMES, max_size=_FRAMES),
        ),
        max_size=3,
    ),
)


def json_loader(content: Any) -> None:
    """Any JSON is refused with its file, or read alike by all readers of YouTube-VIS files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instances.json")
        path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
        found = []
        for read in (
            lambda: load_ytvis_json(str(path), "root"),
            lambda: list(read_annotations("ytvis", path)),
            lambda: read_ground_truth(read_json(str(path)), str(path)).objects,
        ):
            try:
                found.append(read())
            except DataError as error:
                if str(path) not in str(error):
                    raise AssertionError(f"a message without the file: {error}") from error
                found.append(None)
    dicts, annotated, _ = found
    if dicts is not None and annotated is not None:
        check_sound(make_set(annotated))
        loaded = {(d["video_id"], len(d["file_names"])) for d in dicts}
        assert {(video.id, len(video.file_names)) for video in annotated} == loaded


def converter(source: str, target: str, drawn: list[Video]) -> None:
    """Masks go from one format to another unchanged."""
    dataset = make_set(drawn)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        first.mkdir()
        second.mkdir()
        read = read_annotations(source, written(dataset, source, first))
        again = read_annotations(target, written(read, target, second))
        check_sound(again)
        assert _masks(again) == _masks(dataset)


def _masks(dataset: AnnotationSet) -> list[list[str]]:
    """The masks of all tracks by frame, whatever the ids of the tracks."""
    return [sorted(repr(track[3]) for track in video[4]) for video in plain(dataset)]


#: Property by name, with the strategies of its arguments.
PROPERTIES: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy, ...]]] = {
    "JSON loader, contents": (json_loader, (CONTENTS,)),
    "JSON loader, anything": (json_loader, (JUNK,)),
    "converter, from one format to another": (
        converter,
        (st.sampled_from(MASK_FORMATS), st.sampled_from(MASK_FORMATS), videos("masks")),
    ),
}
