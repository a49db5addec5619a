"""Precision of sums over pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor, in float32 if it was in half precision, where sums overflow or round."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
