"""The parts of the network in the structure of the reference, with the weights of the package's.

Backbone: frozen batch norms as passes of their own over the maps. Pixel decoder: positions and
reference points of every frame, ``grid_sample`` level by level. Video decoder: the masks of all
queries at full size after every layer, kept to the end, resized to the size of the next level,
and turned into attention masks that are repeated for every head; attention that returns its
weights, which PyTorch does not fuse. Written from the formulas of Mask2Former (arXiv:2112.01527,
2112.10764) and Deformable DETR (arXiv:2010.04159).

N: frames (B * T), S: tokens of all levels of a frame, Q queries, D: channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import ResNet
from torch import Tensor, nn

from .deform_attn import grid_sample_attention

_NUM_BINS = 2 * math.pi  # the last position of an axis


def use_literal_network(model: Any) -> None:
    """Replace backbone, pixel decoder and video decoder of a model, in place.

    Args:
        model: A ``VideoMaskFormer``. Backbones other than ResNet, and a video decoder with
            auxiliary heads or LayerNorm before its blocks, stay as they are.
    """
    head = model.sem_seg_head
    if isinstance(model.backbone, ResNet):
        model.set_submodule("backbone", LiteralResNet(model.backbone))
    model.set_submodule("sem_seg_head.pixel_decoder", LiteralPixelDecoder(head.pixel_decoder))
    layers = head.predictor.transformer_cross_attention_layers
    if not head.predictor.heads and not any(layer.pre_norm for layer in layers):
        model.set_submodule("sem_seg_head.predictor", LiteralDecoder(head.predictor))


def conv_and_norm(conv: Any, x: Tensor) -> Tensor:
    """A convolution of Detectron2, then its norm, one operation after the other."""
    x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    norm = conv.norm
    if not isinstance(norm, FrozenBatchNorm2d):
        return x if norm is None else norm(x)
    if not x.requires_grad:
        mean, variance = norm.running_mean, norm.running_var
        return F.batch_norm(x, mean, variance, norm.weight, norm.bias, False, eps=norm.eps)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class LiteralResNet(nn.Module):
    """A ResNet of Detectron2, without anything folded or fused."""

    def __init__(self, resnet: Any) -> None:
        """Take over a ResNet."""
        super().__init__()
        self.resnet = resnet

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps by name, of images (N, 3, H, W)."""
        x = F.max_pool2d(F.relu_(conv_and_norm(self.resnet.stem.conv1, x)), 3, 2, 1)
        outputs = {"stem": x}
        for name in self.resnet.stage_names:
            for block in getattr(self.resnet, name):
                x = self._block(block, x)
            outputs[name] = x
        return {name: outputs[name] for name in self.resnet._out_features}

    @staticmethod
    def _block(block: Any, x: Tensor) -> Tensor:
        out = F.relu_(conv_and_norm(block.conv1, x))
        out = conv_and_norm(block.conv2, out)
        if hasattr(block, "conv3"):
            out = conv_and_norm(block.conv3, F.relu_(out))
        out += x if block.shortcut is None else conv_and_norm(block.shortcut, x)
        return F.relu_(out)


def sine_position(present: Tensor, dim: int) -> Tensor:
    """Position encodings by running sums over a mask, as in DETR.

    Args:
        present: Ones, (N, h, w) or (B, T, h, w).
        dim: D.

    Returns:
        (N, D, h, w): y, then x; with a T axis (B, T, D, h, w), to which that of the time is added.
    """
    with_time = present.dim() == 4
    axes = {"y": present.dim() - 2, "x": present.dim() - 1, **({"t": 1} if with_time else {})}
    encoded = {}
    for name, axis in axes.items():
        size = dim if name == "t" else dim // 2
        position = present.cumsum(axis, dtype=torch.float32)
        position = position / (position.narrow(axis, -1, 1) + 1e-6) * _NUM_BINS
        channel = torch.arange(size, dtype=torch.float32, device=present.device)
        angle = position[..., None] / 10000 ** (2 * (channel // 2) / size)
        both = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1)
        encoded[name] = both.flatten(-2)
    place = torch.cat((encoded["y"], encoded["x"]), dim=-1)
    place = place + encoded["t"] if with_time else place
    return place.movedim(-1, -3)


class LiteralPixelDecoder(nn.Module):
    """The pixel decoder frame by frame, in float32."""

    def __init__(self, decoder: Any) -> None:
        """Take over the pixel decoder of the package."""
        super().__init__()
        self.decoder = decoder

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features (N, mask_dim, H/4, W/4) and encoded maps, coarse first."""
        own = self.decoder
        with torch.autocast(own.mask_features.weight.device.type, enabled=False):
            maps = [
                projection(features[name].float())
                for projection, name in zip(own.input_proj, own.in_features, strict=True)
            ]
            encoded = self._encode(maps)
            fine = encoded[-1]
            for number, name in own.fine_features:
                adapter, layer = (getattr(own, f"{kind}_{number}") for kind in ("adapter", "layer"))
                lateral = conv_and_norm(adapter, features[name].float())
                size = lateral.shape[-2:]
                fine = F.interpolate(fine, size, mode="bilinear", align_corners=False)
                fine = F.relu(conv_and_norm(layer, lateral + fine))
            return own.mask_features(fine), encoded

    def _encode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        transformer = self.decoder.transformer
        shapes = [(m.shape[2], m.shape[3]) for m in maps]
        positions = [
            sine_position(torch.ones_like(m[:, 0]), m.shape[1]).flatten(2).transpose(1, 2) + level
            for m, level in zip(maps, transformer.level_embed, strict=True)
        ]
        position = torch.cat(positions, dim=1)  # (N, S, D)
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        points = _reference_points(shapes, tokens)
        for layer in transformer.encoder.layers:
            attended = _deformable(layer.self_attn, tokens + position, points, tokens, shapes)
            tokens = layer.norm1(tokens + attended)
            tokens = layer.norm2(tokens + layer.linear2(F.relu(layer.linear1(tokens))))
        parts = tokens.split([height * width for height, width in shapes], dim=1)
        return [
            part.transpose(1, 2).reshape(len(part), -1, *shape)
            for part, shape in zip(parts, shapes, strict=True)
        ]


def _reference_points(shapes: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
    """(x, y) in [0, 1] of every token on every level, (N, S, K, 2)."""
    centres = []
    for height, width in shapes:
        y = torch.linspace(0.5, height - 0.5, height, device=tokens.device) / height
        x = torch.linspace(0.5, width - 0.5, width, device=tokens.device) / width
        grid = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack((grid[1], grid[0]), dim=-1).flatten(0, 1))
    points = torch.cat(centres)[None, :, None]
    return points.repeat(len(tokens), 1, len(shapes), 1)


def _deformable(
    layer: Any, query: Tensor, points: Tensor, tokens: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """Deformable attention with the weights of a layer of the package; (N, S, D)."""
    sizes = layer.num_heads, layer.num_levels, layer.num_points
    value = layer.value_proj(tokens).unflatten(2, (layer.num_heads, -1))
    offsets = layer.sampling_offsets(query).unflatten(2, (*sizes, 2))
    weights = layer.attention_weights(query).unflatten(2, (layer.num_heads, -1)).softmax(-1)
    cells = points.new_tensor([(width, height) for height, width in shapes])
    # repeated, since PyTorch divides five times slower by a tensor with broadcast inner axes
    cells = cells[:, None].repeat(layer.num_heads, 1, layer.num_points, 1)
    locations = points[:, :, None, :, None] + offsets / cells
    weights = weights.unflatten(3, sizes[1:])
    return layer.output_proj(grid_sample_attention(value, shapes, locations, weights))


class LiteralDecoder(nn.Module):
    """The video decoder with dense masks after every layer."""

    def __init__(self, decoder: Any) -> None:
        """Take over the decoder of the package."""
        super().__init__()
        self.decoder = decoder
        self.heads: dict[str, nn.Module] = {}

    def forward(
        self,
        maps: Sequence[Tensor],
        mask_features: Tensor,
        num_frames: int,
        return_aux: bool = True,
        num_views: int | None = None,
    ) -> dict[str, Any]:
        """Outputs of all layers, whatever ``return_aux`` says; as the decoder of the package."""
        own = self.decoder
        batch = len(mask_features) // num_frames
        features = mask_features.unflatten(0, (batch, num_frames))
        memory = [self._memory(level, m, batch) for level, m in enumerate(maps)]
        queries = own.query_feat.weight[:, None].repeat(1, batch, 1)  # (Q, B, D)
        position = own.query_embed.weight[:, None].repeat(1, batch, 1)
        found = [self._predict(queries, features, maps[0].shape[-2:])]
        layers = zip(
            own.transformer_cross_attention_layers,
            own.transformer_self_attention_layers,
            own.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross, itself, ffn) in enumerate(layers):
            key, value = memory[i % len(maps)]
            blocked = found[-1][2]
            blocked[blocked.sum(-1) == blocked.shape[-1]] = False
            placed = queries + position
            update = _attend(cross.multihead_attn, placed, key, value, blocked)
            queries = cross.norm(queries + update)
            placed = queries + position
            queries = itself.norm(queries + _attend(itself.self_attn, placed, placed, queries))
            queries = ffn.norm(queries + ffn.linear2(F.relu(ffn.linear1(queries))))
            size = maps[(i + 1) % len(maps)].shape[-2:]
            found.append(self._predict(queries, features, size))
        outputs = [{"pred_logits": logits, "pred_masks": masks} for logits, masks, _ in found]
        return {**outputs[-1], "aux_outputs": outputs[:-1]}

    def _memory(self, level: int, level_map: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Keys (values with position) and values of a level, (T * h * w, B, D)."""
        own = self.decoder
        value = own.input_proj[level](level_map).flatten(2) + own.level_embed.weight[level][:, None]
        shape = batch, len(level_map) // batch, *level_map.shape[-2:]
        position = sine_position(torch.ones(shape, device=level_map.device), value.shape[1])
        position = position.flatten(3).flatten(0, 1)
        of_clip = [x.unflatten(0, (batch, -1)).permute(1, 3, 0, 2) for x in (value, position)]
        values, positions = (x.flatten(0, 1) for x in of_clip)
        return values + positions.to(values.dtype), values

    def _predict(
        self, queries: Tensor, features: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, Q, C + 1), masks (B, Q, T, h, w), blocked keys (B * heads, Q, S')."""
        own = self.decoder
        normed = own.decoder_norm(queries).transpose(0, 1)
        masks = torch.einsum("bqc,btchw->bqthw", own.mask_embed(normed), features)
        resized = F.interpolate(
            masks.flatten(0, 1), list(size), mode="bilinear", align_corners=False
        )
        blocked = (resized.sigmoid().unflatten(0, masks.shape[:2]).flatten(2) < 0.5)[:, None]
        heads = own.transformer_cross_attention_layers[0].multihead_attn.num_heads
        return own.class_embed(normed), masks, blocked.repeat(1, heads, 1, 1).flatten(0, 1).detach()


def _attend(
    layer: Any, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
) -> Tensor:
    """What ``nn.MultiheadAttention`` does by default: attention that also returns its weights."""
    return F.multi_head_attention_forward(
        query,
        key,
        value,
        query.shape[-1],
        layer.num_heads,
        layer.in_proj_weight,
        layer.in_proj_bias,
        None,
        None,
        False,
        0.0,
        layer.out_proj.weight,
        layer.out_proj.bias,
        training=query.requires_grad,
        need_weights=True,
        attn_mask=blocked,
    )[0]
