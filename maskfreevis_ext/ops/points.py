"""Sampling of maps at points, and the choice of uncertain points (PointRend, arXiv 1912.08193).

N: maps, C: channels, P: points. Point coordinates are (x, y) in [0, 1] x [0, 1]: (0, 0) is the
outer corner of the first pixel and (1, 1) that of the last one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(maps: Tensor, coords: Tensor) -> Tensor:
    """Bilinear values of maps at points; outside a map it is zero.

    Args:
        maps: (N, C, H, W), floating point.
        coords: (x, y) in [0, 1], (N, P, 2).

    Returns:
        (N, C, P), dtype of ``maps``; half precision is sampled in float32.

    Example:
        >>> maps = torch.tensor([[[[0.0, 4.0]]]])
        >>> sample_points(maps, torch.tensor([[[0.25, 0.5], [0.5, 0.5]]])).tolist()
        [[[0.0, 2.0]]]
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    grid = (2 * coords - 1).to(dtype).unsqueeze(2)
    return F.grid_sample(maps.to(dtype), grid, align_corners=False).squeeze(3).to(maps.dtype)


def _given_or_uniform(
    given: Tensor | None,
    shape: tuple[int, int, int],
    name: str,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """The given coordinates, whose shape is checked, or uniform random ones if None."""
    if given is None:
        return torch.rand(shape, generator=generator, device=device)
    if given.shape != shape:
        raise ValueError(
            f"uncertain_point_coords: {name} must be {shape}, got {tuple(given.shape)}."
        )
    return given


@torch.no_grad()
def uncertain_point_coords(
    logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
    *,
    candidates: Tensor | None = None,
    extra: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample points near the decision boundary of each map, and some uniformly (PointRend 3.1).

    Of ``num_points * oversample_ratio`` uniform candidates the ``num_points * importance_ratio``
    points with the sampled logit closest to 0 are kept; the remaining points are uniform.

    Args:
        logits: Mask logits, (N, 1, H, W).
        num_points: P, points per map.
        oversample_ratio: Candidates per point; at least 1.
        importance_ratio: Share of uncertain points, in [0, 1].
        candidates: Uniform candidates, (N, int(P * oversample_ratio), 2); None: they are drawn.
        extra: Remaining uniform points, (N, P - int(P * importance_ratio), 2); None: drawn.
        generator: Random generator; None: PyTorch's default generator.

    Returns:
        (x, y) in [0, 1], (N, P, 2): the uncertain points first, without a gradient.

    Raises:
        ValueError: A ratio is outside its range, or a given tensor has another shape.

    Example:
        >>> logits = torch.tensor([[[[0.0, 4.0]]]])
        >>> candidates = torch.tensor([[[0.75, 0.5], [0.25, 0.5]]])
        >>> uncertain_point_coords(logits, 1, 2.0, 1.0, candidates=candidates).tolist()
        [[[0.25, 0.5]]]
    """
    if oversample_ratio < 1 or not 0 <= importance_ratio <= 1:
        raise ValueError(
            "uncertain_point_coords: oversample_ratio must be >= 1 and importance_ratio in [0, 1], "
            f"got {oversample_ratio} and {importance_ratio}."
        )
    num_maps = logits.shape[0]
    num_candidates = int(num_points * oversample_ratio)
    num_uncertain = int(num_points * importance_ratio)
    shape = (num_maps, num_candidates, 2)
    candidates = _given_or_uniform(candidates, shape, "candidates", logits.device, generator)
    # The logit is sampled first and its uncertainty taken then: a point between a confident 0 and a
    # confident 1 is uncertain, while the interpolated uncertainty of the two would be low.
    uncertainty = -sample_points(logits, candidates).squeeze(1).abs()
    chosen = uncertainty.topk(num_uncertain, dim=1).indices
    coords = candidates.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2))
    shape = (num_maps, num_points - num_uncertain, 2)
    rest = _given_or_uniform(extra, shape, "extra", logits.device, generator)
    return torch.cat([coords, rest], dim=1)
