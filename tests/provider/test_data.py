"""Catalogs, structures' errors, mappers' helpers and augmentations with arguments of their own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BitMasks, Boxes, Instances


@pytest.fixture
def name() -> str:
    """A data set's name that no other test uses, removed afterwards."""
    yield "provider_test_set"
    if "provider_test_set" in DatasetCatalog:
        DatasetCatalog.remove("provider_test_set")
    if "provider_test_set" in MetadataCatalog:
        MetadataCatalog.remove("provider_test_set")


def test_dataset_catalog(name: str) -> None:
    DatasetCatalog.register(name, lambda: [{"video_id": 1}])
    assert name in DatasetCatalog.list()
    assert DatasetCatalog.get(name) == [{"video_id": 1}]
    with pytest.raises(AssertionError, match=name):
        DatasetCatalog.register(name, list)
    with pytest.raises(KeyError, match=r"no_such_set.*provider_test_set"):
        DatasetCatalog.get("no_such_set")


def test_metadata_is_set_once(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    assert metadata is MetadataCatalog.get(name)
    metadata.set(thing_classes=["a", "b"], json_file="x.json")
    metadata.thing_classes = ["a", "b"]
    with pytest.raises(AssertionError, match="thing_classes"):
        metadata.thing_classes = ["c"]
    assert metadata.get("json_file") == "x.json"
    assert metadata.get("absent", 5) == 5
    assert not hasattr(metadata, "absent")
    with pytest.raises(AttributeError, match=name):
        _ = metadata.absent


def test_instances_refuse_fields_of_other_lengths() -> None:
    instances = Instances((4, 5), gt_classes=torch.zeros(3))
    with pytest.raises(AssertionError):
        instances.gt_boxes = Boxes(torch.zeros(2, 4))
    with pytest.raises(AttributeError, match="gt_boxes"):
        _ = instances.gt_boxes
    with pytest.raises(IndexError):
        instances[3]
    assert not instances.has("gt_boxes")


def test_structures_survive_a_worker_process() -> None:
    instances = Instances((4, 5), gt_boxes=Boxes([[0, 0, 1, 1]]))
    instances.gt_masks = BitMasks(np.ones((1, 4, 5)))
    again = pickle.loads(pickle.dumps(instances))
    assert again.image_size == (4, 5)
    assert again.gt_boxes.tensor.tolist() == [[0, 0, 1, 1]]
    assert again.gt_masks.tensor.all()


@pytest.mark.parametrize("bad", [torch.zeros(2, 3), torch.zeros(4)])
def test_boxes_of_another_shape_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(AssertionError):
        Boxes(bad)


def test_own_augmentation_shows_its_arguments() -> None:
    class CropCorner(T.Augmentation):
        def __init__(self, size: int, shift: int = 1) -> None:
            super().__init__()
            self.size, self.shift = size, shift

        def get_transform(self, image: np.ndarray) -> T.Transform:
            return T.CropTransform(self.shift, self.shift, self.size, self.size)

    augmentation = CropCorner(3)
    assert "size=3" in repr(augmentation)
    transforms = T.TransformList([augmentation.get_transform(None), T.NoOpTransform()])
    image = transforms.apply_image(np.arange(100).reshape(10, 10))
    assert image[0].tolist() == [11, 12, 13]
    assert transforms.apply_coords(np.array([[4.0, 5.0]])).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: T.RandomFlip(horizontal=True, vertical=True), ValueError),
        (lambda: T.RandomFlip(horizontal=False), ValueError),
        (lambda: T.ResizeShortestEdge((1, 2, 3), sample_style="range"), AssertionError),
        (lambda: T.ResizeShortestEdge((1, 2), sample_style="other"), AssertionError),
        (lambda: T.RandomCrop("other", (1, 2)), AssertionError),
        (lambda: TrainingSampler(0), ValueError),
        (lambda: TrainingSampler(1.5), TypeError),
    ],
)
def test_bad_arguments_are_refused(build: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        build()


def test_sampler_divides_indices_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from detectron2.utils import comm

    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: 2)
        sampler = iter(TrainingSampler(5, seed=1))
        parts.append([next(sampler) for _ in range(5)])
    together = [index for pair in zip(*parts, strict=True) for index in pair]
    generator = torch.Generator().manual_seed(1)
    expected = [*torch.randperm(5, generator=generator), *torch.randperm(5, generator=generator)]
    assert together == [int(index) for index in expected]
