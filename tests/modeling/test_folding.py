"""Frozen batch norm folded into convolutions: the same values, gradients and state dicts."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from torch import Tensor, nn

from maskfreevis_ext.modeling.backbone.efficientnet_lite import ConvNorm, EfficientNetLite0
from maskfreevis_ext.modeling.backbone.folding import FoldedConv2d, fold_frozen_batch_norm
from tests.helpers.configs import tiny_cfg


@torch.no_grad()
def _with_random_norms(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return module


def _resnet() -> nn.Module:
    torch.manual_seed(0)
    return _with_random_norms(build_backbone(tiny_cfg())).double()


def _gradients(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Outputs, and gradients of the sum of their squares."""
    images = images.clone().requires_grad_()
    outputs = dict(module(images))
    sum(m.square().mean() for m in outputs.values()).backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert gradients
    return outputs | gradients | {"images": images.grad}


def _assert_near(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_folded_resnet_has_the_values_and_gradients_of_the_plain_one():
    plain = _resnet().train()
    folded = copy.deepcopy(plain)
    convolutions = [m for m in plain.modules() if isinstance(m, Conv2d)]
    assert fold_frozen_batch_norm(folded) == len(convolutions) > 50
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = _gradients(plain, images)
    _assert_near(_gradients(folded, images), expected)
    for name, parameter in plain.named_parameters():
        assert torch.equal(folded.get_parameter(name), parameter)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        for name, got in folded.eval()(images).items():
            torch.testing.assert_close(got, expected[name], rtol=1e-9, atol=1e-12)
    assert folded.state_dict().keys() == plain.state_dict().keys()  # nor what is kept


def test_folded_efficientnet_has_the_values_and_gradients_of_its_layers():
    torch.manual_seed(0)
    folded = _with_random_norms(EfficientNetLite0()).double()
    plain = copy.deepcopy(folded)
    for module in plain.modules():
        if isinstance(module, ConvNorm):
            module.__class__ = nn.Sequential
            if len(module) == 3:
                module.activation.inplace = False
    images = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    _assert_near(_gradients(folded, images), _gradients(plain, images))


@pytest.mark.parametrize("change", ["step", "load", "norm", "assign", "float"])
def test_kept_weights_follow_every_change(change):
    layer = _with_random_norms(Conv2d(3, 4, 3, bias=False, norm=FrozenBatchNorm2d(4)))
    other = _with_random_norms(Conv2d(3, 4, 3, bias=False, norm=FrozenBatchNorm2d(4)))
    fold_frozen_batch_norm(layer)
    assert isinstance(layer.eval(), FoldedConv2d)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        layer(x)
        assert (
            layer.folded(layer.weight, layer.norm)[0] is layer.folded(layer.weight, layer.norm)[0]
        )
    if change == "step":
        layer(x).sum().backward()
        torch.optim.SGD(layer.parameters(), lr=0.1).step()
    elif change == "load":
        layer.load_state_dict(other.state_dict())
    elif change == "norm":
        layer.norm.running_var.mul_(2)
    elif change == "assign":
        layer.load_state_dict(other.state_dict(), assign=True)
    else:
        layer, x = layer.double(), x.double()
    plain = copy.deepcopy(layer)
    plain.__class__ = Conv2d
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(x))


def test_mixed_precision_trains_unfolded_and_predicts_folded():
    folded = _with_random_norms(Conv2d(3, 4, 3, bias=False, norm=FrozenBatchNorm2d(4)))
    plain = copy.deepcopy(folded)
    fold_frozen_batch_norm(folded)
    x = torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(folded(x), plain(x))
        with torch.no_grad():
            got, expected = folded.eval()(x), plain(x)
    assert folded._kept.weight.dtype == got.dtype == torch.bfloat16
    assert (got - expected).float().norm() < 0.02 * expected.float().norm()


def test_layers_with_another_norm_a_bias_or_another_class_stay():
    layers = nn.Sequential(
        Conv2d(3, 4, 1, norm=FrozenBatchNorm2d(4)),
        Conv2d(4, 4, 1, bias=False, norm=nn.BatchNorm2d(4)),
        nn.Conv2d(4, 4, 1),
    )
    assert fold_frozen_batch_norm(layers) == 0
    assert [type(layer) for layer in layers] == [Conv2d, Conv2d, nn.Conv2d]


def test_a_norm_that_is_replaced_after_the_folding_is_used():
    layer = Conv2d(3, 4, 1, bias=False, norm=FrozenBatchNorm2d(4))
    assert fold_frozen_batch_norm(layer) == 1
    layer.norm = nn.GroupNorm(2, 4)
    x = torch.randn(1, 3, 4, 4)
    expected = layer.norm(nn.functional.conv2d(x, layer.weight))
    torch.testing.assert_close(layer(x), expected)


def test_folded_layer_is_exported_with_its_parameters():
    layer = _with_random_norms(Conv2d(3, 4, 3, bias=False, norm=FrozenBatchNorm2d(4))).eval()
    fold_frozen_batch_norm(layer)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        expected = layer(x)
        program = torch.export.export(layer, (x,))
    assert "weight" in program.state_dict
    torch.testing.assert_close(program.module()(x), expected)


def test_training_keeps_no_folded_weights() -> None:
    layer = Conv2d(8, 16, 3, padding=1, bias=False, norm=FrozenBatchNorm2d(16))
    fold_frozen_batch_norm(_with_random_norms(nn.Sequential(layer)))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(torch.randn(2, 8, 6, 6, requires_grad=True))
    y.sum().backward()
    of_weights = [tensor for tensor in kept if tensor.shape == layer.weight.shape]
    assert [tensor.data_ptr() for tensor in of_weights] == [layer.weight.data_ptr()]
