"""A small head that predicts the objects' mask of each frame and a bias for the attention.

After the dynamics-aware aggregator of PAGE-4D (arXiv:2510.17568), which suppresses moving regions
for pose tokens; here the background is suppressed for object queries.

Shape letters: B clips, S frames of a clip, P tokens of a frame (special tokens first, then the
h x w patches), C channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.ops.dtypes import at_least_float32

_MIN_TAU = 1e-3


def _softplus_inverse(value: float) -> float:
    """The x for which softplus(x) = log(1 + e^x) equals ``value`` > 0."""
    return value + math.log(-math.expm1(-value))


class SpatialMaskHead(nn.Module):
    """Two depthwise convolutions, then a linear layer; temperature and strength are learned too.

    The last layer starts at zero, so that all patches have the same bias, which does not change the
    attention: at the start a model with the head gives the same results as one without it.
    """

    steps: Tensor

    def __init__(
        self,
        channels: int,
        tau_init: float = 2.0,
        alpha_init: float = 1.0,
        bias_max: float = 0.5,
        suppress: str = "background",
        detach_input: bool = True,
        hold: tuple[int, int] = (0, 0),
    ) -> None:
        """Make the layers.

        Args:
            channels: C.
            tau_init: Temperature that the logits are divided by, > 0.
            alpha_init: Strength of the suppression, > 0.
            bias_max: Largest amount taken off an attention logit, >= 0.
            suppress: The part that gets less attention: "background", where the mask is off, or
                "dynamic", where it is on.
            detach_input: Stop the gradient from the head to its input.
            hold: Training steps at which the bias starts to fade and at which it is 0, with a
                cosine in between; (0, 0): it does not fade.

        Raises:
            ValueError: A value is outside its range.
        """
        super().__init__()
        if suppress not in ("background", "dynamic"):
            raise ValueError(f"suppress is 'background' or 'dynamic', got {suppress!r}")
        if tau_init <= 0 or alpha_init <= 0 or bias_max < 0:
            raise ValueError(
                "tau_init and alpha_init are above 0 and bias_max is at least 0, got "
                f"{tau_init}, {alpha_init} and {bias_max}"
            )
        self.bias_max = bias_max
        self.sign = -1.0 if suppress == "background" else 1.0
        self.detach_input = detach_input
        self.hold = hold
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.GELU(),
            nn.Conv2d(channels, 1, 1),
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.raw_tau = nn.Parameter(torch.tensor(_softplus_inverse(tau_init)))
        self.raw_alpha = nn.Parameter(torch.tensor(_softplus_inverse(alpha_init)))
        self.register_buffer("steps", torch.zeros(()))

    @classmethod
    def from_config(cls, cfg: Any, channels: int) -> dict[str, Any]:
        """Arguments of ``__init__`` for maps with ``channels`` channels, from the config."""
        node = cfg.MODEL.SPATIAL_MASK
        return {
            "channels": channels,
            "tau_init": node.TAU_INIT,
            "alpha_init": node.ALPHA_INIT,
            "bias_max": node.BIAS_MAX,
            "suppress": node.SUPPRESS,
            "detach_input": node.DETACH_INPUT,
            "hold": (node.HOLD_START, node.HOLD_END),
        }

    @property
    def tau(self) -> Tensor:
        """Temperature, a scalar > 0."""
        return F.softplus(self.raw_tau).clamp(min=_MIN_TAU)

    @property
    def alpha(self) -> Tensor:
        """Strength, a scalar > 0."""
        return F.softplus(self.raw_alpha)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], patch_start: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask and attention bias of the tokens of B clips.

        Args:
            tokens: (B, S, P, C).
            grid: (h, w), with P = patch_start + h * w.
            patch_start: Special tokens of each frame, which come first; they are not suppressed.

        Returns:
            Mask logits (B * S, 1, h, w); the bias for the attention logits of each token as a key,
            (B, S * P), in [-bias_max, 0]; and which tokens are special, (B, S * P), bool.

        Raises:
            ValueError: P does not fit the grid.
        """
        batch, frames, num_tokens, channels = tokens.shape
        height, width = grid
        if num_tokens != patch_start + height * width:
            raise ValueError(
                f"expected {patch_start} special and {height} x {width} patch tokens a frame, got "
                f"tokens of shape {tuple(tokens.shape)}"
            )
        patches = tokens[:, :, patch_start:]
        if self.detach_input:
            patches = patches.detach()
        maps = patches.reshape(-1, height * width, channels).transpose(1, 2)
        m_logit = self.layers(maps.unflatten(2, grid))
        bias = self.bias_of(m_logit).view(batch, frames, -1)
        bias = F.pad(bias, (patch_start, 0))
        is_special = torch.arange(num_tokens, device=tokens.device) < patch_start
        row_mask = is_special.expand(batch, frames, -1).reshape(batch, -1)
        return m_logit, bias.flatten(1), row_mask

    def bias_of(self, m_logit: Tensor) -> Tensor:
        """Attention bias -bias_max * clamp(alpha * s, 0, 1), times the factor ``fade``.

        s is sigmoid(-m / tau) for ``suppress`` "background" and sigmoid(m / tau) for "dynamic".

        Args:
            m_logit: Mask logits, any shape.

        Returns:
            Same shape, float32 at least, in [-bias_max, 0].
        """
        logits = at_least_float32(m_logit)
        hidden = torch.sigmoid(self.sign * logits / self.tau)
        return -self.bias_max * self.fade() * (self.alpha * hidden).clamp(0, 1)

    def fade(self) -> Tensor:
        """Factor of the bias: 1 up to step ``hold[0]``, then a cosine to 0 at ``hold[1]``."""
        start, end = self.hold
        if end <= 0:
            return torch.ones_like(self.steps)
        done = ((self.steps - start) / max(end - start, 1)).clamp(0, 1)
        return torch.where(self.steps >= end, 0.0, (1 + torch.cos(math.pi * done)) / 2)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: 0 means softplus(0) = 0.69, which is not neutral."""
        return {"raw_tau", "raw_alpha"}

    def set_step(self, step: int) -> None:
        """Set the step of the schedule."""
        self.steps.fill_(step)

    def count_step(self) -> None:
        """Count a training step, for the schedule."""
        self.steps += 1


def fold_frames(
    m_logit: Tensor, num_clips: int, num_frames: int, num_views: int | None = None
) -> Tensor:
    """Reshape mask logits to separate axes of clips, frames and views.

    Args:
        m_logit: (B * S, 1, h, w), (B, S, h, w), (B, S, 1, h, w), (B, T, V, h, w) or (B, T, V, 1, h,
            w), S = T without views and T * V, time first, with them.
        num_clips: B.
        num_frames: T.
        num_views: V; None: there are none.

    Returns:
        (B, T, h, w), or (B, T, V, h, w) with views.

    Raises:
        ValueError: The shape is none of these; the message gives them and the given shape.
    """
    views = num_views or 1
    size = tuple(m_logit.shape[-2:])
    merged = num_frames * views
    known = [
        (num_clips * merged, 1, *size),
        (num_clips, merged, *size),
        (num_clips, merged, 1, *size),
        (num_clips, num_frames, views, *size),
        (num_clips, num_frames, views, 1, *size),
    ]
    if tuple(m_logit.shape) not in known:
        raise ValueError(
            f"mask logits of {num_clips} clips, {num_frames} frames and {num_views or 'no'} views "
            f"have one of the shapes {sorted(set(known))}, got {tuple(m_logit.shape)}"
        )
    shape = (num_clips, num_frames) if num_views is None else (num_clips, num_frames, views)
    return m_logit.reshape(*shape, *size)
