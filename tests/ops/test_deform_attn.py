"""Multi-scale deformable attention against loops, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.ops.deform_attn import multi_scale_deformable_attention

SHAPES = [(3, 5), (1, 1), (4, 2)]


def _inputs(
    batch: int = 2, queries: int = 4, heads: int = 2, dim: int = 3, points: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (some outside of the map) and weights, float64."""
    tokens = sum(height * width for height, width in SHAPES)
    value = torch.randn(batch, tokens, heads, dim, dtype=torch.float64)
    shape = (batch, queries, heads, len(SHAPES), points)
    locations = torch.rand(*shape, 2, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(shape, dtype=torch.float64)
    return value, locations, weights


def _bilinear(cells: Tensor, x: float, y: float) -> Tensor:
    """Value of a map (H, W, D) where integers are cell centres; zero outside."""
    height, width, dim = cells.shape
    total = cells.new_zeros(dim)
    for row in range(height):
        for column in range(width):
            weight = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
            total = total + weight * cells[row, column]
    return total


def _naive(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, point by point."""
    batch, queries, heads, _, points = weights.shape
    output = value.new_zeros(batch, queries, heads, value.shape[3])
    maps = value.split([height * width for height, width in SHAPES], dim=1)
    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                for k, (height, width) in enumerate(SHAPES):
                    cells = maps[k][b, :, head].view(height, width, -1)
                    for p in range(points):
                        x, y = locations[b, q, head, k, p].tolist()
                        sample = _bilinear(cells, x * width - 0.5, y * height - 0.5)
                        output[b, q, head] += weights[b, q, head, k, p] * sample
    return output.flatten(2)


def test_deformable_attention_equals_loops() -> None:
    value, locations, weights = _inputs()
    output = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    assert output.shape == (2, 4, 6)
    torch.testing.assert_close(output, _naive(value, locations, weights), rtol=1e-12, atol=1e-12)


def test_deformable_attention_at_cell_centre_is_the_cell() -> None:
    value = torch.arange(15.0).view(1, 15, 1, 1)
    centre = torch.tensor([(2 + 0.5) / 5, (1 + 0.5) / 3]).view(1, 1, 1, 1, 1, 2)
    output = multi_scale_deformable_attention(value, [(3, 5)], centre, torch.ones(1, 1, 1, 1, 1))
    torch.testing.assert_close(output, torch.tensor([[[7.0]]]))


def test_deformable_attention_gradients_are_right() -> None:
    value, locations, weights = _inputs(batch=1, queries=2)
    for tensor in (value, locations, weights):
        tensor.requires_grad_()
    torch.autograd.gradcheck(
        lambda v, at, w: multi_scale_deformable_attention(v, SHAPES, at, w),
        (value, locations, weights),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_deformable_attention_keeps_dtype_and_samples_precisely(dtype: torch.dtype) -> None:
    value, locations, weights = _inputs()
    value = value.to(dtype)
    output = multi_scale_deformable_attention(value, SHAPES, locations.float(), weights.to(dtype))
    expected = _naive(value.double(), locations, weights.to(dtype).double())
    assert output.dtype == dtype
    # Only the result is rounded.
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("batch", "queries"), [(0, 4), (2, 0)])
def test_deformable_attention_of_nothing_is_empty(batch: int, queries: int) -> None:
    output = multi_scale_deformable_attention(*_with_shapes(_inputs(batch, queries)))
    assert output.shape == (batch, queries, 6)


def test_deformable_attention_wrong_token_count_raises() -> None:
    value, locations, weights = _inputs()
    with pytest.raises(ValueError, match="24 cells, but value has 23 tokens"):
        multi_scale_deformable_attention(value[:, 1:], SHAPES, locations, weights)


def _with_shapes(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple:
    return inputs[0], SHAPES, *inputs[1:]
