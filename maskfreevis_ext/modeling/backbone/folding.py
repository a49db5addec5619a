"""Frozen batch norm as part of the convolution before it: no pass of its own over the map.

conv(x, w) * scale + shift = conv(x, w * scale) + shift, where scale and shift are those of each
output channel. Weights are small beside maps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maskfreevis_ext.modeling.products import conv2d, conv2d_gradients
from maskfreevis_ext.precision import is_mixed


class _Kept(NamedTuple):
    """Folded weights, and what they were made of.

    Attributes:
        sources: The tensors; they share the memory of the parameters and buffers.
        versions: Versions of the sources: every change in place adds 1.
        dtype: Type of the folded weights.
        weight: (C', C, h, w).
        bias: (C',).
    """

    sources: list[Tensor]
    versions: list[int]
    dtype: torch.dtype
    weight: Tensor
    bias: Tensor


class FoldsNorm(nn.Module):
    """Base class of modules with a convolution and a frozen batch norm.

    In training weights are folded in every step, with gradients as of the two layers one after the
    other. In evaluation without gradients the folded weights are kept until a parameter or a
    buffer changes; they are no part of the state dict.
    """

    _kept: _Kept | None = None

    def folded(self, weight: Tensor, norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
        """Weight (C', C, h, w) and bias (C',) of the convolution with the norm in it."""
        if self.training or torch.is_grad_enabled() or _is_traced() or weight.is_inference():
            return _fold(weight, norm)
        dtype, kind = weight.dtype, weight.device.type
        if is_mixed(kind):
            dtype = torch.get_autocast_dtype(kind)
        sources = [weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        kept = self._kept
        if kept is None or kept.dtype != dtype or not _is_unchanged(kept, sources):
            folded, bias = (part.to(dtype) for part in _fold(weight, norm, torch.float64))
            versions = [source._version for source in sources]
            kept = _Kept([source.detach() for source in sources], versions, dtype, folded, bias)
            self._kept = kept
        return kept.weight, kept.bias


def _fold(
    weight: Tensor, norm: FrozenBatchNorm2d, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Folded weight and bias; the product with the weights in ``dtype``, or in theirs."""
    scale, shift = _scale_and_shift(norm)
    dtype = dtype or weight.dtype
    return weight.to(dtype) * scale.view(-1, 1, 1, 1).to(dtype), shift.to(dtype)


def _scale_and_shift(norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a frozen batch norm multiplies with and adds, (C',), float64."""
    std = (norm.running_var.double() + norm.eps).sqrt()
    scale = norm.weight.double() / std
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _is_unchanged(kept: _Kept, sources: list[Tensor]) -> bool:
    return all(
        old.data_ptr() == new.data_ptr() and old.dtype == new.dtype and version == new._version
        for old, new, version in zip(kept.sources, sources, kept.versions, strict=True)
    )


def _is_traced() -> bool:
    """Whether a graph is being made, in which the weights are to stay parameters."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


class _FoldedConvolution(torch.autograd.Function):
    """The convolution with folded weights, which it makes again in the backward pass.

    Kept until then, they would be one more copy of all weights.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, layer: Conv2d
    ) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w'), of float64 scale and shift (C',)."""
        scale = scale.to(weight.dtype).view(-1, 1, 1, 1)
        ctx.save_for_backward(x, weight, scale)
        ctx.layer = layer
        return conv2d(x, weight * scale, shift.to(weight.dtype), layer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and weight, or None where none is needed."""
        x, weight, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        of_x, of_folded = conv2d_gradients(grad, x, weight * scale, ctx.layer, wanted)
        if of_folded is not None:  # into the layout of the weight
            of_folded = torch.mul(of_folded, scale, out=torch.empty_like(weight))
        return of_x, of_folded, None, None, None


class FoldedConv2d(FoldsNorm, Conv2d):
    """Detectron2's convolution whose frozen batch norm is folded into its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self.bias is not None or not isinstance(self.norm, FrozenBatchNorm2d):
            return Conv2d.forward(self, x)  # changed after the folding
        if torch.is_grad_enabled() and is_mixed(x.device.type):
            return Conv2d.forward(self, x)  # a pass over halved maps is as fast as one over weights
        if torch.is_grad_enabled() and not _is_traced():
            x = _FoldedConvolution.apply(x, self.weight, *_scale_and_shift(self.norm), self)
        else:
            weight, bias = self.folded(self.weight, self.norm)
            x = conv2d(x, weight, bias, self)
        return x if self.activation is None else self.activation(x)


def fold_frozen_batch_norm(module: nn.Module) -> int:
    """Fold frozen batch norms into the convolutions of a module, in place.

    It changes the class of Detectron2's ``Conv2d`` layers that have a ``FrozenBatchNorm2d`` as
    ``norm`` and no bias. Names, parameters, buffers and state dicts stay as they are.

    Args:
        module: A backbone, for example.

    Returns:
        The number of layers that were changed.

    Example:
        >>> norm = FrozenBatchNorm2d(4)
        >>> backbone = nn.Sequential(Conv2d(3, 4, 1, bias=False, norm=norm), nn.Conv2d(4, 2, 1))
        >>> fold_frozen_batch_norm(backbone)
        1
    """
    layers = [layer for layer in module.modules() if type(layer) is Conv2d and layer.bias is None]
    found = [layer for layer in layers if isinstance(layer.norm, FrozenBatchNorm2d)]
    for layer in found:
        layer.__class__ = FoldedConv2d
    return len(found)
