"""Normalisation layers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are buffers: it never changes in training.

    Args:
        num_features: Channels.
        eps: Added to the variance.
    """

    _version = 3  # as in Detectron2: older weights lack the statistics
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)  # exact identity
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # F.batch_norm would keep what the gradients of weight and bias need.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = scale.view(1, -1, 1, 1).to(x.dtype), shift.view(1, -1, 1, 1).to(x.dtype)
        return x * scale + shift

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        version = local_metadata.get("version", None)
        if version is None or version < 2:  # Caffe2 weights: statistics are folded into the affine
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Arguments, for ``repr``."""
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm2d and SyncBatchNorm below a module.

        Returns:
            The module itself with its children replaced, or its replacement if it is a batch norm.
        """
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            assert module.running_mean is not None
            assert module.running_var is not None
            frozen = cls(module.num_features, eps=module.eps)
            if module.affine:
                frozen.weight.data = module.weight.data.clone().detach()
                frozen.bias.data = module.bias.data.clone().detach()
            frozen.running_mean.data = module.running_mean.data
            frozen.running_var.data = module.running_var.data
            frozen.num_batches_tracked = module.num_batches_tracked
            return frozen
        for name, child in module.named_children():
            replacement = cls.convert_frozen_batchnorm(child)
            if replacement is not child:
                module.add_module(name, replacement)
        return module


class LayerNorm(nn.Module):
    """Layer norm over the channels of [N, C, H, W].

    Args:
        normalized_shape: Channels.
        eps: Added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        normed = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": _group_norm,
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Build a normalisation layer.

    Args:
        norm: BN, SyncBN, FrozenBN, GN (32 groups), LN (over channels), a function of the number of
            channels, or "" or None for no layer.
        out_channels: Channels.

    Raises:
        KeyError: The name is unknown.
    """
    if norm is None or norm == "":
        return None
    return (_NORMS[norm] if isinstance(norm, str) else norm)(out_channels)
