"""Class names and category ids for prediction."""

from __future__ import annotations

import logging

import pytest
from detectron2.data import MetadataCatalog

from maskfreevis_ext.data import register_ytvis_instances
from maskfreevis_ext.engine.predict import (
    build_predictor,
    category_ids,
    choose_classes,
    find_class_names,
)
from maskfreevis_ext.errors import CheckpointError, ConfigError
from tests.helpers.configs import tiny_cfg
from tests.helpers.videos import plain_content, unique_name, write_json


def cfg_with(test: str, train: str = ""):
    names = [(name,) if name else () for name in (train, test)]
    return tiny_cfg("DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1])


def test_names_come_from_metadata():
    name = unique_name("predict")
    MetadataCatalog.get(name).set(
        thing_classes=["cat", "dog", "emu"],
        thing_dataset_id_to_contiguous_id={4: 0, 6: 1, 9: 2},
    )

    assert find_class_names(cfg_with(name)) == ["cat", "dog", "emu"]
    assert category_ids(cfg_with(name)) == {0: 4, 1: 6, 2: 9}


def test_names_come_from_the_file_of_ones_own_data(tmp_path):
    name = unique_name("predict")
    register_ytvis_instances(name, {}, write_json(tmp_path, plain_content()), str(tmp_path))

    assert find_class_names(cfg_with(name)) == ["cat", "dog", "emu"]
    assert category_ids(cfg_with(name)) == {0: 3, 1: 7, 2: 9}


def test_training_set_is_asked_when_the_test_set_does_not_fit(tmp_path):
    train, test = unique_name("predict"), unique_name("predict")
    register_ytvis_instances(train, {}, write_json(tmp_path, plain_content()), str(tmp_path))
    MetadataCatalog.get(test).set(thing_classes=["cat"], thing_dataset_id_to_contiguous_id={1: 0})

    assert find_class_names(cfg_with(test, train)) == ["cat", "dog", "emu"]


def test_unknown_names_are_told(caplog):
    cfg = cfg_with(unique_name("predict"))

    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext.engine.predict"):
        logging.getLogger("maskfreevis_ext").propagate = True
        assert find_class_names(cfg) is None

    assert "names of the 3 classes are unknown" in caplog.text
    assert category_ids(cfg) == {0: 1, 1: 2, 2: 3}


def test_given_names_win_and_are_counted():
    name = unique_name("predict")
    MetadataCatalog.get(name).set(
        thing_classes=["a", "b", "c"], thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 3: 2}
    )

    assert find_class_names(cfg_with(name), ["x", "y", "z"]) == ["x", "y", "z"]
    with pytest.raises(ConfigError, match=r"expected 3 names .* got 2: x, y"):
        find_class_names(cfg_with(name), ["x", "y"])


def test_stored_names_go_before_those_of_data_sets(tmp_path):
    name = unique_name("predict")
    register_ytvis_instances(name, {}, write_json(tmp_path, plain_content()), str(tmp_path))
    cfg, stored = cfg_with(name), ["emu", "Cat", "dog"]

    assert find_class_names(cfg, stored=stored) == stored
    assert choose_classes(cfg, ["dog"], stored) == (stored, [2])
    assert category_ids(cfg, stored) == {0: 9, 1: 3, 2: 7}
    assert category_ids(cfg, ["emu", "cat", "cow"]) == {0: 1, 1: 2, 2: 3}


def test_predictor_needs_weights(tmp_path):
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
        build_predictor(tiny_cfg())
    with pytest.raises(CheckpointError, match=r"absent\.pth does not exist"):
        build_predictor(tiny_cfg("MODEL.WEIGHTS", str(tmp_path / "absent.pth")))


class TestChooseClasses:
    """Classes that a user wants to see."""

    @pytest.fixture
    def named(self):
        name = unique_name("predict")
        MetadataCatalog.get(name).set(
            thing_classes=["cat", "dog", "emu"],
            thing_dataset_id_to_contiguous_id={4: 0, 6: 1, 9: 2},
        )
        return cfg_with(name)

    @pytest.mark.parametrize(
        ("given", "labels"),
        [(None, None), ([], None), (["emu", "cat"], [0, 2]), (["1"], [1]), (["dog", "1"], [1])],
    )
    def test_by_name_or_number(self, named, given, labels):
        assert choose_classes(named, given) == (["cat", "dog", "emu"], labels)

    @pytest.mark.parametrize("word", ["cow", "3", "-1"])
    def test_unknown_ones_are_refused(self, named, word):
        with pytest.raises(ConfigError, match=rf"\(cat, dog, emu\) or numbers 0..2, got {word}"):
            choose_classes(named, ["cat", word])

    def test_without_known_names_all_are_given_or_numbers(self):
        cfg = cfg_with(unique_name("predict"))

        assert choose_classes(cfg, ["a", "b", "c"]) == (["a", "b", "c"], None)
        assert choose_classes(cfg, ["0", "2"]) == (None, [0, 2])
        with pytest.raises(ConfigError, match="--classes: expected 3 names"):
            choose_classes(cfg, ["a"])
