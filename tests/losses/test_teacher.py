"""The teacher's term: values by hand, gradients, what has no teacher, padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.box import ProjectionTerm
from maskfreevis_ext.losses.hypotheses import Hypotheses, best_by_boxes
from maskfreevis_ext.losses.scene import BoxObjects, Scene
from maskfreevis_ext.losses.teacher import TeacherTerm, grow_boxes, masked_bce_dice
from maskfreevis_ext.losses.teacher_masks import TeacherMasks, join_teachers

MAP = (4, 6)
STRIDE = 4
SIZE = (16, 24)


def _objects(
    boxes: Tensor,
    maps: Tensor | None = None,
    confidence: Tensor | None = None,
    frame_size: tuple[int, int] = SIZE,
) -> BoxObjects:
    """Objects of one clip; the teacher's maps are (N, T, 4, 6)."""
    frames = torch.zeros(1, boxes.shape[1], 3, *SIZE)
    affinities = compute_affinities(frames, [frame_size], STRIDE, AffinitySettings())
    teacher = None
    if maps is not None:
        given = torch.ones(maps.shape[:2]) if confidence is None else confidence
        teacher = TeacherMasks(maps.to(boxes.dtype), given.to(boxes.dtype))
    clips = torch.zeros(len(boxes), dtype=torch.int64)
    return BoxObjects(
        boxes, clips, affinities, MAP, STRIDE, teacher=teacher, frame_sizes=[frame_size]
    )


def _box(*xyxy: float) -> Tensor:
    return torch.tensor([[xyxy]], dtype=torch.float64)


def _value(term: TeacherTerm, logits: Tensor, objects: BoxObjects) -> Tensor:
    return term.by_object(logits, objects, torch.ones(len(logits), 1, dtype=logits.dtype))


def test_value_by_hand_inside_the_box_only() -> None:
    """A box of 2 x 2 cells, undecided logits, a teacher who takes one cell of the four."""
    maps = torch.zeros(1, 1, *MAP)
    maps[0, 0, 1, 1] = 1
    objects = _objects(_box(4, 4, 12, 12), maps)
    logits = torch.zeros(2, 1, 1, *MAP, dtype=torch.float64)
    logits[1, 0, 0, 3, 5] = 50  # outside the region: of no concern to this term
    expected = math.log(2) + 1 - (2 * 0.5 + 1) / (4 * 0.5 + 1 + 1)
    value = _value(TeacherTerm(1.0, grow=0.0), logits, objects)
    assert value[:, 0].tolist() == pytest.approx([expected, expected])


def test_grown_box_looks_at_what_is_around() -> None:
    maps = torch.zeros(1, 1, *MAP)
    maps[0, 0, 1:3, 1:3] = 1
    objects = _objects(_box(4, 4, 12, 12), maps)
    logits = torch.full((1, 1, 1, *MAP), -50.0, dtype=torch.float64)
    logits[0, 0, 0, 1:3, 1:3] = 50
    logits[0, 0, 0, 0, 1] = 50  # right above the box
    assert _value(TeacherTerm(1.0, grow=0.0), logits, objects).item() == pytest.approx(0, abs=1e-9)
    grown = _value(TeacherTerm(1.0, grow=0.5), logits, objects).item()
    assert grown == pytest.approx(50 / 16 + 1 - (2 * 4 + 1) / (5 + 4 + 1))


def test_confidence_weighs_each_frame_and_0_is_no_teacher() -> None:
    boxes = _box(4, 4, 12, 12).repeat(1, 3, 1)
    maps = torch.zeros(1, 3, *MAP)
    maps[:, :, 1:3, 1:3] = 1
    maps[0, 2] = 0.25
    logits = torch.randn(1, 1, 3, *MAP, dtype=torch.float64)
    term = TeacherTerm(1.0)
    single = []
    for t in range(3):
        only = torch.zeros(1, 3)
        only[0, t] = 1
        single.append(_value(term, logits, _objects(boxes, maps, only)).item())
    mixed = _value(term, logits, _objects(boxes, maps, torch.tensor([[0.5, 0.0, 0.8]]))).item()
    assert mixed == pytest.approx(0.5 * single[0] + 0.8 * single[2])
    sure = TeacherTerm(1.0, least_confidence=0.6)
    value = _value(sure, logits, _objects(boxes, maps, torch.tensor([[0.5, 0.0, 0.8]]))).item()
    assert value == pytest.approx(0.8 * single[2])


def test_soft_targets_are_reached_at_their_own_probability() -> None:
    maps = torch.full((1, 1, *MAP), 0.3)
    objects = _objects(_box(0, 0, 24, 16), maps)
    logits = torch.zeros(1, 1, 1, *MAP, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        logits.fill_(math.log(0.3 / 0.7))
    bce = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[0, 0, 0], maps[0, 0].double(), reduction="mean"
    )
    assert torch.autograd.grad(bce, logits)[0].abs().max() < 1e-8
    value = masked_bce_dice(logits, objects.teacher.maps, torch.ones(MAP, dtype=torch.float64))
    dice = 1 - (2 * 24 * 0.09 + 1) / (2 * 24 * 0.3 + 1)
    assert value.item() == pytest.approx(bce.item() + dice)


def test_padding_changes_nothing_and_gets_no_gradient() -> None:
    """A box at the edge of a frame of 12 x 16 pixels in an input of 16 x 24."""
    maps = torch.zeros(1, 1, *MAP)
    maps[0, 0, 1:3, 2:4] = 1
    objects = _objects(_box(8, 4, 16, 12), maps, frame_size=(12, 16))
    logits = torch.randn(1, 1, 1, *MAP, dtype=torch.float64, requires_grad=True)
    value = _value(TeacherTerm(1.0, grow=0.5), logits, objects)
    gradient = torch.autograd.grad(value.sum(), logits)[0][0, 0, 0]
    assert (gradient[3:] == 0).all()
    assert (gradient[:, 4:] == 0).all()
    assert (gradient[:3, 1:4] != 0).all()


def test_gradcheck() -> None:
    boxes = torch.tensor([[[2.0, 1, 13, 11], [0, 0, 0, 0]], [[10, 6, 24, 16], [3, 3, 20, 9]]])
    objects = _objects(boxes.double(), torch.rand(2, 2, *MAP), torch.rand(2, 2))
    logits = torch.randn(2, 2, 2, *MAP, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: _value(TeacherTerm(1.0), x, objects), (logits,), fast_mode=True
    )


def test_absent_object_costs_nothing() -> None:
    boxes = torch.zeros(1, 1, 4, dtype=torch.float64)
    objects = _objects(boxes, torch.zeros(1, 1, *MAP), torch.zeros(1, 1))
    logits = torch.randn(1, 1, 1, *MAP, dtype=torch.float64)
    assert _value(TeacherTerm(1.0), logits, objects).item() == 0


def test_without_a_teacher_it_is_a_zero_with_a_gradient_path() -> None:
    logits = torch.randn(2, 1, 1, *MAP, dtype=torch.float64, requires_grad=True)
    value = _value(TeacherTerm(1.0), logits, _objects(_box(4, 4, 12, 12)))
    assert value.tolist() == [[0], [0]]
    assert (torch.autograd.grad(value.sum(), logits)[0] == 0).all()


def test_grown_empty_box_stays_empty() -> None:
    assert grow_boxes(torch.zeros(2, 4), 0.5).tolist() == [[0] * 4] * 2


def test_teachers_of_some_clips_are_joined_with_none_of_others() -> None:
    with_teacher = {
        "boxes": torch.zeros(2, 3, 4),
        "teacher_masks": torch.rand(2, 3, *SIZE) > 0.5,
        "teacher_confidence": torch.rand(2, 3),
    }
    without = {"boxes": torch.zeros(1, 3, 4)}
    soft = {**with_teacher, "teacher_masks": torch.rand(2, 3, *MAP)}  # at the map's size already
    assert join_teachers([without, without], MAP, torch.float32) is None
    joined = join_teachers([with_teacher, without, soft], MAP, torch.float64)
    assert joined is not None
    assert joined.maps.shape == (5, 3, *MAP)
    assert joined.maps.dtype == joined.confidence.dtype == torch.float64
    first = with_teacher["teacher_masks"][0, 0, :STRIDE, :STRIDE].double().mean()
    torch.testing.assert_close(joined.maps[0, 0, 0, 0], first)
    assert not joined.maps[2].any()
    assert not joined.confidence[2].any()
    torch.testing.assert_close(joined.maps[3:], soft["teacher_masks"].double())


def test_best_of_several_masks_is_the_teachers_where_boxes_do_not_say() -> None:
    """A full square and a ring have the same box and projections; the teacher says ring."""
    ring = torch.full((1, 1, *MAP), -20.0, dtype=torch.float64)
    ring[..., 0:4, 1:4] = 20
    full = ring.clone()
    ring[..., 1:3, 2] = -20
    boxes = _box(4, 0, 16, 16)
    hypotheses = Hypotheses(
        logits=torch.stack([full, ring])[None],
        embeddings=torch.zeros(1, 2, 1, 3),
        mask_features=torch.zeros(1, 3, 1, *MAP),
        ious=torch.zeros(1, 2, 1, 1),
        scores=None,
        is_matched=torch.ones(1, 1),
        clips=torch.zeros(1, dtype=torch.int64),
        anchor=torch.zeros(1),
        all_matched=True,
    )
    terms = [ProjectionTerm(1.0), TeacherTerm(1.0)]
    normalizers = {term.name: torch.ones(1, 1, dtype=torch.float64) for term in terms}
    for maps, best in ((None, 0), ((ring > 0).double(), 1), ((full > 0).double(), 0)):
        scene = Scene(boxes=_objects(boxes, maps))
        assert best_by_boxes(hypotheses, scene, terms, normalizers).tolist() == [[best]]
