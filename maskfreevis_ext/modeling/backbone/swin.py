"""Swin Transformer as a backbone (Liu et al., ICCV 2021, arXiv 2103.14030).

N images, (H, W) pixels, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from maskfreevis_ext.modeling.backbone.swin_blocks import make_stages


class PatchEmbed(nn.Module):
    """Image → one token per patch."""

    def __init__(self, patch_size: int, dim: int, norm: bool) -> None:
        """Make the layer; ``norm`` asks for a LayerNorm."""
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, ceil(H / patch), ceil(W / patch), D)."""
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def _position_embedding(dim: int, side: int) -> nn.Parameter:
    """Learned absolute position embedding, (1, D, side, side)."""
    embedding = nn.Parameter(torch.zeros(1, dim, side, side))
    nn.init.trunc_normal_(embedding, std=0.02)
    return embedding


class SwinTransformer(Backbone):
    """Swin as a backbone with the outputs res2 .. res5 (stride 4 .. 32 for patches of 4)."""

    def __init__(
        self,
        *,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
    ) -> None:
        """Make the backbone.

        Args:
            pretrain_img_size: Side of the images that the absolute position embedding is for.
            patch_size: Side of a patch.
            embed_dim: D of the first stage; it doubles with each stage.
            depths: Blocks of each stage.
            num_heads: Attention heads of each stage.
            window_size: M.
            mlp_ratio: Width of the MLPs over D.
            qkv_bias: Bias in the projections to query, key and value.
            qk_scale: Factor of query times key; None: 1 / sqrt(D / heads).
            drop_rate: Dropout of tokens and outputs.
            attn_drop_rate: Dropout of the attention weights.
            drop_path_rate: Probability of skipping the last block; it grows linearly from 0.
            ape: Add a learned absolute position embedding.
            patch_norm: LayerNorm after the patch embedding.
            use_checkpoint: Recompute the blocks in the backward pass.
            out_features: Outputs, some of res2 .. res5.
        """
        super().__init__()
        self.patch_embed = PatchEmbed(patch_size, embed_dim, patch_norm)
        self.absolute_pos_embed = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = _position_embedding(embed_dim, side)
        self.pos_drop = nn.Dropout(drop_rate)
        dims = [embed_dim * 2**i for i in range(len(depths))]
        self.layers = make_stages(
            *(dims, depths, num_heads, window_size, drop_path_rate, use_checkpoint),
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop=drop_rate,
            attn_drop=attn_drop_rate,
        )
        for i, dim in enumerate(dims):
            self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self.apply(_init_weights)
        self._describe_outputs(dims, patch_size, out_features)

    def _describe_outputs(
        self, dims: Sequence[int], patch_size: int, out_features: Sequence[str]
    ) -> None:
        """Set the names, channels and strides of the outputs, for ``output_shape``."""
        names = [f"res{i + 2}" for i in range(len(dims))]
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_channels = dict(zip(names, dims, strict=True))
        self._out_feature_strides = {n: patch_size * 2**i for i, n in enumerate(names)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Name → map, (N, D, H / stride, W / stride), of images (N, 3, H, W)."""
        x = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            embedding = F.interpolate(
                self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic", align_corners=False
            )
            x = x + embedding.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs = {}
        for i, stage in enumerate(self.layers):
            stage_map, x = stage(x)
            if f"res{i + 2}" in self._out_features:
                normed = getattr(self, f"norm{i}")(stage_map)
                outputs[f"res{i + 2}"] = normed.permute(0, 3, 1, 2).contiguous()
        return outputs

    @property
    def size_divisibility(self) -> int:
        """Stride of the last stage."""
        return 32


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(SwinTransformer):
    """``SwinTransformer`` made from ``MODEL.SWIN``."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        """Make it from the config; images have 3 channels, so ``input_shape`` is unused."""
        swin = cfg.MODEL.SWIN
        super().__init__(
            pretrain_img_size=swin.PRETRAIN_IMG_SIZE,
            patch_size=swin.PATCH_SIZE,
            embed_dim=swin.EMBED_DIM,
            depths=swin.DEPTHS,
            num_heads=swin.NUM_HEADS,
            window_size=swin.WINDOW_SIZE,
            mlp_ratio=swin.MLP_RATIO,
            qkv_bias=swin.QKV_BIAS,
            qk_scale=swin.QK_SCALE,
            drop_rate=swin.DROP_RATE,
            attn_drop_rate=swin.ATTN_DROP_RATE,
            drop_path_rate=swin.DROP_PATH_RATE,
            ape=swin.APE,
            patch_norm=swin.PATCH_NORM,
            use_checkpoint=swin.USE_CHECKPOINT,
            out_features=swin.OUT_FEATURES,
        )
