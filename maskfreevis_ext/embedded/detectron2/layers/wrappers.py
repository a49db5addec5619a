"""Convolution with its normalisation and activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``, followed by ``norm`` and then ``activation`` if they are given.

    Args:
        *args: Of ``torch.nn.Conv2d``.
        norm: Normalisation layer; a child module named ``norm``.
        activation: Function of a tensor.
        **kwargs: Of ``torch.nn.Conv2d``.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W']."""
        x = self._conv_forward(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)
