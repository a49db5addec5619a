"""Base class of the blocks of a convolutional backbone."""

from __future__ import annotations

from detectron2.layers.batch_norm import FrozenBatchNorm2d
from torch import nn


class CNNBlockBase(nn.Module):
    """A block of layers that knows its channels and stride.

    Args:
        in_channels: Channels that it takes.
        out_channels: Channels that it gives.
        stride: Its stride.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Stop training this block: no gradients, constant batch norms. Returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self
