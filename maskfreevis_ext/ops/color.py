"""RGB to CIE Lab on tensors of any device."""

from __future__ import annotations

import torch
from torch import Tensor

from .reduce import send

# sRGB primaries and the D65 white point of the 2 degree observer (IEC 61966-2-1), with the digits
# that scikit-image uses.
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab (D65, 2 degree observer).

    Agrees with ``skimage.color.rgb2lab`` to 1e-3 on all 8-bit colours in float32.

    Args:
        rgb: Red, green, blue in [0, 255], (..., 3, H, W), floating point.

    Returns:
        L in [0, 100], a and b in about [-128, 127], (..., 3, H, W), dtype of the input.

    Raises:
        ValueError: The third dimension from the end is not 3, or the dtype is not floating point.

    Example:
        >>> white = torch.full((3, 1, 1), 255.0)
        >>> rgb_to_lab(white).flatten().round().int().tolist()
        [100, 0, 0]
    """
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ValueError(f"rgb_to_lab expects (..., 3, H, W), got {tuple(rgb.shape)}")
    if not rgb.is_floating_point():
        raise ValueError(f"rgb_to_lab expects a floating point tensor, got {rgb.dtype}")
    value = rgb / 255
    linear = torch.where(value > 0.04045, ((value + 0.055) / 1.055).pow(2.4), value / 12.92)
    matrix = torch.tensor(_XYZ_FROM_RGB, dtype=rgb.dtype)
    matrix = send(matrix / torch.tensor(_WHITE, dtype=rgb.dtype)[:, None], rgb.device)
    xyz = torch.einsum("ij,...jhw->...ihw", matrix, linear)
    # clamp keeps pow differentiable where torch.where selects the other branch
    root = xyz.clamp(min=1e-8).pow(1 / 3)
    f = torch.where(xyz > 0.008856, root, 7.787 * xyz + 16 / 116)
    fx, fy, fz = f.unbind(-3)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=-3)
