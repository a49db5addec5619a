"""Videos and images trained together: kinds by content, supervision by metadata, exact order."""

from __future__ import annotations

import itertools
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from maskfreevis_ext.data import build_test_loader, build_train_loader, register_from_config
from maskfreevis_ext.data.train_sets import load_train_sets
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import (
    HEIGHT,
    WIDTH,
    data_cfg,
    plain_content,
    rectangle,
    unique_name,
    write_frames,
    write_json,
)

#: Clips of images as large as those of videos.
SAME_SIZE = (
    *("INPUT.PSEUDO.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.PSEUDO.SAMPLING_FRAME_NUM", 2),
    *("DATALOADER.BATCH", "mixed"),
)


def image_content(count=4, *, masks=True, boxes=True):
    """Images with two objects each: a dog [2, 3, 8, 6] and a cat [15, 5, 10, 7]."""
    images, annotations = [], []
    for i in range(1, count + 1):
        images.append({"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"image{i}.png"})
        for k, box in enumerate(([2, 3, 8, 6], [15, 5, 10, 7])):
            item = {"id": 10 * i + k, "image_id": i, "category_id": (7, 3)[k], "iscrowd": 0}
            if boxes:
                item["bbox"] = box
            if masks:
                x, y, w, h = box
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                item["segmentation"] = rectangle(*box) if k else [polygon]
            annotations.append(item)
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "emu"}]
    return {"images": images, "categories": categories, "annotations": annotations}


def write_images(folder, content):
    root = folder / "pictures"
    root.mkdir(exist_ok=True)
    for entry in content["images"]:
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        image[..., 1] = 40
        image[3:9, 2:10, 0] = image[5:12, 15:25, 0] = 255  # red is the objects
        Image.fromarray(image).save(root / entry["file_name"])
    return str(root)


def register_images(tmp_path, content=None, *supervision):
    name = unique_name("pictures")
    folder = tmp_path / name
    folder.mkdir()
    content = content or image_content()
    return [name, write_json(folder, content), write_images(folder, content), *supervision]


def register_videos(tmp_path, *supervision, masks=False):
    name = unique_name()
    folder = tmp_path / name
    folder.mkdir()
    content = plain_content((4, 3), masks=masks)
    return [name, write_json(folder, content), write_frames(folder, content), *supervision]


def joint_cfg(entries, *overrides):
    names = tuple(entry[0] for entry in entries)
    return data_cfg("INPUT.DATASETS", entries, "DATASETS.TRAIN", names, *SAME_SIZE, *overrides)


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


@pytest.fixture
def three(tmp_path):
    """Videos with masks taken as boxes, images with masks, videos with masks."""
    return [
        register_videos(tmp_path, "box", masks=True),
        register_images(tmp_path),
        register_videos(tmp_path, "mask", masks=True),
    ]


def test_mixed_batches_hold_samples_of_all_data_sets(three):
    cfg = joint_cfg(three, "DATASETS.TRAIN_RATIOS", (1, 2, 1), "SOLVER.IMS_PER_BATCH", 4)
    batches = take(build_train_loader(cfg), 60)
    names = Counter(sample["dataset_name"] for batch in batches for sample in batch)
    assert names[three[1][0]] / 240 == pytest.approx(0.5, abs=0.1)
    assert max(len({sample["dataset_name"] for sample in batch}) for batch in batches) == 3
    expected = dict(zip([entry[0] for entry in three], ("box", "mask", "mask"), strict=True))
    for sample in itertools.chain.from_iterable(batches):
        assert sample["supervision"] == expected[sample["dataset_name"]]
        assert ("masks" in sample["tracks"]) is (sample["supervision"] == "mask")
        assert len(sample["image"]) == 2


def test_homogeneous_batches_hold_samples_of_one_data_set(three):
    cfg = joint_cfg(
        three,
        *("DATALOADER.BATCH", "homogeneous", "INPUT.PSEUDO.SAMPLING_FRAME_NUM", 4),
        *("SOLVER.IMS_PER_BATCH", 3),
    )
    batches = take(build_train_loader(cfg), 60)
    assert all(len({sample["dataset_name"] for sample in batch}) == 1 for batch in batches)
    lengths = {(b[0]["dataset_name"], len(sample["image"])) for b in batches for sample in b}
    names = [entry[0] for entry in three]
    assert lengths == {(names[0], 2), (names[1], 4), (names[2], 2)}


def test_mixed_batches_of_clips_of_two_lengths_are_refused(three):
    cfg = joint_cfg(three, "INPUT.PSEUDO.SAMPLING_FRAME_NUM", 4)
    with pytest.raises(ConfigError, match=r"BATCH is mixed.*SAMPLING_FRAME_NUM \(4\)"):
        build_train_loader(cfg)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_gives_the_same_samples_pixel_by_pixel(three, workers):
    more = ("INPUT.RANDOM_FLIP", "flip_by_clip", "DATALOADER.NUM_WORKERS", workers)
    whole = take(build_train_loader(joint_cfg(three, *more)), 12)
    np.random.seed(99)  # the state of the process plays no part
    loader = build_train_loader(joint_cfg(three, *more, "DATALOADER.NUM_WORKERS", 0))
    loader.start_at(7, loader.seed)
    for batch, later in zip(whole[7:], take(loader, 5), strict=True):
        for sample, other in zip(batch, later, strict=True):
            assert sample["dataset_name"] == other["dataset_name"]
            assert sample["file_names"] == other["file_names"]
            assert all(map(torch.equal, sample["image"], other["image"]))
            for key, value in sample["tracks"].items():
                assert torch.equal(value, other["tracks"][key])


def test_samples_leave_the_random_state_of_the_process_alone(three):
    np.random.seed(4)
    expected = np.random.rand(3)
    np.random.seed(4)
    take(build_train_loader(joint_cfg(three)), 3)
    assert np.array_equal(np.random.rand(3), expected)


def test_default_ratios_are_those_of_the_reference(three, caplog):
    with caplog.at_level(logging.INFO):
        build_train_loader(joint_cfg(three))
    assert f"{three[1][0]} 40.0% (data, 4 images)" in caplog.text
    assert f"{three[0][0]} 30.0% (box, 2 videos)" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("DATASETS.TRAIN_RATIOS", (1.0,)), r"TRAIN_RATIOS: expected 3 numbers"),
        (("INPUT.PSEUDO.CROP.ENABLED", True, "INPUT.PSEUDO.CROP.SIZE", (9, 5)), "PSEUDO.CROP.TYPE"),
    ],
)
def test_bad_keys_are_named(three, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build_train_loader(joint_cfg(three, *overrides))


def test_a_data_set_named_twice_is_refused(three):
    cfg = joint_cfg(three)
    cfg.DATASETS.TRAIN = (three[0][0],) * 2
    with pytest.raises(ConfigError, match="names a data set twice"):
        build_train_loader(cfg)


def test_images_cannot_be_tested_on(tmp_path):
    entry = register_images(tmp_path)
    with pytest.raises(DataError, match=r"DATASETS\.TEST: .*COCO file of images.*--from coco"):
        build_test_loader(joint_cfg([entry]), entry[0])


@pytest.mark.parametrize(("masks", "boxes"), [(True, True), (True, False), (False, True)])
def test_images_with_boxes_masks_or_both_are_read(tmp_path, masks, boxes):
    entry = register_images(tmp_path, image_content(masks=masks, boxes=boxes))
    cfg = joint_cfg([entry], "INPUT.PSEUDO.SUPERVISION", "mask" if masks else "box")
    register_from_config(cfg)
    (one,) = load_train_sets(cfg)
    assert one.has_images
    assert len(one.dataset_dicts) == 4
    first = one.dataset_dicts[0]
    assert first["length"] == 1
    assert [item["bbox"] for item in first["annotations"][0]] == [[2, 3, 8, 6], [15, 5, 10, 7]]
    assert [item["category_id"] for item in first["annotations"][0]] == [1, 0]
    assert first["has_masks"] is masks


BAD = {
    "negative size": ({"bbox": [1, 1, -2, 3]}, r"annotations\[0\] \(id 10\)\.bbox must be .*size"),
    "not finite": ({"bbox": [1, 1, float("nan"), 3]}, r"annotations\[0\] \(id 10\)\.bbox must be"),
    "outside": ({"bbox": [50, 1, 2, 3]}, r"annotations\[0\] \(id 10\)\.bbox .*inside the frame"),
    "unknown image": ({"image_id": 99}, r"\.image_id must be the id of an entry of 'images'"),
    "unknown class": ({"category_id": 99}, r"\.category_id must be one of \[3, 7, 9\]"),
    "crowd": ({"iscrowd": 2}, r"\.iscrowd must be 0 or 1"),
    "id twice": ({"id": 11}, r"annotations\[1\].*\.id must be unique"),
    "bad mask": ({"segmentation": {"size": [3, 3], "counts": "x"}}, r"\.segmentation"),
    "confidence": ({"confidence": 2}, r"\.confidence must be a number in \[0, 1\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_annotation_of_an_image_is_one_error_with_its_place(tmp_path, case):
    changes, message = BAD[case]
    content = image_content()
    content["annotations"][0].update(changes)
    cfg = joint_cfg([register_images(tmp_path, content)])
    with pytest.raises(DataError, match=message):
        build_train_loader(cfg)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", 3, ""])
def test_image_outside_of_its_folder_is_refused(tmp_path, name):
    content = image_content()
    entry = register_images(tmp_path, content)
    content["images"][1]["file_name"] = name
    entry[1] = write_json(tmp_path, content, "bad.json")
    with pytest.raises(DataError, match=r"images\[1\] \(id 2\)\.file_name must be a path"):
        build_train_loader(joint_cfg([entry]))


def test_tool_leftovers_are_counted_not_refused(tmp_path, caplog):
    content = image_content()
    content["annotations"][0].update(iscrowd=None, segmentation=[])
    content["annotations"][2].update(bbox=[], segmentation=[])
    with caplog.at_level(logging.WARNING):
        build_train_loader(joint_cfg([register_images(tmp_path, content)]))
    assert "1 annotations without box and mask left out" in caplog.text
