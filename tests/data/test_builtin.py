"""Registrations: the public names, the environment variable, and INPUT.DATASETS."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskfreevis_ext.data import builtin
from maskfreevis_ext.data.builtin import (
    BUILTIN_DATASETS,
    class_colors,
    register_all,
    register_from_config,
)
from maskfreevis_ext.data.class_lists import (
    OVIS_CLASSES,
    YTVIS_2019_CLASSES,
    YTVIS_2021_CLASSES,
)
from maskfreevis_ext.errors import ConfigError
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_json

NAMES = [f"{s}_{p}" for s in ("ytvis_2019", "ytvis_2021", "ovis") for p in ("train", "val", "test")]


@pytest.mark.parametrize("name", NAMES)
def test_public_sets_are_registered_with_classes_colours_and_ids(name):
    assert name in DatasetCatalog.list()
    metadata = MetadataCatalog.get(name)
    count = 25 if name.startswith("ovis") else 40
    assert metadata.evaluator_type == "ytvis"
    assert len(metadata.thing_classes) == len(set(metadata.thing_classes)) == count
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in range(count)}
    assert len(metadata.thing_colors) == count


def test_layouts_are_those_of_the_readme():
    assert BUILTIN_DATASETS["ytvis_2019_val"][:2] == (
        "ytvis_2019/valid/JPEGImages",
        "ytvis_2019/valid.json",
    )
    assert BUILTIN_DATASETS["ytvis_2021_test"][:2] == (
        "ytvis_2021/test/JPEGImages",
        "ytvis_2021/test.json",
    )
    assert BUILTIN_DATASETS["ovis_train"][:2] == ("ovis/train", "ovis/annotations/train.json")


def test_class_lists_agree_with_the_ids_that_coco_maps_to():
    assert [YTVIS_2019_CLASSES[i - 1] for i in (1, 21, 6, 28, 40)] == [
        "person", "motorbike", "sedan", "airplane", "tennis_racket",
    ]  # fmt: skip
    assert [YTVIS_2021_CLASSES[i - 1] for i in (26, 23, 5, 1, 40)] == [
        "person", "motorbike", "car", "airplane", "zebra",
    ]  # fmt: skip
    assert [OVIS_CLASSES[i - 1] for i in (1, 21, 25, 22, 11)] == [
        "Person", "Bicycle", "Vehical", "Motorcycle", "Giraffe",
    ]  # fmt: skip


def test_registering_again_changes_nothing():
    before = set(DatasetCatalog.list())
    register_all(os.path.dirname(os.path.dirname(MetadataCatalog.get("ytvis_2019_val").json_file)))
    assert set(DatasetCatalog.list()) == before


def test_root_comes_from_the_environment():
    code = (
        "import maskfreevis_ext\nfrom detectron2.data import MetadataCatalog as M\n"
        "import maskfreevis_ext.data.builtin\n"
        "print(M.get('ovis_val').json_file, M.get('ovis_val').image_root)"
    )
    environment = {**os.environ, "DETECTRON2_DATASETS": "/some/where"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    last = out.stdout.strip().splitlines()[-1]
    assert last == "/some/where/ovis/annotations/valid.json /some/where/ovis/valid"


def test_colours_are_distinct_and_deterministic():
    colors = class_colors(40)
    assert colors == class_colors(40)
    assert len(set(colors)) == 40
    assert all(0 <= value <= 255 for color in colors for value in color)
    assert class_colors(3) == colors[:3]


def test_config_registers_ones_own_files(tmp_path):
    name = unique_name()
    json_file = write_json(tmp_path, plain_content())
    cfg = data_cfg("INPUT.DATASETS", [[name, json_file, str(tmp_path)]])
    register_from_config(cfg)
    register_from_config(cfg)
    assert len(DatasetCatalog.get(name)) == 2
    assert MetadataCatalog.get(name).evaluator_type == "ytvis"


def test_config_key_can_be_given_as_text(tmp_path):
    name = unique_name()
    cfg = data_cfg("INPUT.DATASETS", f"[['{name}', 'a.json', 'frames']]")
    register_from_config(cfg)
    assert MetadataCatalog.get(name).image_root == "frames"


@pytest.mark.parametrize(
    "entry", ["name,a.json,frames", ["a", "b"], ["a", "b", 3], ["", "b", "c"], ["a", "b", "c", "d"]]
)
def test_config_entry_of_another_form_is_refused(entry):
    with pytest.raises(ConfigError, match=r"INPUT\.DATASETS\[0\].*image root"):
        register_from_config(data_cfg("INPUT.DATASETS", [entry]))


def test_importing_the_module_again_is_harmless():
    import importlib

    importlib.reload(builtin)
    assert "ytvis_2019_train" in DatasetCatalog.list()
