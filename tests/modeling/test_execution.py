"""Memory format, compilation and checkpointing: the values of the plain network."""

from __future__ import annotations

import copy
import logging
from unittest.mock import patch

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from benchmarks.jobs.step import as_batch
from benchmarks.options import parse_args
from benchmarks.scene import make_scene
from maskfreevis_ext.config.rows.execution import PARTS
from maskfreevis_ext.modeling import execution
from tests.helpers.configs import tiny_cfg


def _batch() -> list[dict]:
    words = ["step", "--height", "64", "--width", "64", "--frames", "2", "--objects", "2"]
    return as_batch(make_scene(parse_args(words).replace(classes=3)))


def _model(*overrides: object, like: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*overrides)).train()
    if like is not None:
        model.load_state_dict(like.state_dict())
    return model


def _gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    model.zero_grad()
    total = torch.stack(list(model(_batch()).values())).sum()
    total.backward()
    return total.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _assert_same(first: nn.Module, second: nn.Module, tolerance: float) -> None:
    (value, expected), (other, found) = _gradients(first), _gradients(second)
    torch.testing.assert_close(other, value, rtol=tolerance, atol=tolerance)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().amax())
        torch.testing.assert_close(
            found[name], gradient, rtol=tolerance, atol=tolerance * max(scale, 1e-6), msg=name
        )


@pytest.mark.parametrize("parts", [["backbone"], ["pixel_decoder"], ["decoder"], list(PARTS)])
def test_checkpointing_gives_equal_gradients_and_keeps_less(parts: list[str]) -> None:
    plain = _model()
    saving = _model("MODEL.CHECKPOINTING", parts, like=plain)
    assert saving.state_dict().keys() == plain.state_dict().keys()
    _assert_same(plain, saving, 0.0)
    assert _kept_bytes(saving) < 0.97 * _kept_bytes(plain)


def _kept_bytes(model: nn.Module) -> int:
    """Size of what the forward pass keeps for the backward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = model(_batch())
    assert losses
    return sum(storages.values())


def test_a_copy_of_a_checkpointed_model_runs_its_own_weights() -> None:
    model = _model("MODEL.CHECKPOINTING", list(PARTS))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    expected = _model(like=twin)
    _assert_same(expected, twin, 0.0)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("build_efficientnet_lite_backbone", ("MODEL.EFFICIENTNET.PRETRAINED", False)),
        ("D2SwinTransformer", ("MODEL.SWIN.EMBED_DIM", 12, "MODEL.SWIN.DEPTHS", [1, 1, 1, 1])),
    ],
)
def test_other_backbones_are_checkpointed_too(name: str, overrides: tuple) -> None:
    backbone = ("MODEL.BACKBONE.NAME", name, *overrides, "MODEL.SWIN.DROP_PATH_RATE", 0.0)
    plain = _model(*backbone)
    saving = _model(*backbone, "MODEL.CHECKPOINTING", ["backbone"], like=plain)
    assert _kept_bytes(saving) < _kept_bytes(plain)
    plain.eval(), saving.eval()  # without running statistics of batch norms
    images = torch.randn(1, 3, 64, 64)
    for map_name, value in plain.backbone(images).items():
        assert torch.equal(saving.backbone(images)[map_name], value)


def test_channels_last_gives_the_same_maps_and_gradients() -> None:
    plain = _model().double()
    other = _model("MODEL.MEMORY_FORMAT", "channels_last").double()
    other.load_state_dict(plain.state_dict())
    weight = other.backbone.res2[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found = []
    for model in (plain, other):
        features, maps = model.sem_seg_head.pixel_decoder(model.backbone(images))
        (features.square().mean() + maps[0].square().mean()).backward()
        found.append((features.detach(), model.backbone.stem.conv1.weight.grad))
    assert features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_compiler_there_is_one_warning(
    device: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(execution.shutil, "which", lambda _: None)
    monkeypatch.setattr(execution.importlib.util, "find_spec", lambda _: None)
    parts = {"backbone": nn.Identity(), "decoder": nn.Identity()}
    with caplog.at_level(logging.WARNING):
        execution.compile_parts(parts, ["backbone", "decoder"], device)
    assert len(caplog.records) == 1
    assert "MODEL.COMPILE" in caplog.text
    assert ("Triton" if device == "cuda" else "C++ compiler") in caplog.text


def test_named_parts_and_no_others_are_compiled() -> None:
    with (
        patch.object(execution, "missing_compiler", return_value=""),
        patch.object(nn.Module, "compile", autospec=True) as compiled,
    ):
        model = _model("MODEL.COMPILE", ["backbone", "decoder"])
    parts = [call.args[0] for call in compiled.call_args_list]
    assert parts == [model.backbone, model.sem_seg_head.predictor]


@pytest.mark.slow
@pytest.mark.skipif(bool(execution.missing_compiler("cpu")), reason="no C++ compiler")
def test_compiled_backbone_gives_the_same_maps() -> None:
    plain = _model()
    other = _model("MODEL.COMPILE", ["backbone"], like=plain)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = plain.backbone(images), other.backbone(images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(bool(execution.missing_compiler("cpu")), reason="no C++ compiler")
@pytest.mark.parametrize("part", ["pixel_decoder", "decoder"])
def test_compiled_parts_have_the_same_gradients(part: str) -> None:
    torch._dynamo.reset()
    plain = _model()
    other = _model("MODEL.COMPILE", [part], like=plain)
    images = torch.randn(2, 3, 64, 64)
    found = []
    for model in (plain, other):
        outputs = model.sem_seg_head(model.backbone(images), 2)
        (outputs["pred_logits"].square().mean() + outputs["pred_masks"].square().mean()).backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    expected, compiled = (torch.cat([x[n].flatten() for n in found[0]]) for x in found)
    assert (compiled - expected).norm() < 1e-3 * expected.norm()
