"""Loaders: what comes out, what is checked before the first batch, and errors out of workers."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from maskfreevis_ext.data import build_test_loader, build_train_loader, register_ytvis_instances
from maskfreevis_ext.data.loaders import VisibleErrors
from maskfreevis_ext.data.train_sets import load_train_videos
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import (
    HEIGHT,
    WIDTH,
    data_cfg,
    plain_content,
    unique_name,
    write_frames,
    write_json,
)


def _register(tmp_path, content, name=None, folder=""):
    """Write a data set; its name and its INPUT.DATASETS entry."""
    name = name or unique_name()
    base = tmp_path / (folder or name)
    base.mkdir(exist_ok=True)
    return name, [name, write_json(base, content), write_frames(base, content)]


def _cfg(entries, *overrides):
    names = tuple(name for name, _ in entries)
    return data_cfg(
        *("INPUT.DATASETS", [entry for _, entry in entries], "DATASETS.TRAIN", names), *overrides
    )


@pytest.fixture
def entry(tmp_path):
    return _register(tmp_path, plain_content((4, 3, 1)))


def _take(loader, count):
    return list(itertools.islice(iter(loader), count))


def _key(sample):
    return sample["video_id"], tuple(sample["frame_indices"])


@pytest.mark.parametrize("workers", [0, 2])
def test_train_loader_gives_batches_without_end(entry, workers):
    loader = build_train_loader(_cfg([entry], "DATALOADER.NUM_WORKERS", workers))
    batches = _take(loader, 6)
    assert all(len(batch) == 2 for batch in batches)
    for sample in (sample for batch in batches for sample in batch):
        assert len(sample["image"]) == len(sample["instances"]) == 2
        assert sample["tracks"]["ids"].shape[1] == 2
        assert sample["instances"].tracks is sample["tracks"]
        assert sample["image"][0].shape == (3, HEIGHT, WIDTH)
        assert sample["supervision"] == "box"
    assert {sample["video_id"] for batch in batches for sample in batch} == {1, 2, 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_seeds_give_equal_batches(entry, workers):
    cfg = _cfg(
        [entry],
        *("DATALOADER.NUM_WORKERS", workers, "INPUT.RANDOM_FLIP", "flip_by_clip"),
    )
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        np.random.seed(5)
        runs.append([sample for batch in _take(build_train_loader(cfg), 5) for sample in batch])
    assert [_key(sample) for sample in runs[0]] == [_key(sample) for sample in runs[1]]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first["image"][0], second["image"][0])


def test_workers_draw_different_clips(tmp_path):
    entry = _register(tmp_path, plain_content((12,)))
    cfg = _cfg([entry], *("DATALOADER.NUM_WORKERS", 2, "SOLVER.IMS_PER_BATCH", 1))
    torch.manual_seed(1)
    keys = [_key(batch[0]) for batch in _take(build_train_loader(cfg), 12)]
    assert keys[0::2] != keys[1::2]


def test_batches_do_not_depend_on_the_number_of_workers(tmp_path):
    """Wide and tall videos, whose batches are grouped; frames, sizes and flips are random."""
    wide = _register(tmp_path, plain_content((5, 4, 3)))
    tall = _register(tmp_path, plain_content((4, 4)))
    for video in (content := json.loads(Path(tall[1][1]).read_text()))["videos"]:
        video["width"], video["height"] = video["height"], video["width"]
    for track in content["annotations"]:
        track["bboxes"] = [box and [1, 1, 5, 6] for box in track["bboxes"]]
    tall = _register(tmp_path, content, tall[0])
    for path in Path(tall[1][2]).rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    options = ("INPUT.RANDOM_FLIP", "flip_by_clip", "INPUT.MIN_SIZE_TRAIN", (HEIGHT, 2 * HEIGHT))
    runs = []
    for workers in (0, 1, 2, 4):
        np.random.seed(workers)
        cfg = _cfg([wide, tall], "DATALOADER.NUM_WORKERS", workers, *options)
        runs.append([sample for batch in _take(build_train_loader(cfg), 8) for sample in batch])
    assert len({sample["image"][0].shape for sample in runs[0]}) > 2
    for others in runs[1:]:
        for first, other in zip(runs[0], others, strict=True):
            assert _key(first) == _key(other)
            assert first["dataset_name"] == other["dataset_name"]
            assert all(map(torch.equal, first["image"], other["image"]))


def test_random_numbers_of_a_mapper_are_those_of_its_sample(entry):
    """Also torch's, which the project's own mappers do not draw."""

    def numbers(workers):
        loader = build_train_loader(_cfg([entry], "DATALOADER.NUM_WORKERS", workers))
        loader.dataset.dataset.mappers = [
            lambda entry: {"drawn": (np.random.rand(), torch.rand(()).item(), random.random())}
        ]
        torch.manual_seed(workers)
        return [sample["drawn"] for batch in _take(loader, 4) for sample in batch]

    state = torch.get_rng_state()
    assert numbers(0) == numbers(2)
    assert len(set(numbers(0))) == 8
    torch.set_rng_state(state)
    expected = torch.rand(3)
    torch.set_rng_state(state)
    _take(build_train_loader(_cfg([entry])), 3)
    assert torch.equal(torch.rand(3), expected)


def test_several_data_sets_are_joined(tmp_path):
    first = _register(tmp_path, plain_content((4,)))
    second = _register(tmp_path, plain_content((3, 2)))
    videos = load_train_videos_of([first, second])
    assert [video["length"] for video in videos] == [4, 3, 2]


def load_train_videos_of(entries, *overrides):
    from maskfreevis_ext.data import register_from_config

    cfg = _cfg(entries, *overrides)
    register_from_config(cfg)
    return load_train_videos(cfg)


def _with_classes(*names):
    content = plain_content()
    for category, name in zip(content["categories"], names, strict=True):
        category["name"] = name
    return content


def test_classes_of_other_data_sets_are_matched_by_name_and_others_dropped(tmp_path, caplog):
    """The objects are of the classes 0 (id 3) and 1 (id 7)."""
    first = _register(tmp_path, _with_classes("yak", "EMU", "dog"))
    second = _register(tmp_path, plain_content())
    with caplog.at_level(logging.INFO):
        videos = load_train_videos_of([first, second])
    labels = [
        {item["category_id"] for frame in video["annotations"] for item in frame}
        for video in videos
    ]
    assert labels == [{2}, {2}, {0, 1}, {0, 1}]
    lines = [r.message for r in caplog.records if "classes are classes of" in r.message]
    assert lines == [
        f"{first[0]}: 2 of 3 classes are classes of {second[0]};"
        " 5 boxes of other classes dropped (yak 5)."
    ]


def test_mapping_file_goes_before_names(tmp_path):
    first = _register(tmp_path, _with_classes("yak", "EMU", "dog"))
    second = _register(tmp_path, plain_content())
    pairs = write_json(tmp_path, {"yak": "cat", "emu": None}, "map.json")
    maps = ("DATASETS.CLASS_MAPS", [[first[0], pairs]])
    videos = load_train_videos_of([first, second], *maps)
    labels = {item["category_id"] for frame in videos[0]["annotations"] for item in frame}
    assert labels == {0}
    wrong = write_json(tmp_path, {"yak": "lion"}, "wrong.json")
    with pytest.raises(DataError, match=r"wrong\.json: 'yak' is mapped to 'lion'"):
        load_train_videos_of([first, second], "DATASETS.CLASS_MAPS", [[first[0], wrong]])
    with pytest.raises(ConfigError, match=r"DATASETS\.CLASS_MAPS.*got 'other'"):
        load_train_videos_of([first, second], "DATASETS.CLASS_MAPS", [["other", pairs]])


def test_data_sets_without_common_classes_are_refused(tmp_path):
    entries = [
        _register(tmp_path, _with_classes("yak", "gnu", "ox")),
    ]
    entries.append(_register(tmp_path, plain_content()))
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN: no class of .*yak.*CLASS_MAPS"):
        load_train_videos_of(entries)


def test_videos_without_objects_are_left_out_and_counted(tmp_path, caplog):
    content = plain_content((3, 2, 4))
    content["annotations"] = content["annotations"][:2]
    entry = _register(tmp_path, content)
    with caplog.at_level(logging.INFO):
        assert [video["video_id"] for video in load_train_videos_of([entry])] == [1]
    assert "1 videos to train on; 2 without objects left out" in caplog.text
    videos = load_train_videos_of([entry], "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    assert [video["video_id"] for video in videos] == [1, 2, 3]


def test_video_of_crowds_counts_as_empty(tmp_path):
    content = plain_content((3, 2))
    for track in content["annotations"][:2]:
        track["iscrowd"] = 1
    videos = load_train_videos_of([_register(tmp_path, content)])
    assert [video["video_id"] for video in videos] == [2]


@pytest.mark.parametrize("how", ["no key", "empty", "all null"])
def test_training_without_any_object_is_refused(tmp_path, how):
    content = plain_content()
    if how == "no key":
        del content["annotations"]
    elif how == "empty":
        content["annotations"] = []
    else:
        for track in content["annotations"]:
            track["bboxes"] = [None] * len(track["bboxes"])
    with pytest.raises(DataError, match=r"none of the 2 videos has an object"):
        load_train_videos_of([_register(tmp_path, content)])


def test_clips_longer_than_videos_are_said_once(entry, caplog):
    with caplog.at_level(logging.WARNING):
        loader = build_train_loader(_cfg([entry], "INPUT.SAMPLING_FRAME_NUM", 4))
        for sample in (sample for batch in _take(loader, 4) for sample in batch):
            assert len(sample["image"]) == 4
    records = [record for record in caplog.records if "fewer frames" in record.message]
    assert len(records) == 1
    assert records[0].message.startswith("2 of 3 videos")


def test_masks_are_forgotten_with_box_supervision_and_kept_with_masks(tmp_path):
    entry = _register(tmp_path, plain_content(masks=True))
    items = load_train_videos_of([entry])[0]["annotations"][1]
    assert all("segmentation" not in item for item in items)
    videos = load_train_videos_of([entry], "INPUT.SUPERVISION", "mask")
    assert all("segmentation" in item for item in videos[0]["annotations"][1])
    sample = _take(build_train_loader(_cfg([entry], "INPUT.SUPERVISION", "data")), 1)[0][0]
    assert sample["supervision"] == "mask"
    assert sample["instances"][0].has("gt_masks")


def test_mask_supervision_of_boxes_is_refused_before_training(entry):
    with pytest.raises(DataError, match=r"INPUT\.SUPERVISION is mask.*video 1, annotation 10"):
        build_train_loader(_cfg([entry], "INPUT.SUPERVISION", "mask"))


def test_teacher_without_any_mask_is_refused_before_training(entry):
    with pytest.raises(DataError, match=r"INPUT\.SUPERVISION is teacher, but none of \d+ boxes"):
        build_train_loader(_cfg([entry], "INPUT.SUPERVISION", "teacher"))


def test_each_data_set_has_the_supervision_that_its_file_says(tmp_path):
    """One with confidences, one with true masks, one with boxes, joined by "data"."""
    taught = plain_content(masks=True)
    for track in taught["annotations"]:
        track["confidence"] = 0.5
    contents = {"taught": taught, "masked": plain_content(masks=True), "boxes": plain_content()}
    for name in contents:
        (tmp_path / name).mkdir()
    entries = [_register(tmp_path / name, content) for name, content in contents.items()]
    loader = build_train_loader(_cfg(entries, "INPUT.SUPERVISION", "data"))
    folders = dict(zip((entry[1][2] for entry in entries), contents, strict=True))
    expected = {"taught": "teacher", "masked": "mask", "boxes": "box"}
    found = set()
    for batch in _take(loader, 20):
        for sample in batch:
            root = next(folder for folder in folders if sample["file_names"][0].startswith(folder))
            assert sample["supervision"] == expected[folders[root]]
            found.add(sample["supervision"])
    assert found == {"teacher", "mask", "box"}


def test_missing_frames_are_refused_before_training(entry):
    os.remove(os.path.join(entry[1][2], "v2", "00001.png"))
    with pytest.raises(DataError, match=r"1 of 8 frames do not exist.*00001\.png \(video 2, frame"):
        build_train_loader(_cfg([entry]))
    with pytest.raises(DataError, match="1 of 8 frames"):
        build_test_loader(_cfg([entry]), entry[0])


def test_unknown_names_are_refused_with_the_known_ones(entry):
    cfg = _cfg([entry])
    cfg.DATASETS.TRAIN = ("coco_2017_trian", entry[0])
    with pytest.raises(ConfigError) as error:
        build_train_loader(cfg)
    message = str(error.value)
    assert message.startswith("DATASETS.TRAIN: the data set 'coco_2017_trian'")
    for part in (entry[0], "ytvis_2019_train", "INPUT.DATASETS", "register_ytvis_instances"):
        assert part in message
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST: .*nothing_here"):
        build_test_loader(cfg, "nothing_here")
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)


def test_data_set_of_images_is_refused(entry):
    name = unique_name("images")
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).evaluator_type = "coco"
    cfg = _cfg([entry])
    cfg.DATASETS.TRAIN = (name,)
    with pytest.raises(ConfigError, match=f"{name}.*no annotation file in YouTube-VIS"):
        build_train_loader(cfg)


def test_data_set_with_an_evaluator_of_its_own_is_loaded(entry):
    name = unique_name("own_metric")
    register_ytvis_instances(name, {"evaluator_type": "own_metric"}, *entry[1][1:])
    assert MetadataCatalog.get(name).evaluator_type == "own_metric"
    assert len(list(build_test_loader(_cfg([entry]), name))) > 0


def test_missing_annotation_file_of_a_public_set_says_where_it_was_sought():
    with pytest.raises(DataError, match=r"ovis.*valid\.json.*DETECTRON2_DATASETS"):
        build_test_loader(data_cfg(), "ovis_val")


def test_class_count_must_fit_the_model(entry, caplog):
    with pytest.raises(ConfigError, match=r"NUM_CLASSES is 2, but .* has 3 classes. Set it to 3"):
        build_train_loader(_cfg([entry], "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2))
    with caplog.at_level(logging.WARNING):
        build_train_loader(_cfg([entry], "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5))
    assert "never trained" in caplog.text


def test_other_samplers_are_refused(entry):
    with pytest.raises(ConfigError, match=r"DATALOADER\.SAMPLER_TRAIN"):
        build_train_loader(_cfg([entry], "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"))


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_gives_every_video_once_and_whole(entry, workers):
    loader = build_test_loader(_cfg([entry], "DATALOADER.NUM_WORKERS", workers), entry[0])
    assert len(loader) == 3
    samples = [batch[0] for batch in loader]
    assert [sample["video_id"] for sample in samples] == [1, 2, 3]
    assert [len(sample["image"]) for sample in samples] == [4, 3, 1]
    for sample in samples:
        assert "instances" not in sample
        for t, image in enumerate(sample["image"]):
            assert image.shape == (3, HEIGHT, WIDTH)
            assert image.dtype == torch.uint8
            assert image.is_contiguous()
            assert int(image[2, 0, 0]) == 10 * t


def test_test_loader_takes_a_file_without_annotations(tmp_path):
    content = plain_content()
    del content["annotations"]
    entry = _register(tmp_path, content)
    assert len(list(build_test_loader(_cfg([entry]), entry[0]))) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["train", "test"])
def test_unreadable_frame_arrives_as_the_visible_error(entry, workers, kind):
    path = os.path.join(entry[1][2], "v1", "00002.png")
    with open(path, "wb") as file:
        file.write(b"not an image")
    cfg = _cfg(
        [entry],
        *("DATALOADER.NUM_WORKERS", workers, "INPUT.SAMPLING_FRAME_NUM", 4),
        *("DATALOADER.ASPECT_RATIO_GROUPING", kind == "train"),
        *("INPUT.CHECK_FRAMES", False),  # a file that turns bad later
    )
    loader = build_train_loader(cfg) if kind == "train" else build_test_loader(cfg, entry[0])
    with pytest.raises(DataError) as error:
        _take(loader, 20)
    message = str(error.value)
    assert message.startswith(f"{path} (video 1, frame 2): expected an image")
    assert "Traceback" not in message
    assert message.endswith("remove the frame from the JSON.")


def test_wrapper_passes_attributes_on_and_survives_a_copy(entry):
    import copy

    loader = build_test_loader(_cfg([entry]), entry[0])
    assert loader.dataset is loader.loader.dataset
    with pytest.raises(AttributeError):
        _ = loader.nothing
    assert isinstance(copy.copy(loader), VisibleErrors)
