"""Pixel decoder: a deformable encoder over the coarse maps and one map at stride 4 for the masks.

Each frame is processed independently of the others.
N: frames (B * T), S: tokens of all levels of a frame, D: channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.position_encoding import sine_position_2d
from maskfreevis_ext.modeling.products import Conv2d, Linear, add
from maskfreevis_ext.ops.deform_attn import multi_scale_deformable_attention
from maskfreevis_ext.precision import is_mixed

PIXEL_DECODER_REGISTRY = Registry("PIXEL_DECODER")
PIXEL_DECODER_REGISTRY.__doc__ = "Pixel decoders, by MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME."


def build_norm(name: str, channels: int) -> nn.Module | None:
    """Detectron2's normalisation layer; "GN" takes as many of 32 groups as divide the channels."""
    if name == "GN":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return get_norm(name, channels)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable self-attention (Deformable DETR, arXiv 2010.04159, section 4.1)."""

    def __init__(self, dim: int, num_levels: int, num_heads: int, num_points: int = 4) -> None:
        """Make the layer.

        Args:
            dim: D, channels; a multiple of ``num_heads``.
            num_levels: K, maps that are sampled.
            num_heads: Attention heads.
            num_points: P, samples per query, head and level.
        """
        super().__init__()
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling_offsets = Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise with equal weights on points 1..P cells away, in a direction per head."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * steps[:, None]  # (heads, 1, P, 2)
        self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Attend from each query to points around its own position, on every level.

        Args:
            query: (N, L, D).
            reference_points: (x, y) in [0, 1] of each query, (L, 2).
            tokens: Tokens of all levels, which are sampled, (N, S, D).
            spatial_shapes: (height, width) of each level; the cells of all levels are the S tokens.

        Returns:
            (N, L, D).
        """
        batch, length, _ = query.shape
        shape = (batch, length, self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(tokens).unflatten(2, (self.num_heads, -1))
        offsets = self.sampling_offsets(query).view(*shape, 2)
        # Positions and weights have the dtype of the reference points, at least float32.
        weights = self.attention_weights(query).view(-1, self.num_levels * self.num_points)
        # Over the first axis, which a CPU does four times faster than over a short last one.
        weights = weights.t().softmax(0, dtype=reference_points.dtype).t().reshape(shape)
        cells = reference_points.new_tensor([(width, height) for height, width in spatial_shapes])
        # (K, 2) -> (heads, K, P, 2): PyTorch is five times slower with broadcast inner axes.
        cells = cells[:, None].repeat(self.num_heads, 1, self.num_points, 1)
        locations = reference_points[:, None, None, None] + offsets / cells
        return self.output_proj(
            multi_scale_deformable_attention(value, spatial_shapes, locations, weights)
        )


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward block, each followed by LayerNorm."""

    def __init__(
        self, dim: int, dim_feedforward: int, num_levels: int, num_heads: int, dropout: float
    ) -> None:
        """Make the layer; the arguments are those of ``DeformableEncoder``."""
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Update the tokens, (N, S, D); the position encoding is added to the queries only."""
        attended = self.self_attn(tokens + position, reference_points, tokens, spatial_shapes)
        tokens = self.norm1(add(self.dropout(attended), tokens))
        hidden = self.linear1(tokens.flatten(0, 1), relu=True)
        hidden = self.linear2(self.dropout(hidden)).view_as(tokens)
        return self.norm2(add(self.dropout(hidden), tokens))


class DeformableEncoder(nn.Module):
    """A stack of ``DeformableEncoderLayer``."""

    def __init__(
        self,
        dim: int,
        dim_feedforward: int,
        num_levels: int,
        num_heads: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        """Make the stack.

        Args:
            dim: D, channels.
            dim_feedforward: Width of the feed-forward blocks.
            num_levels: K, maps.
            num_heads: Attention heads.
            num_layers: Layers of the stack.
            dropout: Probability of dropping a channel in training.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, dim_feedforward, num_levels, num_heads, dropout)
            for _ in range(num_layers)
        )

    def forward(
        self, tokens: Tensor, position: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Pass the tokens, (N, S, D), through all layers; ``position`` is (S, D)."""
        centres = [_cell_centres(height, width, tokens.device) for height, width in spatial_shapes]
        reference_points = torch.cat(centres)
        reference_points = reference_points.to(torch.promote_types(tokens.dtype, torch.float32))
        for layer in self.layers:
            tokens = layer(tokens, position, reference_points, spatial_shapes)
        return tokens


class MSDeformAttnTransformer(nn.Module):
    """The deformable encoder with the learned encoding of the levels."""

    def __init__(
        self,
        dim: int,
        dim_feedforward: int,
        num_levels: int,
        num_heads: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        """Make the encoder; the arguments are those of ``DeformableEncoder``."""
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(num_levels, dim))
        self.encoder = DeformableEncoder(
            dim, dim_feedforward, num_levels, num_heads, num_layers, dropout
        )
        nn.init.normal_(self.level_embed)
        for name, parameter in self.encoder.named_parameters():
            if name.endswith(("linear1.weight", "linear2.weight")):
                nn.init.xavier_uniform_(parameter)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Exchange information within and between the maps of a frame.

        Args:
            maps: K maps, (N, D, h_k, w_k).

        Returns:
            K maps of the same shapes: views of one (N, S, D) tensor, channels last in memory.
        """
        spatial_shapes = [(m.shape[2], m.shape[3]) for m in maps]
        tokens = torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2).contiguous()
        dim = tokens.shape[2]
        position = torch.cat(
            [
                sine_position_2d(height, width, dim, tokens.device).to(level.dtype) + level
                for (height, width), level in zip(spatial_shapes, self.level_embed, strict=True)
            ]
        ).to(tokens.dtype)
        tokens = self.encoder(tokens, position, spatial_shapes)
        parts = tokens.split([height * width for height, width in spatial_shapes], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, shape)
            for part, shape in zip(parts, spatial_shapes, strict=True)
        ]


def _cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """(x, y) of the cell centres of a map, in [0, 1], (height * width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=2).flatten(0, 1)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: str,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> Conv2d:
    """Convolution that keeps the size of the map, with a norm, or with a bias if ``norm`` is ""."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=norm == "",
        norm=build_norm(norm, out_channels),
        activation=activation,
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def _check_inputs(
    input_shape: Mapping[str, ShapeSpec], names: Sequence[str], conv_dim: int, num_heads: int
) -> None:
    missing = sorted(set(names) - set(input_shape))
    if missing or not names:
        raise ConfigError(
            "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES must name some of "
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES {sorted(input_shape)}, got {list(names)}."
        )
    if conv_dim % num_heads or conv_dim % 2:
        raise ConfigError(
            "MODEL.SEM_SEG_HEAD.CONVS_DIM must be even and a multiple of "
            f"MODEL.MASK_FORMER.NHEADS ({num_heads}), got {conv_dim}."
        )


def _projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """1 x 1 convolution and group normalisation."""
    layer = Conv2d(in_channels, out_channels, 1)
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.GroupNorm(math.gcd(32, out_channels), out_channels))


def _known(value: int | None, name: str) -> int:
    """Channels or stride of a backbone map; raises a ValueError if the backbone leaves it None."""
    if value is None:
        raise ValueError(f"the backbone does not say the channels and the stride of its map {name}")
    return value


@PIXEL_DECODER_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Backbone maps → mask features and the encoded coarse maps (Mask2Former, arXiv 2112.01527).

    Under bfloat16 autocast positions and weights of samples stay float32. The range of float16 is
    too small: under such an autocast it runs in the dtype of its parameters.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_in_features: Sequence[str],
        num_heads: int,
        num_layers: int,
        dropout: float,
        conv_dim: int,
        mask_dim: int,
        norm: str,
        common_stride: int,
        dim_feedforward: int,
    ) -> None:
        """Make the decoder.

        Args:
            input_shape: Name → channels and stride of the backbone maps that are used.
            transformer_in_features: Names of the maps that the deformable encoder takes.
            num_heads: Heads of the encoder.
            num_layers: Layers of the encoder.
            dropout: Dropout of the encoder.
            conv_dim: D, channels inside.
            mask_dim: Channels of the mask features.
            norm: Normalisation of the convolutions: "GN", another name of Detectron2, or "".
            common_stride: Stride of the mask features.
            dim_feedforward: Width of the encoder's feed-forward blocks.

        Raises:
            ConfigError: A name of ``transformer_in_features`` is not in ``input_shape``, or D is
                odd or not a multiple of ``num_heads``.
        """
        super().__init__()
        _check_inputs(input_shape, transformer_in_features, conv_dim, num_heads)
        channels = {name: _known(shape.channels, name) for name, shape in input_shape.items()}
        strides = {name: _known(shape.stride, name) for name, shape in input_shape.items()}
        by_stride = sorted(input_shape, key=strides.__getitem__)
        # Coarse maps first, as the video decoder expects them.
        self.in_features = [n for n in reversed(by_stride) if n in transformer_in_features]
        self.input_proj = nn.ModuleList(
            _projection(channels[name], conv_dim) for name in self.in_features
        )
        self.transformer = MSDeformAttnTransformer(
            conv_dim, dim_feedforward, len(self.in_features), num_heads, num_layers, dropout
        )
        self.mask_features = Conv2d(conv_dim, mask_dim, 1)
        weight_init.c2_xavier_fill(self.mask_features)

        # Fine maps, from coarse to fine; their layers are numbered from fine to coarse.
        finest = min(strides[name] for name in self.in_features)
        fine = [name for name in by_stride if common_stride <= strides[name] < finest]
        for number, name in enumerate(fine, start=1):
            self.add_module(f"adapter_{number}", _conv(channels[name], conv_dim, 1, norm))
            self.add_module(f"layer_{number}", _conv(conv_dim, conv_dim, 3, norm, F.relu_))
        self.fine_features = list(enumerate(fine, start=1))[::-1]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, object]:
        """Read the arguments of ``__init__`` from the config."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "num_heads": cfg.MODEL.MASK_FORMER.NHEADS,
            "num_layers": head.TRANSFORMER_ENC_LAYERS,
            "dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "common_stride": head.COMMON_STRIDE,
            "dim_feedforward": head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
        }

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decode the backbone maps of N frames.

        Args:
            features: Name → map, (N, channels, h, w).

        Returns:
            Mask features (N, mask_dim, H/4, W/4); encoded maps (N, D, h_k, w_k), coarse first.
        """
        device = self.mask_features.weight.device.type
        if is_mixed(device) and torch.get_autocast_dtype(device) is torch.bfloat16:
            return self._decode(features)
        dtype = self.mask_features.weight.dtype
        with torch.autocast(device, enabled=False):
            return self._decode({name: level.to(dtype) for name, level in features.items()})

    def _decode(self, features: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        projected = [
            projection(features[name])
            for projection, name in zip(self.input_proj, self.in_features, strict=True)
        ]
        encoded = self.transformer(projected)
        fine = encoded[-1]
        for number, name in self.fine_features:
            lateral = getattr(self, f"adapter_{number}")(features[name])
            fine = F.interpolate(fine, lateral.shape[-2:], mode="bilinear", align_corners=False)
            fine = getattr(self, f"layer_{number}")(add(fine, lateral))
        return self.mask_features(fine), encoded
