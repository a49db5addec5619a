"""Every format: what it can hold comes back equal, whatever the annotations are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from maskfreevis_ext.data.annotation_form import Track, Video
from maskfreevis_ext.data.readers import READERS, ReadOptions, read_annotations
from maskfreevis_ext.data.writers import WRITERS
from tests.helpers.annotations import make_set, mask_of, plain, videos, write_files, written
from tests.helpers.damage import FILES, FOREIGN

_SETTINGS = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    database=None,
)

#: Writer -> whether it holds masks and classes.
OWN = {
    "ytvis": (True, True),
    "coco-video": (True, True),
    "csv": (False, True),
    "cvat": (True, True),
    "mots": (True, True),
    "davis": (True, False),
    "sa-v": (True, False),
}


def test_every_writer_is_tested():
    assert set(OWN) | {"coco"} == set(WRITERS)


@pytest.mark.parametrize("name", OWN)
@_SETTINGS
@given(data=videos("masks"))
def test_masks_come_back_equal(name, data):
    masks, classes = OWN[name]
    dataset = make_set(data)
    assume(name != "csv" or any(video.tracks for video in data))
    with tempfile.TemporaryDirectory() as folder:
        path = written(dataset, name, Path(folder))
        found = read_annotations(name, path)
        expected = plain(dataset, masks=masks, classes=classes)
        _compare(name, found, expected, masks, classes)


@pytest.mark.parametrize("name", ["ytvis", "coco-video", "csv", "cvat"])
@_SETTINGS
@given(data=videos("boxes"))
def test_boxes_come_back_equal(name, data):
    dataset = make_set(data)
    assume(name != "csv" or any(video.tracks for video in data))
    with tempfile.TemporaryDirectory() as folder:
        found = read_annotations(name, written(dataset, name, Path(folder)))
        _compare(name, found, plain(dataset), True, True)


@pytest.mark.parametrize("name", ["ytvis", "coco-video"])
@_SETTINGS
@given(data=videos("any"))
def test_boxes_that_are_not_tight_stay_beside_masks(name, data):
    dataset = make_set(data)
    with tempfile.TemporaryDirectory() as folder:
        found = read_annotations(name, written(dataset, name, Path(folder)))
        _compare(name, found, plain(dataset), True, True)


def _compare(name, found, expected, masks, classes):
    """Equal but for what the format cannot hold: empty videos in CSV, ids of its own in others."""
    got = plain(found, masks=masks, classes=classes)
    if name == "csv":  # has lines for objects only: neither empty videos nor empty last frames
        expected = [video for video in expected if video[4]]
        lengths = [1 + max(t for track in v[4] for t in track[2]) for v in expected]
        expected = [(*v[:3], n, v[4]) for v, n in zip(expected, lengths, strict=True)]
    if name in ("ytvis", "mots"):  # number tracks anew
        got, expected = _without_ids(got), _without_ids(expected)
    assert got == expected
    assert sum(found.notes.values()) == found.notes["boxes taken from masks"]


def _without_ids(content):
    return [(*video[:4], sorted((t[1:] for t in video[4]), key=repr)) for video in content]


#: Format that is only read -> kind of annotations, masks.
KINDS = {
    "mot": ("boxes", False),
    "kitti-mots": ("masks", True),
    "youtube-vos": ("masks", True),
    "bdd100k": ("any", True),
    "burst": ("masks", True),
    "yolo-tracks": ("boxes", False),
    "labelme": ("any", True),
    "labelstudio": ("boxes", False),
}


def test_every_reader_is_tested():
    assert set(OWN) | set(FOREIGN) | {"coco"} == set(READERS)


@pytest.mark.parametrize("name", FOREIGN)
@_SETTINGS
@given(masks=videos("masks"), boxes=videos("boxes"), anything=videos("any"))
def test_foreign_format_gives_what_was_written(name, masks, boxes, anything):
    kind, has_masks = KINDS[name]
    data = {"masks": masks, "boxes": boxes, "any": anything}[kind]
    dataset = make_set(data)
    options = ReadOptions()
    if name in ("yolo-tracks", "labelstudio"):  # one size is given for all videos
        dataset = make_set(data[:1])
        options = ReadOptions(size=(data[0].height, data[0].width))
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), FOREIGN[name](dataset))
        found = read_annotations(name, str(Path(folder) / FILES.get(name, "")), options)
        got, expected = plain(found, masks=has_masks), plain(dataset, masks=has_masks)
    if name in ("kitti-mots", "labelme", "labelstudio"):  # ids of their own
        got, expected = _without_ids(got), _without_ids(expected)
    if name == "labelstudio" and not data[0].tracks:
        expected = [(*expected[0][:3], 1, [])]  # a task without results does not say its length
    assert got == expected


_NAMES = (
    st.text(
        st.characters(
            codec="utf-8",
            exclude_categories=("Cc", "Cs", "Zl", "Zp"),
            exclude_characters="\ufffe\uffff",
        ),
        min_size=1,
        max_size=8,
    )
    .map(str.strip)
    .filter(bool)
)


@pytest.mark.parametrize("name", [name for name, (_, classes) in OWN.items() if classes])
@_SETTINGS
@given(labels=st.lists(_NAMES, min_size=2, max_size=2, unique=True))
def test_any_name_of_a_class_is_kept(name, labels):
    mask = mask_of(np.ones((4, 4), dtype=bool))
    tracks = [Track(i, i, boxes={0: (0.0, 0.0, 4.0, 4.0)}, masks={0: mask}) for i in (1, 2)]
    dataset = make_set([Video(1, "v", 4, 4, ["v/0.jpg"], tracks)], {1: labels[0], 2: labels[1]})
    with tempfile.TemporaryDirectory() as folder:
        found = read_annotations(name, written(dataset, name, Path(folder)))
        got = [found.categories[track.category_id] for video in found for track in video.tracks]
    assert sorted(got) == sorted(labels)


@_SETTINGS
@given(data=videos("any"))
def test_coco_keeps_objects_of_pictures(data):
    dataset = make_set(data)
    with tempfile.TemporaryDirectory() as folder:
        path = written(dataset, "coco", Path(folder))
        found = read_annotations("coco", path)
        assert found.is_images
        objects = sorted(
            (image.file_names[0], found.categories[t.category_id], t.boxes[0], _counts(t, 0))
            for image in found
            for t in image.tracks
        )
    expected = sorted(
        (video.file_names[t], dataset.categories[track.category_id], box, _counts(track, t))
        for video in dataset
        for track in video.tracks
        for t, box in track.boxes.items()
    )
    assert objects == expected


def _counts(track, t):
    return track.masks[t]["counts"] if t in track.masks else b""
