"""ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385).

Names of modules, their order and the order of random draws are Detectron2's, so that weights and
seeds carry over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGE_NAMES = ("res2", "res3", "res4", "res5")


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, **kwargs: Any
) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )


def _projection(in_channels: int, out_channels: int, stride: int, norm: str) -> Conv2d | None:
    """1x1 convolution of the shortcut; None where the input itself is the shortcut."""
    if in_channels == out_channels:
        return None
    return _conv(in_channels, out_channels, 1, norm, stride=stride)


def _init_weights(*layers: nn.Module | None) -> None:
    for layer in layers:
        if layer is not None:
            weight_init.c2_msra_fill(layer)


class BasicBlock(CNNBlockBase):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34).

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        stride: Stride of the first convolution.
        norm: Normalisation after each convolution, see ``get_norm``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride, padding=1)
        self.conv2 = _conv(out_channels, out_channels, 3, norm, padding=1)
        _init_weights(self.conv1, self.conv2, self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H / stride, W / stride]."""
        out = self.conv2(F.relu_(self.conv1(x)))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BottleneckBlock(CNNBlockBase):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and deeper).

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        bottleneck_channels: Channels of the 3x3 convolution.
        stride: Stride of the block.
        num_groups: Groups of the 3x3 convolution.
        norm: Normalisation after each convolution, see ``get_norm``.
        stride_in_1x1: The first 1x1 convolution has the stride (MSRA's weights), not the 3x3 one.
        dilation: Dilation of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=first)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=second,
            padding=dilation,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)
        _init_weights(self.conv1, self.conv2, self.conv3, self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H / stride, W / stride]."""
        out = F.relu_(self.conv1(x))
        out = self.conv3(F.relu_(self.conv2(out)))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicStem(CNNBlockBase):
    """7x7 convolution of stride 2, then max pooling of stride 2.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels out.
        norm: Normalisation, see ``get_norm``.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2, padding=3)
        _init_weights(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H / 4, W / 4]."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and up to four stages; the feature maps are ``stem``, ``res2`` ... ``res5``.

    Args:
        stem: First layers.
        stages: Blocks of each stage. Stages behind the last one in ``out_features`` are dropped.
        out_features: Names of the feature maps to return; by default the last one.
        freeze_at: Number of parts, the stem counted, that are not trained.

    Raises:
        AssertionError: ``out_features`` has an unknown name, or is empty.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        if out_features is not None:  # unused parameters would also stall DDP
            last = max(_STAGE_NAMES.index(n) if n in _STAGE_NAMES else -1 for n in out_features)
            stages = stages[: last + 1]
        self.stem = stem
        self.stages = stages
        stride = stem.stride
        self._out_feature_strides = {"stem": stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        for name, blocks in zip(_STAGE_NAMES, stages, strict=False):
            self.add_module(name, nn.Sequential(*blocks))
            stride *= math.prod(block.stride for block in blocks)
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = blocks[-1].out_channels
        self.stage_names = _STAGE_NAMES[: len(self.stages)]
        available = ("stem", *self.stage_names)
        self._out_features = [available[-1]] if out_features is None else out_features
        unknown = [name for name in self._out_features if name not in available]
        if unknown or not self._out_features:
            raise AssertionError(f"ResNet has the features {available}, asked for {unknown}.")
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by name for images [N, C, H, W].

        Raises:
            AssertionError: The input is not [N, C, H, W].
        """
        if x.dim() != 4:
            raise AssertionError(f"ResNet takes [N, C, H, W], got {list(x.shape)}.")
        outputs = {}
        for name in ("stem", *self.stage_names):
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Stop training the stem (1), the stem and res2 (2), and so on. Returns itself."""
        if freeze_at >= 1:
            self.stem.freeze()
        for index, stage in enumerate(self.stages, start=2):
            if freeze_at >= index:
                for block in stage:
                    block.freeze()
        return self


def _check_config(cfg: CfgNode) -> None:
    """Refuse values under MODEL.RESNETS that contradict each other."""
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in _BLOCKS_PER_STAGE:
        raise KeyError(f"MODEL.RESNETS.DEPTH {resnets.DEPTH}, expected {list(_BLOCKS_PER_STAGE)}.")
    if resnets.RES5_DILATION not in (1, 2):
        raise AssertionError(
            f"MODEL.RESNETS.RES5_DILATION {resnets.RES5_DILATION}, expected 1 or 2."
        )
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise NotImplementedError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE needs deformable convolutions, which only the real "
            "Detectron2 has."
        )
    if resnets.DEPTH < 50:
        expected = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1}
        for key, value in expected.items():
            if resnets[key] != value:
                raise AssertionError(
                    f"ResNet-{resnets.DEPTH} needs MODEL.RESNETS.{key} {value}, got {resnets[key]}."
                )


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from ``MODEL.RESNETS`` and ``MODEL.BACKBONE.FREEZE_AT``.

    Raises:
        AssertionError: Keys contradict each other.
        KeyError: The depth is unknown.
        NotImplementedError: Deformable convolutions are asked for.
    """
    _check_config(cfg)
    resnets = cfg.MODEL.RESNETS
    assert input_shape.channels is not None
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    in_channels, out_channels = resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS
    bottleneck_channels = resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP
    stages = []
    for index, num_blocks in enumerate(_BLOCKS_PER_STAGE[resnets.DEPTH]):
        dilation = resnets.RES5_DILATION if index == 3 else 1
        stride = 1 if index == 0 or dilation == 2 else 2
        blocks: list[CNNBlockBase] = []
        for position in range(num_blocks):
            step = stride if position == 0 else 1
            if resnets.DEPTH < 50:
                block: CNNBlockBase = BasicBlock(
                    in_channels, out_channels, stride=step, norm=resnets.NORM
                )
            else:
                block = BottleneckBlock(
                    in_channels,
                    out_channels,
                    bottleneck_channels=bottleneck_channels,
                    stride=step,
                    num_groups=resnets.NUM_GROUPS,
                    norm=resnets.NORM,
                    stride_in_1x1=resnets.STRIDE_IN_1X1,
                    dilation=dilation,
                )
            blocks.append(block)
            in_channels = out_channels
        stages.append(blocks)
        out_channels *= 2
        bottleneck_channels *= 2
    return ResNet(
        stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT
    )
