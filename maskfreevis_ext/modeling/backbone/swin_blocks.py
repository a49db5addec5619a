"""Swin Transformer: windows, blocks, stages (Liu et al., ICCV 2021, arXiv 2103.14030).

N images, (H, W) the map of a stage, D channels, M side of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def _to_windows(x: Tensor, side: int) -> Tensor:
    """(N, H, W, D) → (N * windows, M * M, D); H and W are multiples of M."""
    n, height, width, dim = x.shape
    x = x.view(n, height // side, side, width // side, side, dim)
    return x.transpose(2, 3).reshape(-1, side * side, dim)


def _from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """Inverse of ``_to_windows``: (N, H, W, D)."""
    x = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def _relative_position_index(side: int) -> Tensor:
    """Row of the bias table for each pair of cells of a window, (M * M, M * M) int64."""
    cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    difference = cells[:, None] - cells[None] + side - 1  # rows and columns, 0 .. 2 M - 2
    return difference[..., 0] * (2 * side - 1) + difference[..., 1]


def _shift_mask(height: int, width: int, side: int, shift: int, device: torch.device) -> Tensor:
    """Attention mask of shifted windows: only cells of the same unshifted region see each other.

    Returns:
        Bool (windows, M * M, M * M), True where a cell may attend to another.
    """

    def regions(length: int) -> Tensor:
        place = torch.arange(length, device=device)
        return (place >= length - side).long() + (place >= length - shift).long()

    region = regions(height)[:, None] * 3 + regions(width)[None]
    windows = _to_windows(region[None, :, :, None], side).squeeze(2)
    return windows[:, None] == windows[:, :, None]


class DropPath(nn.Module):
    """Skip the block of a sample with probability ``prob`` in training (stochastic depth)."""

    def __init__(self, prob: float) -> None:
        """Make the layer; ``prob`` is in [0, 1)."""
        super().__init__()
        self.prob = prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples at random and scale the others, so that the expectation is unchanged."""
        if not self.training or self.prob == 0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.prob)
        return x * (keep / (1 - self.prob))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        """Make the layer.

        Args:
            dim: D.
            window_size: M.
            num_heads: Attention heads.
            qkv_bias: Bias in the projections to query, key and value.
            qk_scale: Factor of query times key; None: 1 / sqrt(D / heads).
            attn_drop: Dropout of the attention weights.
            proj_drop: Dropout of the output.
        """
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window_size - 1) ** 2, num_heads)
        )
        self.register_buffer("relative_position_index", _relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each window.

        Args:
            windows: (N * windows, M * M, D).
            mask: Cells that a cell may attend to, bool (windows, M * M, M * M); None: all.

        Returns:
            (N * windows, M * M, D).
        """
        total, cells, dim = windows.shape
        qkv = self.qkv(windows).view(total, cells, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1).to(q.dtype)  # (heads, M * M, M * M)
        if mask is not None:
            # (windows, 1, M * M, M * M); Swin's weights were trained with -100.
            bias = bias + (~mask).to(q.dtype)[:, None] * -100.0
            bias = bias.repeat(total // mask.shape[0], 1, 1, 1)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias,
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=self.scale,
        )
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(total, cells, dim)))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden_dim: int, drop: float) -> None:
        """Make the layers; ``drop`` is the dropout after each."""
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SwinBlock(nn.Module):
    """Window attention and MLP, each with a LayerNorm before it."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
    ) -> None:
        """Make the block.

        Args:
            dim: D.
            num_heads: Attention heads.
            window_size: M.
            shift: Cells by which the windows are shifted, 0 or M // 2.
            mlp_ratio: Width of the MLP over D.
            qkv_bias: See ``WindowAttention``.
            qk_scale: See ``WindowAttention``.
            drop: Dropout of the outputs.
            attn_drop: Dropout of the attention weights.
            drop_path: Probability of skipping the block.
        """
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(
            dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, shift_mask: Tensor) -> Tensor:
        """Update the map, (N, H, W, D); ``shift_mask`` is used by shifted blocks."""
        x = x + self.drop_path(self._attend(self.norm1(x), shift_mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, shift_mask: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        side, shift = self.window_size, self.shift
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        padded_height, padded_width = x.shape[1:3]
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        windows = self.attn(_to_windows(x, side), shift_mask if shift else None)
        x = _from_windows(windows, side, padded_height, padded_width)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Halve the map: the four cells of a square become one with twice the channels."""

    def __init__(self, dim: int) -> None:
        """Make the layer for D channels."""
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, D) to (N, ceil(H / 2), ceil(W / 2), 2 D)."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # The order of the four is that of Swin's weights: down first, then right.
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=3)))


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows, then a ``PatchMerging``."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        drop_paths: Sequence[float],
        downsample: bool,
        use_checkpoint: bool,
        **block_args: Any,
    ) -> None:
        """Make the stage.

        Args:
            dim: D.
            num_heads: Attention heads.
            window_size: M.
            drop_paths: Probability of skipping each block; gives the number of blocks.
            downsample: Whether a ``PatchMerging`` follows.
            use_checkpoint: Recompute the blocks in the backward pass.
            block_args: The other arguments of ``SwinBlock``.
        """
        super().__init__()
        self.window_size = window_size
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim,
                num_heads,
                window_size,
                shift=(i % 2) * (window_size // 2),
                drop_path=drop_path,
                **block_args,
            )
            for i, drop_path in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output map of this stage and the input of the next one, channels last."""
        side = self.window_size
        height, width = (-(-length // side) * side for length in x.shape[1:3])
        mask = _shift_mask(height, width, side, side // 2, x.device)
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


def make_stages(
    dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    drop_path_rate: float,
    use_checkpoint: bool,
    **block_args: Any,
) -> nn.ModuleList:
    """Make all stages; each but the last ends with a ``PatchMerging``.

    Args:
        dims: D of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        window_size: M.
        drop_path_rate: Probability of skipping the last block; it grows linearly from 0.
        use_checkpoint: Recompute the blocks in the backward pass.
        block_args: The other arguments of ``SwinBlock``.
    """
    blocks = sum(depths)
    drop_paths = [drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]
    first = [sum(depths[:i]) for i in range(len(depths))]
    return nn.ModuleList(
        SwinStage(
            dims[i],
            num_heads[i],
            window_size,
            drop_paths[first[i] : first[i] + depths[i]],
            downsample=i + 1 < len(depths),
            use_checkpoint=use_checkpoint,
            **block_args,
        )
        for i in range(len(depths))
    )
