"""Attention and feed-forward blocks of the video decoder.

B clips, Q queries, S keys, D channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.modeling.products import Linear, add, linear


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameters, names and values of ``nn.MultiheadAttention``.

    It always runs PyTorch's fused attention, and takes one mask for all heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        """Make the layer.

        Args:
            dim: D, channels; a multiple of ``num_heads``.
            num_heads: Attention heads.
        """
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """Attend from the queries to the keys.

        Args:
            query: (B, Q, D).
            key: (B, S, D).
            value: (B, S, D).
            allowed: Keys that a query may attend to, bool (B, Q, S); None: all.
            key_bias: Added to the attention logits of each key, (B, S); it gets a gradient.

        Returns:
            (B, Q, D).
        """
        inputs = zip(
            (query, key, value),
            self.in_proj_weight.chunk(3),
            self.in_proj_bias.chunk(3),
            strict=True,
        )
        # (B, length, D) -> (B, heads, length, D / heads)
        q, k, v = (
            linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in inputs
        )
        mask = None if allowed is None else allowed[:, None]
        head_dim = q.shape[-1]
        if key_bias is not None:
            q, k, v = _with_key_bias(q, k, v, key_bias)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[..., :head_dim]
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def _with_key_bias(
    q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Extend queries, keys and values so that the attention logits contain a bias for each key.

    The bias is one more channel of the keys, whose counterpart in the queries is constant. So the
    fused attention gives it a gradient, which an additive mask would not get. Heads are widened to
    a multiple of 8 channels.

    Args:
        q: (B, heads, Q, d).
        k: (B, heads, S, d).
        v: (B, heads, S, d).
        key_bias: (B, S).

    Returns:
        q, k and v with 8 * ceil((d + 1) / 8) channels; only the first d of the attention's result
        are used.
    """
    dim = q.shape[-1]
    wide = 8 * (dim // 8 + 1)
    # the fused attention divides by the square root of the new width
    q = F.pad(q * math.sqrt(wide / dim), (0, 1), value=math.sqrt(wide))
    bias = key_bias.to(k.dtype)[:, None, :, None].expand(-1, k.shape[1], -1, -1)
    k = torch.cat((k, bias), dim=-1)
    rest = wide - dim - 1
    return F.pad(q, (0, rest)), F.pad(k, (0, rest)), F.pad(v, (0, rest + 1))


class _ResidualBlock(nn.Module):
    """Base class of the blocks: a residual connection, with LayerNorm before or after the block."""

    norm: nn.LayerNorm
    pre_norm: bool

    def _enter(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.pre_norm else x

    def _leave(self, x: Tensor, update: Tensor) -> Tensor:
        x = add(update, x)
        return x if self.pre_norm else self.norm(x)


class SelfAttentionLayer(_ResidualBlock):
    """Queries attend to each other."""

    def __init__(self, dim: int, num_heads: int, pre_norm: bool) -> None:
        """Make the block; the arguments are those of the decoder."""
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.pre_norm = pre_norm

    def forward(self, queries: Tensor, query_position: Tensor) -> Tensor:
        """Update the queries, (B, Q, D)."""
        x = self._enter(queries)
        placed = x + query_position
        return self._leave(queries, self.self_attn(placed, placed, x))


class CrossAttentionLayer(_ResidualBlock):
    """Queries attend to the cells of the clip inside their own mask."""

    def __init__(self, dim: int, num_heads: int, pre_norm: bool) -> None:
        """Make the block; the arguments are those of the decoder."""
        super().__init__()
        self.multihead_attn = MultiheadAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.pre_norm = pre_norm

    def forward(
        self,
        queries: Tensor,
        query_position: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """Update the queries (B, Q, D) from keys and values (B, S, D).

        ``allowed`` (B, Q, S) and ``key_bias`` (B, S) are as in ``MultiheadAttention``.
        """
        placed = self._enter(queries) + query_position
        return self._leave(queries, self.multihead_attn(placed, key, value, allowed, key_bias))


class FFNLayer(_ResidualBlock):
    """Feed-forward block."""

    def __init__(self, dim: int, dim_feedforward: int, pre_norm: bool) -> None:
        """Make the block; the arguments are those of the decoder."""
        super().__init__()
        self.linear1 = Linear(dim, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, dim)
        self.norm = nn.LayerNorm(dim)
        self.pre_norm = pre_norm
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, queries: Tensor) -> Tensor:
        """Update the queries, (B, Q, D)."""
        hidden = self.linear1(self._enter(queries), relu=True)
        return self._leave(queries, self.linear2(hidden))
