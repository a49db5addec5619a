"""Training and evaluation read the same files: what one takes the other takes."""

from __future__ import annotations

import copy

import pytest

from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.ground_truth import read_ground_truth, read_results
from tests.helpers.videos import plain_content, write_json


def _set(field, value, place=None):
    def change(content):
        track = content["annotations"][1]
        if place is None:
            track[field] = value
        else:
            track[field][place] = value

    return change


#: What is changed, and whether it is taken.
FORMS = {
    "iscrowd null": (_set("iscrowd", None), True),
    "iscrowd a float": (_set("iscrowd", 0.0), False),
    "iscrowd text": (_set("iscrowd", "0"), False),
    "segmentations []": (_set("segmentations", []), True),
    "segmentations null": (_set("segmentations", None), True),
    "a segmentation []": (_set("segmentations", [], 2), True),
    "a segmentation of text": (_set("segmentations", "x", 2), False),
    "too few segmentations": (_set("segmentations", [None]), False),
    "bboxes []": (_set("bboxes", []), True),
    "a box []": (_set("bboxes", [], 0), True),
    "areas of text": (_set("areas", ["x"] * 4), False),
    "video unknown": (_set("video_id", 99), False),
    "category unknown": (_set("category_id", 99), False),
    "backslashes": (
        lambda content: content["videos"][0].update(file_names=["a\\b.png"] * 4),
        True,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_both_readers_agree(tmp_path, form):
    change, is_taken = FORMS[form]
    content = plain_content(masks=True)
    change(content)
    path = write_json(tmp_path, content)
    readers = (
        lambda: load_ytvis_json(path, str(tmp_path)),
        lambda: read_ground_truth(copy.deepcopy(content), path),
    )
    for read in readers:
        if is_taken:
            assert read()
        else:
            with pytest.raises(DataError, match=r"instances\.json"):
                read()


def test_other_formats_are_named():
    images = {"images": [{"id": 1}], "annotations": [], "categories": []}
    with pytest.raises(DataError, match=r"val\.json: .*this is a COCO file.*--from coco"):
        read_ground_truth(images, "val.json")


def test_results_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"\xef\xbb\xbf[]")
    assert read_results(path) == []
