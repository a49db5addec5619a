"""Multi-scale deformable attention against loops and the literal form, and its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.literal.deform_attn import grid_sample_attention
from maskfreevis_ext.ops import deform_attn
from maskfreevis_ext.ops.deform_attn import (
    _grid_sample_attention,
    multi_scale_deformable_attention,
)

SHAPES = [(3, 5), (1, 1), (4, 2)]


@pytest.fixture(autouse=True)
def _sparse_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps take the other form on the CPU; here they are to test the sparse one."""
    monkeypatch.setattr(deform_attn, "_SPARSE_TOKENS", 0)


def _inputs(
    batch: int = 2,
    queries: int = 4,
    heads: int = 2,
    dim: int = 3,
    points: int = 2,
    shapes: list[tuple[int, int]] = SHAPES,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (some outside of the map) and weights, float64."""
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(batch, tokens, heads, dim, dtype=torch.float64)
    shape = (batch, queries, heads, len(shapes), points)
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


def _gradient(output: Tensor) -> Tensor:
    """A fixed gradient of the output."""
    return torch.linspace(-1, 1, output.numel()).to(output).view_as(output)


def _run(attention: Callable[..., Tensor], shapes: list[tuple[int, int]], *inputs: Tensor) -> list:
    """Output, and the gradients of value, locations and weights for one fixed output gradient."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    output = attention(inputs[0], shapes, *inputs[1:])
    return [output.detach(), *torch.autograd.grad(output, inputs, _gradient(output))]


SIZES = [
    {},
    {"shapes": [(12, 20), (24, 40)], "queries": 50, "heads": 8, "dim": 32, "points": 4},
    {"shapes": [(7, 5)], "dim": 16, "points": 1},  # one level
    {"shapes": [(2, 2), (1, 9), (8, 1), (13, 3)], "queries": 30, "heads": 1, "dim": 13},
    {"shapes": [(1, 1)], "batch": 1, "queries": 1, "dim": 1},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deformable_attention_equals_literal_form(size: dict, dtype: torch.dtype) -> None:
    inputs = [tensor.to(dtype) for tensor in _inputs(**size)]
    shapes = size.get("shapes", SHAPES)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for ours, literal in zip(
        _run(multi_scale_deformable_attention, shapes, *inputs),
        _run(grid_sample_attention, shapes, *inputs),
        strict=True,
    ):
        # Relative to the largest: a gradient of a location is a difference of large numbers.
        atol = tolerance * max(1.0, literal.abs().max().item())
        torch.testing.assert_close(ours, literal, rtol=0, atol=atol)


def test_deformable_attention_form_of_other_devices_equals_literal_form() -> None:
    inputs = _inputs()

    def attention(value: Tensor, shapes: list[tuple[int, int]], *points: Tensor) -> Tensor:
        return _grid_sample_attention(value, *points, shapes)

    for ours, literal in zip(
        _run(attention, SHAPES, *inputs),
        _run(grid_sample_attention, SHAPES, *inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, literal, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cells", [-1.5, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0, 3.5, 4.0, 1e12])
def test_deformable_attention_at_kinks_and_borders_equals_literal_form(cells: float) -> None:
    # The centre of cell n of a level of 4 is a kink; a quarter and a half are exact in binary.
    value = torch.randn(1, 16, 1, 2, dtype=torch.float64)
    locations = torch.full((1, 1, 1, 1, 1, 2), (cells + 0.5) / 4, dtype=torch.float64)
    inputs = (value, locations, torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))
    for ours, literal in zip(
        _run(multi_scale_deformable_attention, [(4, 4)], *inputs),
        _run(grid_sample_attention, [(4, 4)], *inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, literal, rtol=1e-12, atol=1e-12)


def test_deformable_attention_passes_nan_on_only_to_its_query() -> None:
    value, locations, weights = _inputs(batch=1)
    locations[0, 1] = torch.nan
    output = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    assert output.isnan().all(dim=2).tolist() == [[False, True, False, False]]


def test_deformable_attention_of_views_equals_that_of_copies() -> None:
    copies = _inputs(batch=3, queries=6, points=4)
    # The same numbers, with the axes in the reverse order in memory.
    views = [tensor.clone(memory_format=torch.contiguous_format) for tensor in copies]
    views = [
        v.permute(*range(v.ndim)[::-1]).contiguous().permute(*range(v.ndim)[::-1]) for v in views
    ]
    assert not any(view.is_contiguous() for view in views)
    for view, copy in zip(
        _run(multi_scale_deformable_attention, SHAPES, *views),
        _run(multi_scale_deformable_attention, SHAPES, *copies),
        strict=True,
    ):
        torch.testing.assert_close(view, copy, rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_deformable_attention_gives_only_wanted_gradients(wanted: tuple[int, ...]) -> None:
    inputs = _inputs()
    expected = _run(multi_scale_deformable_attention, SHAPES, *inputs)
    for i in wanted:
        inputs[i].requires_grad_()
    output = multi_scale_deformable_attention(inputs[0], SHAPES, *inputs[1:])
    output.backward(_gradient(output))
    for i, tensor in enumerate(inputs):
        if i in wanted:
            torch.testing.assert_close(tensor.grad, expected[i + 1], rtol=0, atol=0)
        else:
            assert tensor.grad is None


@pytest.mark.parametrize("shapes", [SHAPES, [(2, 3)], [(1, 4), (3, 1)]])
def test_deformable_attention_gradients_are_right(shapes: list[tuple[int, int]]) -> None:
    inputs = _inputs(batch=2, queries=2, shapes=shapes)
    for tensor in inputs:
        tensor.requires_grad_()
    torch.autograd.gradcheck(
        lambda v, at, w: multi_scale_deformable_attention(v, shapes, at, w), inputs
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
    inputs = _inputs(batch, queries)
    output, *grads = _run(multi_scale_deformable_attention, SHAPES, *inputs)
    assert output.shape == (batch, queries, 6)
    for grad, tensor in zip(grads, inputs, strict=True):
        torch.testing.assert_close(grad, torch.zeros_like(tensor))


def test_deformable_attention_wrong_token_count_raises() -> None:
    value, locations, weights = _inputs()
    with pytest.raises(ValueError, match="24 cells, but value has 23 tokens"):
        multi_scale_deformable_attention(value[:, 1:], SHAPES, locations, weights)


def test_deformable_attention_level_without_cells_raises() -> None:
    value, locations, weights = _inputs()
    with pytest.raises(ValueError, match="each level needs a cell"):
        multi_scale_deformable_attention(value, [(3, 5), (0, 1), (3, 3)], locations, weights)


def test_few_tokens_take_the_grid_sample_form_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = _inputs()
    sparse = multi_scale_deformable_attention(inputs[0], SHAPES, *inputs[1:])
    monkeypatch.setattr(deform_attn, "_SPARSE_TOKENS", 10_000)
    monkeypatch.setattr(deform_attn, "_SparseAttention", None)
    torch.testing.assert_close(
        multi_scale_deformable_attention(inputs[0], SHAPES, *inputs[1:]), sparse
    )


def test_deformable_attention_may_be_computed_again_in_the_backward_pass() -> None:
    """Activation checkpointing unpacks each saved tensor once."""
    inputs = [tensor.requires_grad_() for tensor in _inputs()]

    def attend(*tensors: torch.Tensor) -> torch.Tensor:
        return multi_scale_deformable_attention(tensors[0], SHAPES, *tensors[1:])

    expected = torch.autograd.grad(attend(*inputs).square().sum(), inputs)
    again = checkpoint(attend, *inputs, use_reentrant=False)
    found = torch.autograd.grad(again.square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
