"""Trainings on videos and images: the published configs, resuming, and processes that differ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from maskfreevis_ext.data import builtin
from maskfreevis_ext.data.class_lists import COCO_CLASSES, COCO_IDS, YTVIS_2019_CLASSES
from maskfreevis_ext.engine.setup import setup_config
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.configs import tiny_cfg
from tests.helpers.ranks import run_two_ranks
from tests.helpers.training import ROOT
from tests.modeling.test_meta_arch import _clip

SIZE = 64
NAMES = ("coco_2017_train_fake", "ytvis_2019_train", "ytvis_2019_val")

#: What the reference's joint YAML sets, with its own names and without a key of this project.
REFERENCE_YAML = """
_BASE_: {base}
DATASETS:
  TRAIN: ("coco_2017_train_fake", "ytvis_2019_train",)
  TEST: ("ytvis_2019_val",)
INPUT:
  DATASET_MAPPER_NAME: "coco_instance_lsj"
  SAMPLING_FRAME_NUM: 3
  PSEUDO:
    SAMPLING_FRAME_NUM: 4
    SAMPLING_FRAME_RANGE: 20
    AUGMENTATIONS: ['rotation']
    MIN_SIZE_TRAIN: (288, 320, 352, 384, 416, 448, 480, 512)
    MAX_SIZE_TRAIN: 768
    CROP:
      ENABLED: True
      TYPE: "absolute_range"
      SIZE: (384, 600)
"""

#: Small models and frames, so that a step takes a moment.
SMALL = (
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SOLVER.IMS_PER_BATCH", 2),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", 64, "INPUT.MIN_SIZE_TEST", 64),
    *("INPUT.PSEUDO.MIN_SIZE_TRAIN", "(64,)", "INPUT.PSEUDO.MAX_SIZE_TRAIN", 64),
    *("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64, "MODEL.MASK_FORMER.DEC_LAYERS", 2),
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DIM_FEEDFORWARD", 32),
    *("DATALOADER.NUM_WORKERS", 0, "VIS_PERIOD", 0, "LOG.REPORT", False),
    *("MODEL.SWIN.EMBED_DIM", 24, "MODEL.SWIN.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.SWIN.NUM_HEADS", "[1, 2, 4, 8]", "MODEL.SWIN.WINDOW_SIZE", 4),
)


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(0).randint(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _write_coco(root: Path) -> None:
    """Two images of a person and a chair, which is no class of YouTube-VIS."""
    images, annotations = [], []
    for i in (1, 2):
        _picture(root / "coco" / "train2017" / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": SIZE, "width": SIZE})
        for k, category in enumerate((1, 62)):
            x, y, w, h = 8 + 20 * k, 10, 24, 30
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {"id": 10 * i + k, "image_id": i, "category_id": category, "iscrowd": 0}
                | {"bbox": [x, y, w, h], "segmentation": [polygon]}
            )
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO_CLASSES, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "coco" / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def _write_videos(root: Path, split: str) -> None:
    """A video of four frames with a person, with boxes alone."""
    base = root / "ytvis_2019"
    names = [f"v1/{t:05d}.jpg" for t in range(4)]
    for name in names:
        _picture(base / split / "JPEGImages" / name)
    video = {"id": 1, "height": SIZE, "width": SIZE, "length": 4, "file_names": names}
    track = {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0}
    track["bboxes"] = [[10 + t, 8, 20, 30] for t in range(4)]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(YTVIS_2019_CLASSES)]
    content = {"videos": [video], "categories": categories, "annotations": [track]}
    (base / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def public_sets(tmp_path, monkeypatch):
    """Tiny data under the registered names."""
    root = tmp_path / "sets"
    _write_coco(root)
    for split in ("train", "valid"):
        _write_videos(root, split)
    names = [*builtin.BUILTIN_DATASETS, "coco_2017_train_fake"]

    def forget():
        for name in names:
            for catalog in (DatasetCatalog, MetadataCatalog):
                if name in catalog.list():
                    catalog.remove(name)

    forget()
    builtin.register_all(str(root))
    yield root
    forget()
    builtin.register_all()


def _config(path, output, *more):
    options = [str(word) for word in (*SMALL, "OUTPUT_DIR", output, *more)]
    return setup_config(
        argparse.Namespace(config_file=str(path), opts=options, eval_only=False, device=None)
    )


def _steps(cfg, count):
    """Names of the data sets and losses of the first steps of a training."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    seen = []
    with EventStorage(0) as storage:
        for trainer.iter in range(count):
            trainer.storage = trainer._trainer.storage = storage
            trainer._trainer.iter = trainer.iter
            batch = next(trainer._trainer._data_loader_iter)
            losses = trainer.model(batch)
            sum(losses.values()).backward()
            assert all(torch.isfinite(loss) for loss in losses.values())
            seen.append(({sample["dataset_name"] for sample in batch}, losses))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("model", ["R50_bs16", "R101_bs16", "SwinL_bs8", "reference"])
def test_published_joint_config_builds_loads_and_steps(model, public_sets, tmp_path):
    folder = ROOT / "configs" / "youtubevis_2019"
    if model == "reference":
        path = tmp_path / "joint.yaml"
        path.write_text(REFERENCE_YAML.format(base=folder / "maskfreevis_R50_bs16.yaml"))
    else:
        path = folder / f"maskfreevis_{model}_joint.yaml"
    seen = _steps(_config(path, tmp_path / "out"), 6)
    assert all(len(names) == 1 for names, _ in seen)
    assert set().union(*(names for names, _ in seen)) == set(NAMES[:2])
    assert len({tuple(sorted(losses)) for _, losses in seen}) == 1
    for names, losses in seen:
        from_masks = float(losses["loss_mask"].detach())
        from_boxes = float(losses["loss_mask_proj"].detach())
        assert (from_masks > 0) is (names == {NAMES[0]})
        assert (from_boxes > 0) is (names == {NAMES[1]})


def _part_of_rank(rank: int) -> tuple[list[list[str]], torch.Tensor]:
    """Each process trains on another kind of clip and another number of frames."""
    torch.manual_seed(1)
    model = DistributedDataParallel(build_model(tiny_cfg()).train(), broadcast_buffers=False)
    names = []
    for step in range(2):
        with_masks = (rank + step) % 2 == 1
        clip = _clip(4 if with_masks else 3, supervision="mask" if with_masks else "box")
        losses = model([clip])
        sum(losses.values()).backward()
        names.append(sorted(losses))
    gradient = [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
    return names, torch.stack(gradient)


@pytest.mark.slow
def test_processes_with_boxes_and_with_masks_step_together(tmp_path):
    first, second = run_two_ranks(_part_of_rank, tmp_path)
    assert first[0] == second[0]
    assert len({tuple(names) for names in first[0]}) == 1
    torch.testing.assert_close(first[1], second[1])


@pytest.mark.slow
def test_resumed_training_goes_on_with_the_same_batches(public_sets, tmp_path):
    folder = ROOT / "configs" / "youtubevis_2019"
    path = folder / "maskfreevis_R50_bs16_joint.yaml"
    more = ("SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", "()")
    cfg = _config(path, tmp_path / "out", *more, "SOLVER.MAX_ITER", 2)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    whole = Trainer(_config(path, tmp_path / "other", *more, "SOLVER.MAX_ITER", 5))
    batches = [next(whole._trainer._data_loader_iter) for _ in range(5)]
    resumed = Trainer(_config(path, tmp_path / "out", *more, "SOLVER.MAX_ITER", 5))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    for expected in batches[2:]:
        got = next(resumed._trainer._data_loader_iter)
        for sample, other in zip(got, expected, strict=True):
            assert sample["file_names"] == other["file_names"]
            assert all(map(torch.equal, sample["image"], other["image"]))
