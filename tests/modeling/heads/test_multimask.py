"""The model with the multimask head: losses, gradients, old weights, tracks."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.losses.affinities import Affinities
from maskfreevis_ext.losses.hypotheses import Hypotheses
from maskfreevis_ext.losses.multimask_terms import IoUTerm, MultimaskSettings, sam2_sums
from maskfreevis_ext.losses.scene import BoxObjects, Scene
from maskfreevis_ext.losses.teacher_masks import TeacherMasks
from tests.helpers.configs import tiny_cfg
from tests.helpers.criteria import LOSS_NAMES
from tests.modeling.test_meta_arch import _clip, _video

OTHER_LOSS_NAMES = ("loss_iou", "loss_class", "loss_teacher")
ON = ("MODEL.MULTIMASK.ENABLED", True)


def _build(*overrides: object) -> nn.Module:
    torch.manual_seed(3)
    return build_model(tiny_cfg(*ON, *overrides))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The tiny model with the head; tests set its mode and leave its weights alone."""
    return _build()


def _head_gradients(model: nn.Module) -> dict[str, Tensor | None]:
    head = model.sem_seg_head.predictor.multimask_head
    return {name: parameter.grad for name, parameter in head.named_parameters()}


@pytest.mark.parametrize(
    "kinds",
    [("box",), ("mask",), ("box", "mask"), ("mask", "box", "box"), ("teacher", "mask", "box")],
    ids="-".join,
)
@pytest.mark.parametrize("frames", [1, 3])
def test_every_loss_is_there_and_every_parameter_has_a_gradient(
    model: nn.Module, kinds: tuple[str, ...], frames: int
) -> None:
    model.train().zero_grad()
    losses = model([_clip(frames, supervision=kind) for kind in kinds])
    names = (*LOSS_NAMES, *OTHER_LOSS_NAMES)
    suffixes = ["", *(f"_{i}" for i in range(3))]
    assert set(losses) == {name + suffix for name in names for suffix in suffixes}
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    for suffix in suffixes:
        assert losses["loss_class" + suffix] > 0
        assert losses["loss_iou" + suffix] > 0
        assert (losses["loss_mask_proj" + suffix] > 0) == ("box" in kinds)
        assert (losses["loss_teacher" + suffix] > 0) == ("teacher" in kinds)
        assert (losses["loss_dice" + suffix] > 0) == ("mask" in kinds)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_without_objects_the_head_has_zero_gradients(model: nn.Module, kind: str) -> None:
    model.train().zero_grad()
    losses = model([_clip(2, objects=0, supervision=kind)])
    assert losses["loss_iou"] == 0
    assert losses["loss_class"] == 0
    sum(losses.values()).backward()
    for gradient in _head_gradients(model).values():
        assert gradient is not None
        assert (gradient == 0).all()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_more_objects_than_queries() -> None:
    model = _build("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 2).train()
    losses = model([_clip(2, objects=4, supervision=kind) for kind in ("mask", "box")])
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    sum(losses.values()).backward()


def test_old_weights_give_the_outputs_they_gave() -> None:
    torch.manual_seed(4)
    old = build_model(tiny_cfg())
    new = _build()
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all("multimask_head" in name for name in missing)
    video = _video(3)
    expected, got = (model.eval()([copy.deepcopy(video)])[0] for model in (old, new))
    assert got["pred_labels"] == expected["pred_labels"]
    for mask, expected_mask in zip(got["pred_masks"], expected["pred_masks"], strict=True):
        assert torch.equal(mask, expected_mask)
    # all ratings are equal, so that scores are scaled by one number
    ratios = torch.tensor(got["pred_scores"]) / torch.tensor(expected["pred_scores"])
    torch.testing.assert_close(ratios, torch.full_like(ratios, 0.25))
    raw, expected_raw = (model.predict(video)[0] for model in (new, old))
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(raw[name], expected_raw[name], rtol=0, atol=0)


def test_state_dict_without_the_head_is_that_of_the_plain_model() -> None:
    plain = build_model(tiny_cfg())
    assert not any("multimask" in name for name in plain.state_dict())
    assert set(plain.state_dict()) == {
        name for name in _build().state_dict() if "multimask_head" not in name
    }


def _hypotheses(num_objects: int = 2) -> Hypotheses:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    features, embeddings = rand(1, 4, 2, 12, 16), rand(3, 4, num_objects, 4)
    with torch.no_grad():
        logits = torch.einsum("kmnc,cthw->kmnthw", embeddings, features[0])
    return Hypotheses(
        logits=logits,
        embeddings=embeddings,
        mask_features=features,
        ious=rand(3, 4, num_objects, 2),
        scores=rand(3, num_objects, 2),
        is_matched=torch.ones(3, num_objects),
        clips=torch.zeros(num_objects, dtype=torch.int64),
        anchor=torch.zeros(3),
        all_matched=True,
    )


def test_gradient_goes_to_the_best_mask_only() -> None:
    found = _hypotheses()
    settings = MultimaskSettings(**MultimaskSettings.from_config(tiny_cfg(*ON)))
    targets = torch.zeros(2, 2, 12, 16, dtype=torch.bool)
    targets[:, :, 2:6, 3:9] = True
    losses = sam2_sums(found, targets, settings)
    masks = losses["loss_mask"].sum() + losses["loss_dice"].sum()
    gradient = torch.autograd.grad(masks, found.embeddings, retain_graph=True)[0]
    touched = (gradient.abs().sum(-1) > 0).sum(1)  # masks of an object with a gradient
    assert (touched >= 1).all()
    assert (touched <= 2).all()  # one a frame, and there are two frames
    ratings = losses["loss_iou"].sum() + losses["loss_class"].sum()
    for leaf in (found.embeddings, found.mask_features):
        of_leaf = torch.autograd.grad(ratings, leaf, retain_graph=True, allow_unused=True)[0]
        assert of_leaf is None or (of_leaf == 0).all()
    assert (torch.autograd.grad(ratings, found.ious, retain_graph=True)[0] != 0).any()


def test_chosen_mask_has_the_gradient_of_the_product(model: nn.Module) -> None:
    found = _hypotheses()
    best = torch.tensor([[0, 3], [1, 1], [2, 0]])
    upstream = torch.randn(3, 2, 2, 12, 16)
    leaves = found.embeddings, found.mask_features
    got = torch.autograd.grad((found.chosen(best).logits * upstream).sum(), leaves)
    masks = torch.einsum("kmnc,cthw->kmnthw", found.embeddings, found.mask_features[0])
    chosen = torch.stack(
        [torch.stack([masks[k, best[k, n], n] for n in range(2)]) for k in range(3)]
    )
    torch.testing.assert_close(found.chosen(best).logits, chosen)
    expected = torch.autograd.grad((chosen * upstream).sum(), leaves, retain_graph=True)
    for value, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
    everything = torch.autograd.grad(
        (found.all_masks() * upstream[:, :, None]).sum(), leaves, retain_graph=True
    )
    wanted = torch.autograd.grad((masks.transpose(1, 2) * upstream[:, :, None]).sum(), leaves)
    for value, of_masks in zip(everything, wanted, strict=True):
        torch.testing.assert_close(value, of_masks, rtol=1e-4, atol=1e-4)


def test_iou_of_objects_with_boxes_can_be_left_out() -> None:
    model = _build("MODEL.MULTIMASK.IOU_TARGET", "mask").train()
    losses = model([_clip(2)])
    assert losses["loss_iou"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_predicted_iou_learns_from_the_teacher_where_there_is_one() -> None:
    """A ring and a full square have the same box; the teacher says full in frame 0 only."""
    full = torch.full((1, 1, 2, 4, 6), -9.0)
    full[..., 0:4, 1:5] = 9
    ring = full.clone()
    ring[..., 1:3, 2:4] = -9  # 12 of the 16 cells are left
    maps = (full[:, 0] > 0).float()
    objects = BoxObjects(
        boxes=torch.tensor([[[4.0, 0, 20, 16]] * 2]),
        clips=torch.zeros(1, dtype=torch.int64),
        affinities=Affinities([], [], None, torch.zeros(1, 0, 1, 4, 6), [], []),
        map_size=(4, 6),
        stride=4,
        teacher=TeacherMasks(maps, torch.tensor([[0.5, 0.0]])),
    )
    hypotheses = Hypotheses(
        logits=torch.stack([full, ring], dim=1),
        embeddings=torch.zeros(1, 2, 1, 3),
        mask_features=torch.zeros(1, 3, 2, 4, 6),
        ious=torch.zeros(1, 2, 1, 2),
        scores=None,
        is_matched=torch.ones(1, 1),
        clips=torch.zeros(1, dtype=torch.int64),
        anchor=torch.zeros(1),
        all_matched=True,
    )
    for source, expected in (("box", [1, 1, 1, 1]), ("teacher", [1, 0.75, 1, 1])):
        term = IoUTerm(**IoUTerm.from_config(tiny_cfg(*ON, "MODEL.MULTIMASK.IOU_TARGET", source)))
        # the predictions are 0, so that the errors, averaged over the hypotheses, are the targets
        value = term.of_boxes(hypotheses, Scene(boxes=objects))
        assert value.tolist() == pytest.approx([sum(expected) / 2])


def test_without_object_scores() -> None:
    model = _build("MODEL.MULTIMASK.PRED_OBJ_SCORES", False)
    losses = model.train()([_clip(2), _clip(2, supervision="mask")])
    assert losses["loss_class"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any("object_score" in name for name in model.state_dict())
    result = model.eval()([_video(2)])[0]
    assert len(result["pred_scores"]) == 10


def test_sums_over_frames_and_outputs_can_be_means() -> None:
    plain, mean = _build(), _build("MODEL.MULTIMASK.LOSS.NORM_STEPS_FRAMES", True)
    for kind in ("box", "mask"):
        batch = [_clip(3, supervision=kind)]
        values = []
        for model in (plain, mean):
            torch.manual_seed(0)
            values.append(model.train()(batch))
        for name in ("loss_iou", "loss_class"):
            torch.testing.assert_close(values[1][name] * 12, values[0][name])


def test_overwrite_of_absent_objects_is_what_makes_the_spikes() -> None:
    plain, spiky = _build(), _build("MODEL.MULTIMASK.NO_OBJ_OVERWRITE_IN_TRAIN", True)
    batch = [_clip(2, supervision="mask")]
    losses = [model.train()(batch)["loss_mask"].item() for model in (plain, spiky)]
    assert losses[1] > 10 * losses[0]  # all scores are 0 at the start, which counts as absent


def test_dense_gradients_do_not_go_with_the_head() -> None:
    with pytest.raises(ConfigError, match="DENSE_MASK_GRADIENTS"):
        _build("MODEL.MASKFREE.DENSE_MASK_GRADIENTS", True)
