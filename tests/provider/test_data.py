"""Catalogs, structures' errors, mappers' helpers and augmentations with arguments of their own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks


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
    assert metadata.as_dict()["thing_classes"] == ["a", "b"]
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


def test_boxes_with_nan_cannot_be_clipped() -> None:
    with pytest.raises(AssertionError):
        Boxes([[0.0, float("nan"), 1, 1]]).clip((5, 5))


@pytest.mark.parametrize("bad", [[[[0, 0, 1, 1]]], [[[0, 0, 1, 1, 2]]], [[1, 2]], ((),)])
def test_broken_polygons_are_refused(bad: list) -> None:
    with pytest.raises((ValueError, TypeError)):
        PolygonMasks(bad)


def test_image_of_another_size_is_refused() -> None:
    entry = {"file_name": "x.jpg", "width": 5, "height": 4}
    utils.check_image_size(entry, np.zeros((4, 5, 3)))
    with pytest.raises(utils.SizeMismatchError, match=r"x\.jpg"):
        utils.check_image_size(entry, np.zeros((5, 4, 3)))
    blank: dict = {}
    utils.check_image_size(blank, np.zeros((4, 5, 3)))
    assert blank == {"width": 5, "height": 4}


def test_transformed_boxes_stay_in_the_image() -> None:
    annotation = {"bbox": [-5, 2, 100, 3], "bbox_mode": BoxMode.XYWH_ABS}
    flip = T.HFlipTransform(20)
    out = utils.transform_instance_annotations(annotation, [flip], (10, 20))
    assert out["bbox"].tolist() == [0, 2, 20, 5]
    assert out["bbox_mode"] == BoxMode.XYXY_ABS


def test_segmentation_of_another_type_is_refused() -> None:
    annotation = {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYWH_ABS, "segmentation": "0101"}
    with pytest.raises(ValueError, match="segmentation"):
        utils.transform_instance_annotations(annotation, T.TransformList([]), (10, 20))


def test_augmentation_gets_the_attributes_that_it_names() -> None:
    class CropToFirstBox(T.Augmentation):
        def __init__(self, margin: int) -> None:
            super().__init__()
            self._init(locals())

        def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
            x, y = (boxes[0, :2] - self.margin).astype(int)
            return T.CropTransform(x, y, 4, 3)

    data = T.AugInput(np.arange(100.0).reshape(10, 10), boxes=np.array([[4.0, 5, 6, 7]]))
    transforms = T.AugmentationList([CropToFirstBox(margin=2), T.NoOpTransform()])(data)
    assert data.image[0].tolist() == [32, 33, 34, 35]
    assert data.boxes.tolist() == [[2, 2, 4, 4]]
    assert transforms.apply_coords(np.array([[4.0, 5.0]])).tolist() == [[2, 2]]


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
