"""Which category a label stands for."""

from __future__ import annotations

from detectron2.data import MetadataCatalog

from maskfreevis_ext.data import register_ytvis_instances
from maskfreevis_ext.data.categories import categories_by_label, categories_of_file
from tests.helpers.videos import plain_content, unique_name, write_json

FILE = {"categories": [{"id": 9, "name": "emu"}, {"id": 3, "name": "cat"}, {"id": 7}]}


def test_labels_count_the_ids_of_a_file():
    assert categories_of_file(FILE) == {0: (3, "cat"), 1: (7, "7"), 2: (9, "emu")}
    assert categories_of_file({}) == {}


def test_metadata_come_first_and_need_not_be_sorted():
    name = unique_name("categories")
    MetadataCatalog.get(name).set(
        thing_classes=["dog", "cat"], thing_dataset_id_to_contiguous_id={3: 1, 8: 0}
    )

    assert categories_by_label(name, FILE) == {0: (8, "dog"), 1: (3, "cat")}


def test_ids_suffice_where_the_file_is_at_hand():
    name = unique_name("categories")
    MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={3: 1, 8: 0})

    assert {label: each.id for label, each in categories_by_label(name, FILE).items()} == {
        0: 8,
        1: 3,
    }


def test_file_is_read_where_the_data_set_is_not_loaded(tmp_path):
    name = unique_name("categories")
    register_ytvis_instances(name, {}, write_json(tmp_path, plain_content()), str(tmp_path))

    assert categories_by_label(name) == {0: (3, "cat"), 1: (7, "dog"), 2: (9, "emu")}


def test_nothing_known_gives_nothing():
    assert categories_by_label(unique_name("categories")) == {}
