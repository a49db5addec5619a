"""Products with weights in float32 on a CPU, by the faster of the two libraries that PyTorch has.

PyTorch multiplies float32 matrices with MKL and convolves with oneDNN, but a 1 x 1 convolution on
one thread is a product of MKL too. On processors that are not Intel's, MKL leaves instructions
unused: oneDNN is 1.2 to 1.4 times as fast there (docs/performance.md). Everywhere else, and where
a graph is recorded, these are PyTorch's own functions.
"""

from __future__ import annotations

from typing import Any

import detectron2.layers
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.precision import is_mixed

_LEAST_ROWS = 128  #: Rows of a matrix from which on the call of oneDNN pays.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``F.linear``, then ReLU on request; equal up to the order of the sums.

    Args:
        x: (..., D).
        weight: (D', D).
        bias: (D',) or None.
        relu: Apply ReLU to the result.

    Returns:
        (..., D').

    Example:
        >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([-12.0]))
        tensor([[-1.]])
    """
    if _is_for_onednn(x, weight) and x.numel() >= _LEAST_ROWS * x.shape[-1]:
        return _OneDnnLinear.apply(x, weight, bias, relu)
    x = F.linear(x, weight, bias)
    # in place on a view, which a matrix is not, would make a copy in the backward pass
    return F.relu(x, inplace=x.dim() == 2) if relu else x


def add(update: Tensor, x: Tensor) -> Tensor:
    """``x + update``, in the memory of ``update`` where no graph can need it.

    Args:
        update: Not used afterwards.
        x: Of the same shape.
    """
    if torch.is_grad_enabled() or update.dtype != x.dtype:
        return x + update
    return update.add_(x)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, layer: torch.nn.Conv2d) -> Tensor:
    """The convolution of a layer, with weights that may be others; equal up to rounding.

    Args:
        x: (N, C, h, w).
        weight: (C', C / groups, kernel, kernel).
        bias: (C',) or None.
        layer: Says stride, padding, dilation and groups.

    Returns:
        (N, C', h', w').
    """
    if _is_product_of_cells(x, weight, layer):
        return _OneDnnConv1x1.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def conv2d_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, layer: torch.nn.Conv2d, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of ``conv2d``.

    Args:
        grad: Of the result, (N, C', h', w').
        x: The maps, (N, C, h, w).
        weight: The weights, (C', C / groups, kernel, kernel).
        layer: See ``conv2d``.
        wanted: Whether those of ``x`` and ``weight`` are wanted.

    Returns:
        Those of ``x`` and ``weight``, or None where not wanted.
    """
    if not _is_product_of_cells(x, weight, layer):
        sizes = layer.stride, layer.padding, layer.dilation
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, *sizes, False, (0, 0), layer.groups, (*wanted, False)
        )[:2]
    return _gradients_of_cells(grad, x, weight, wanted)


class Conv2d(detectron2.layers.Conv2d):
    """Detectron2's convolution, its norm and its activation, by ``conv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w')."""
        x = conv2d(x, self.weight, self.bias, self)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)


class Linear(torch.nn.Linear):
    """``nn.Linear`` by ``linear``."""

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(..., D) -> (..., D'), then ReLU on request."""
        return linear(x, self.weight, self.bias, relu)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: what stands below would end the graph
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not is_mixed("cpu")
        and not torch.jit.is_tracing()
    )


def _is_product_of_cells(x: Tensor, weight: Tensor, layer: torch.nn.Conv2d) -> bool:
    """Whether a convolution is a product that is left to oneDNN."""
    return (
        _is_for_onednn(x, weight)  # first: sizes that a graph is recorded for are not looked at
        and weight.shape[2:] == (1, 1)
        and layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and torch.get_num_threads() == 1  # on several, PyTorch convolves with oneDNN
        and x.numel() >= _LEAST_ROWS * x.shape[1]
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(D', D), from (..., D') and (..., D); by MKL, which is as fast here."""
    return grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1])


def _gradients_of_cells(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight of a 1 x 1 convolution, of maps with their channels last."""
    rows, cells = (maps.permute(0, 2, 3, 1) for maps in (grad, x))
    return (
        linear(rows, weight.flatten(1).t()).permute(0, 3, 1, 2) if wanted[0] else None,
        _weight_gradient(rows, cells).view_as(weight) if wanted[1] else None,
    )


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """(..., D) -> (..., D')."""
        kind = "relu" if relu else "none"
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, kind, [], "")
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias, or None where none is needed."""
        x, weight, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        return (
            linear(grad, weight.t()) if wants_x else None,
            _weight_gradient(grad, x) if wants_weight else None,
            grad.flatten(0, -2).sum(0) if wants_bias else None,
            None,
        )


class _OneDnnConv1x1(torch.autograd.Function):
    """Of maps whose channels stand last in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, C, h, w) -> (N, C', h, w)."""
        ctx.save_for_backward(x, weight)
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias, or None where none is needed."""
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        found = _gradients_of_cells(grad, x, weight, (wants_x, wants_weight))
        return *found, grad.sum((0, 2, 3)) if wants_bias else None
