"""The averaged teacher: what it believes, how it follows the model, training and resuming."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from maskfreevis_ext.engine.ema import follow_weights
from maskfreevis_ext.engine.self_training import (
    EmaTeacher,
    SelfTrainingSettings,
    TaughtBatches,
    agreement,
)
from maskfreevis_ext.engine.trainer import Trainer
from maskfreevis_ext.errors import ConfigError
from tests.helpers.configs import tiny_cfg
from tests.helpers.trainers import make_trainer

ON = ("MODEL.MASKFREE.SELF_TRAINING.ENABLED", True)
EAGER = SelfTrainingSettings(box_iou=0.0, steadiness=0.0)


def _sample(supervision: str = "box", size: tuple[int, int] = (40, 50)) -> dict:
    """A clip of two frames and two objects, the second one absent at first."""
    boxes = torch.tensor([[[4.0, 6, 30, 36], [5, 7, 31, 37]], [[0, 0, 0, 0], [20, 2, 48, 20]]])
    return {
        "image": [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)],
        "tracks": {
            "labels": torch.tensor([0, 2]),
            "ids": torch.tensor([[7, 7], [-1, 9]]),
            "boxes": boxes,
        },
        "supervision": supervision,
        "video_id": 1,
    }


def _mask(*cells: tuple[int, int, int, int]) -> Tensor:
    """Logits of one object whose mask is a rectangle of cells in each frame, (1, T, 8, 8)."""
    logits = torch.full((1, len(cells), 8, 8), -1.0)
    for frame, (x0, y0, x1, y1) in zip(logits[0], cells, strict=True):
        frame[y0:y1, x0:x1] = 1
    return logits


def test_agreement_is_the_iou_of_the_boxes_where_it_is_large_enough() -> None:
    boxes = torch.tensor([[[4.0, 4, 20, 20]] * 3])
    logits = _mask((1, 1, 5, 5), (1, 1, 5, 4), (1, 1, 3, 3))
    assert agreement(logits, boxes, 4, 0.0, 0.0)[0].tolist() == pytest.approx([1, 0.75, 0.25])
    assert agreement(logits, boxes, 4, 0.7, 0.0)[0].tolist() == pytest.approx([1, 0.75, 0])


def test_masks_whose_share_of_the_box_jumps_are_not_believed() -> None:
    boxes = torch.tensor([[[4.0, 4, 20, 20]] * 2])
    logits = _mask((1, 1, 5, 5), (1, 1, 5, 5))
    logits[0, 1, 2:4, 2:4] = -1  # 12 of the 16 cells are left, in the same box
    assert agreement(logits, boxes, 4, 0.8, 0.7).tolist() == [[1, 1]]
    assert agreement(logits, boxes, 4, 0.8, 0.8).tolist() == [[0, 0]]


def test_absent_object_and_empty_mask_agree_with_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0, 0, 0], [4, 4, 20, 20]]])
    logits = _mask((1, 1, 5, 5), (1, 1, 1, 1))
    assert agreement(logits, boxes, 4, 0.5, 0.0).tolist() == [[0, 0]]


def test_teacher_follows_slowly_and_stays_without_gradients() -> None:
    model = build_model(tiny_cfg())
    teacher = EmaTeacher(model, SelfTrainingSettings())
    before = copy.deepcopy(dict(teacher.model.named_parameters()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.criterion.reset_schedule(5)
    follow_weights(teacher.model, model, 0.75)
    for name, parameter in teacher.model.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25)
        assert not parameter.requires_grad
    assert teacher.model.criterion._iter.item() == 5
    assert not teacher.model.training
    assert model.training == build_model(tiny_cfg()).training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_architectures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"META_ARCHITECTURE: expected VideoMaskFormer.*Linear"):
        EmaTeacher(torch.nn.Linear(1, 1), EAGER)


@pytest.mark.parametrize("options", [(), ("MODEL.MULTIMASK.ENABLED", True)])
def test_boxes_are_taught_and_everything_else_stays(options: tuple) -> None:
    torch.manual_seed(3)
    model = build_model(tiny_cfg(*options))
    teacher = EmaTeacher(model, EAGER)
    empty = _sample()
    empty["tracks"] = {name: value[:0] for name, value in empty["tracks"].items()}
    batch = [_sample(), _sample("mask"), _sample("teacher"), empty]
    before = copy.deepcopy(batch)
    taught = teacher.teach(batch)
    assert [a is b for a, b in zip(taught, batch, strict=True)] == [False, True, True, True]
    for sample, old in zip(batch, before, strict=True):  # the loader's samples are not changed
        assert sample["supervision"] == old["supervision"]
        assert sample["tracks"].keys() == old["tracks"].keys()
    tracks = taught[0]["tracks"]
    assert taught[0]["supervision"] == "teacher"
    assert tracks["teacher_masks"].shape == (2, 2, 40, 50)
    assert tracks["teacher_masks"].dtype == torch.bool
    confidence = tracks["teacher_confidence"]
    assert confidence.shape == (2, 2)
    assert bool(((confidence >= 0) & (confidence <= 1)).all())
    assert confidence[1, 0] == 0  # absent
    losses = model.train()([taught[0], {**empty, "supervision": "box"}])
    assert bool(torch.isfinite(losses["loss_teacher"]))


def test_masks_are_those_of_the_matched_queries() -> None:
    """With the matcher's queries replaced, the masks are those of the model for these queries."""
    torch.manual_seed(3)
    model = build_model(tiny_cfg())
    teacher = EmaTeacher(model, EAGER)
    sample = _sample()
    pair = torch.tensor([4, 1]), torch.tensor([0, 1])
    teacher.model.criterion.matcher.forward = lambda *_: [[pair]]
    masks, _ = teacher.masks_of(sample)
    outputs, _ = teacher.model.predict(sample)
    cells = outputs["pred_masks"][[4, 1]] > 0
    assert torch.equal(masks[..., ::4, ::4], cells[..., :10, :13])
    assert torch.equal(masks[..., 3::4, 3::4], cells[..., :10, :12])


def test_batches_pass_unchanged_until_the_teacher_is_active() -> None:
    teacher = EmaTeacher(build_model(tiny_cfg()), EAGER)
    batches = iter(TaughtBatches([[_sample()], [_sample()]], teacher))
    assert next(batches)[0]["supervision"] == "box"
    teacher.is_active = True
    assert next(batches)[0]["supervision"] == "teacher"


def _train(videos: Path, output: Path, steps: int, resume: bool = False) -> Trainer:
    options = (
        *ON,
        *("MODEL.MASKFREE.SELF_TRAINING.START_ITER", 2),
        *("MODEL.MASKFREE.SELF_TRAINING.BOX_IOU", 0.0),
        *("MODEL.MASKFREE.SELF_TRAINING.STEADINESS", 0.0),
        *("SOLVER.MAX_ITER", steps, "DATASETS.TEST", "()"),
    )
    trainer = make_trainer(videos, output, *options, resume=resume)
    trainer.train()
    return trainer


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    assert trainer.teacher is not None
    return trainer.teacher.model.state_dict()


def test_training_teaches_from_its_start_and_resumes_with_the_teacher(
    tiny_videos: Path, tmp_path: Path
) -> None:
    trainer = _train(tiny_videos, tmp_path, 3)
    losses = [value for value, _ in trainer.storage.history("loss_teacher").values()]
    assert losses[:2] == [0, 0]
    assert losses[2] > 0
    student = trainer.model.state_dict()
    name = "sem_seg_head.predictor.query_feat.weight"
    assert not torch.equal(_weights(trainer)[name], student[name])
    resumed = make_trainer(tiny_videos, tmp_path, *ON, "SOLVER.MAX_ITER", 5, resume=True)
    for key, value in _weights(trainer).items():
        assert torch.equal(value, _weights(resumed)[key]), key
    for hook in resumed._hooks:
        hook.before_train()
    assert torch.equal(_weights(resumed)[name], _weights(trainer)[name])
