"""Products by oneDNN: values and gradients of PyTorch's own functions."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.modeling import products


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        scale = float(other.detach().abs().amax())
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * scale)


def _leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", [(300, 24), (2, 200, 24), (2, 24), (0, 24)])
def test_linear_has_values_and_gradients_of_pytorch(
    shape: tuple[int, ...], with_bias: bool, relu: bool
) -> None:
    x, weight, *biases = _leaves(shape, (40, 24), *([(40,)] if with_bias else []))
    expected = F.linear(x, weight, *biases)
    expected = F.relu(expected) if relu else expected
    found = products.linear(x, weight, *biases or [None], relu=relu)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    leaves = [x, weight, *biases]
    for one, other in zip(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_large_products_run_on_onednn_where_it_is_there() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    x, weight = _leaves((300, 24), (40, 24))
    assert type(products.linear(x, weight).grad_fn).__name__ == "_OneDnnLinearBackward"
    with torch.backends.mkldnn.flags(enabled=False):
        assert type(products.linear(x, weight).grad_fn).__name__ != "_OneDnnLinearBackward"


def test_second_derivatives_are_those_of_pytorch() -> None:
    x, weight = _leaves((300, 8), (12, 8))

    def second(function) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(function(x, weight).pow(3).sum(), x, create_graph=True)[0]
        return torch.autograd.grad(first.pow(2).sum(), (x, weight))

    _close(second(products.linear), second(F.linear))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (1, 1, 4)]
)
def test_conv2d_has_values_and_gradients_of_pytorch(
    form: torch.memory_format, kernel: int, stride: int, groups: int
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, kernel, stride, kernel // 2, groups=groups)
    x = torch.randn(3, 8, 12, 16).to(memory_format=form).requires_grad_()
    leaves = [x, *layer.parameters()]
    found, expected = products.conv2d(x, layer.weight, layer.bias, layer), layer(x)
    grad = torch.randn_like(expected)
    _close(
        (found, *torch.autograd.grad(found, leaves, grad)),
        (expected, *torch.autograd.grad(expected, leaves, grad)),
    )
    is_ours = form is torch.channels_last and (kernel, stride, groups) == (1, 1, 1)
    with patch.object(
        products._OneDnnConv1x1, "apply", side_effect=products._OneDnnConv1x1.apply
    ) as call:
        products.conv2d(x, layer.weight, layer.bias, layer)
    assert call.called == (is_ours and torch.backends.mkldnn.is_available())


def test_add_reuses_memory_only_where_no_graph_needs_it() -> None:
    update, x = torch.ones(3), torch.full((3,), 2.0)
    assert products.add(update, x).data_ptr() != update.data_ptr()
    with torch.no_grad():
        assert products.add(update, x).data_ptr() == update.data_ptr()
        half = torch.ones(3, dtype=torch.bfloat16)
        assert products.add(half, x).dtype is torch.float32
    torch.testing.assert_close(update, torch.full((3,), 3.0))
