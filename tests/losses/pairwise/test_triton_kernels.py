"""The Triton sums against the plain ones: on a GPU if there is one, else in the interpreter.

``make test-triton`` runs them in the interpreter.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.losses.pairwise import dense, triton
from maskfreevis_ext.ops.neighbors import (
    Offset,
    grid_offsets,
    half_offsets,
    pair_slices,
)

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
# (h, w): less than a tile, one tile, several tiles with a rest
SIZES = [(5, 7), (16, 32), (19, 45)]
OFFSETS = {
    "half 1x2": half_offsets(1, 2),
    "half 2x1": half_offsets(2, 1),
    "grid 1x3": grid_offsets(1, 3, with_center=True),
    "leaves the map": [(0, 0), (50, -60), (-1, 2)],
}

if not triton.is_available(DEVICE):
    pytest.skip("neither a GPU nor the interpreter of Triton", allow_module_level=True)


def _edges(
    num_objects: int, num_frames: int, size: tuple[int, int], offsets: list[Offset]
) -> list[Tensor]:
    edges = []
    for offset in offsets:
        shape = torch.empty(size)[pair_slices(offset, *size)[0]].shape
        edges.append(torch.rand(num_objects, num_frames, *shape) > 0.4)
    return edges


def _spatial_case(
    shape: tuple[int, int, int], size: tuple[int, int], offsets: list[Offset]
) -> tuple[Tensor, tuple[Any, ...]]:
    num_objects, num_frames = shape[1:]
    boxes = torch.rand(num_objects, num_frames, *size)
    boxes[..., size[1] // 2 :] *= torch.rand(boxes[..., size[1] // 2 :].shape) > 0.5
    edges = _edges(num_objects, num_frames, size, offsets)
    return torch.randn(*shape, *size) * 4, (edges, offsets, boxes)


def _temporal_case(
    shape: tuple[int, int, int], size: tuple[int, int], offsets: list[Offset]
) -> tuple[Tensor, tuple[Any, ...]]:
    num_objects, num_frames = shape[1:]
    pairs = [(a, b) for b in range(num_frames) for a in range(b)]
    pairs += [(num_frames - 1, 0)] * (num_frames > 2)
    matches = torch.rand(num_objects, len(pairs), len(offsets), *size) > 0.4
    regions = (torch.rand(num_objects, *size) > 0.3).float()
    return torch.randn(*shape, *size) * 4, (matches, pairs, offsets, regions)


CASES = {
    "spatial_pairwise_sums": _spatial_case,
    "temporal_pairwise_sums": _temporal_case,
}


def _on_device(value: Any) -> Any:
    if isinstance(value, list):
        return [_on_device(item) for item in value]
    return value.to(DEVICE) if isinstance(value, Tensor) else value


def _run(module: Any, name: str, logits: Tensor, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Sums, weights and the gradient for an upstream gradient that differs from sum to sum."""
    logits = logits.detach().clone().to(DEVICE).requires_grad_()
    sums, weights = getattr(module, name)(logits, *map(_on_device, arguments))
    generator = torch.Generator().manual_seed(1)
    upstream = (torch.rand(sums.shape, generator=generator) * 2 - 1).to(DEVICE)
    if sums.requires_grad:  # the plain sums of no pairs have no gradient
        (sums * upstream).sum().backward()
    gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
    return [sums.detach().cpu(), weights.cpu(), gradient.cpu()]


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _compare(name: str, logits: Tensor, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Equal to the plain sums in float64; returns what the kernels gave."""
    got = _run(triton, name, logits, arguments)
    exact = _run(dense, name, logits.double(), tuple(map(_double, arguments)))
    for value, expected in zip(got, exact, strict=True):
        torch.testing.assert_close(value, expected.to(value.dtype), **TOLERANCE)
    return got


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS.keys())
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_plain_sums(name: str, num_frames: int, offsets: list[Offset]) -> None:
    _compare(name, *CASES[name]((1, 1, num_frames), (6, 35), offsets))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_plain_sums_at_any_size(
    name: str, num_outputs: int, size: tuple[int, int]
) -> None:
    _compare(name, *CASES[name]((num_outputs, 2, 2), size, OFFSETS["half 1x2"]))


@pytest.mark.parametrize(
    ("shape", "size", "offsets"),
    [
        ((2, 0, 2), (5, 7), [(0, 1)]),
        ((0, 2, 2), (5, 7), [(0, 1)]),
        ((2, 2, 2), (0, 7), [(0, 1)]),
        ((2, 2, 2), (5, 7), []),
    ],
    ids=["no objects", "no outputs", "no cells", "no offsets"],
)
@pytest.mark.parametrize("name", CASES)
def test_nothing_to_sum_gives_zeros_with_a_gradient_path(
    name: str, shape: tuple[int, int, int], size: tuple[int, int], offsets: list[Offset]
) -> None:
    logits, arguments = CASES[name](shape, size, offsets)
    sums, _, gradient = _compare(name, logits, arguments)
    assert sums.shape[:2] == shape[:2]
    assert not sums.any()
    assert gradient.shape == logits.shape
    logits = logits.to(DEVICE).requires_grad_()
    assert getattr(triton, name)(logits, *map(_on_device, arguments))[0].requires_grad


@pytest.mark.parametrize("name", CASES)
def test_zero_weights_give_zeros(name: str) -> None:
    logits, (*arguments, maps) = CASES[name]((2, 2, 2), (5, 7), [(0, 1), (1, 0)])
    sums, weights, gradient = _compare(name, logits, (*arguments, torch.zeros_like(maps)))
    assert not sums.any()
    assert not weights.any()
    assert not gradient.any()


@pytest.mark.parametrize("corner", [(0, 0), (15, 31), (16, 32), (17, 34), (39, 70)])
@pytest.mark.parametrize("name", CASES)
def test_one_cell_counts_with_partners_in_other_tiles_and_far_logits_are_not_read(
    name: str, corner: tuple[int, int]
) -> None:
    offsets = grid_offsets(1, 3, with_center=False)
    if name == "spatial_pairwise_sums":
        offsets = half_offsets(1, 3)
    logits, (*arguments, maps) = CASES[name]((1, 1, 2), (40, 71), offsets)
    maps = torch.zeros_like(maps)
    maps[..., corner[0], corner[1]] = 1
    got = _compare(name, logits, (*arguments, maps))
    is_far = torch.ones(logits.shape, dtype=torch.bool)
    rows, cols = (slice(max(place - 3, 0), place + 4) for place in corner)
    is_far[..., rows, cols] = False
    with_nan = _run(triton, name, logits.masked_fill(is_far, torch.nan), (*arguments, maps))
    for value, expected in zip(with_nan, got, strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("size", [1e-4, 12.0, 80.0, 1e4])
@pytest.mark.parametrize("name", CASES)
def test_small_and_large_logits(name: str, size: float) -> None:
    logits, arguments = CASES[name]((1, 2, 2), (9, 11), OFFSETS["grid 1x3"][5:])
    got = _compare(name, torch.where(logits > 0, size, -size), arguments)
    assert all(value.isfinite().all() for value in got)


@pytest.mark.parametrize("name", CASES)
def test_sure_and_equal_labels_keep_their_digits(name: str) -> None:
    logits, arguments = CASES[name]((1, 1, 2), (9, 11), [(0, 1)])
    logits = torch.full_like(logits, 20.0)
    sums = _run(triton, name, logits, arguments)[0]
    exact = _run(dense, name, logits.double(), tuple(map(_double, arguments)))[0]
    torch.testing.assert_close(sums, exact.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_undecided_logits_and_opposite_ones(name: str) -> None:
    logits, arguments = CASES[name]((1, 2, 2), (9, 11), [(0, 1), (2, -1)])
    _compare(name, logits.sign() * (logits.abs() > 2), arguments)


@pytest.mark.parametrize("name", CASES)
def test_results_repeat_and_views_are_read_as_tensors(name: str) -> None:
    logits, arguments = CASES[name]((2, 2, 2), (17, 33), [(0, 1), (2, 0)])
    view = logits.transpose(0, 1).contiguous().transpose(0, 1)
    *inputs, maps = arguments
    far = maps.mT.contiguous().mT
    first = _run(triton, name, logits, arguments)
    second = _run(triton, name, view, (*inputs, far))
    assert all(torch.equal(*both) for both in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits, arguments = CASES[name]((2, 2, 2), (9, 11), [(0, 1), (2, 0)])
    sums, weights, gradient = _run(triton, name, logits.to(dtype), arguments)
    assert gradient.dtype == dtype
    expected = _run(triton, name, logits.to(dtype).float(), arguments)
    torch.testing.assert_close(sums, expected[0])
    torch.testing.assert_close(weights, expected[1])
    torch.testing.assert_close(gradient, expected[2].to(dtype))


@pytest.mark.parametrize("name", CASES)
def test_double_precision_is_left_to_the_plain_sums(name: str) -> None:
    logits, arguments = CASES[name]((1, 2, 2), (5, 7), [(0, 1)])
    arguments = tuple(map(_double, arguments))
    got = _run(triton, name, logits.double(), arguments)
    expected = _run(dense, name, logits.double(), arguments)
    assert all(torch.equal(*both) for both in zip(got, expected, strict=True))


def test_the_gradient_has_no_gradient() -> None:
    logits, arguments = _spatial_case((1, 1, 1), (5, 7), [(0, 1)])
    logits = logits.to(DEVICE).requires_grad_()
    sums, _ = triton.spatial_pairwise_sums(logits, *map(_on_device, arguments))
    (gradient,) = torch.autograd.grad(sums.square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_shapes_that_disagree_are_errors() -> None:
    logits, arguments = _spatial_case((1, 2, 2), (5, 7), [(0, 1)])
    logits, (edges, offsets, boxes) = logits.to(DEVICE), map(_on_device, arguments)
    with pytest.raises(ValueError, match=r"box_maps: expected shape \(2, 2, 5, 7\)"):
        triton.spatial_pairwise_sums(logits, edges, offsets, boxes[:1])
    with pytest.raises(ValueError, match=r"edges\[0\]: expected shape \(2, 2, 5, 6\)"):
        triton.spatial_pairwise_sums(logits, [edges[0][..., :1]], offsets, boxes)
    matches, pairs, offsets, regions = map(
        _on_device, _temporal_case((1, 2, 2), (5, 7), [(0, 1)])[1]
    )
    with pytest.raises(ValueError, match="matches: expected shape"):
        triton.temporal_pairwise_sums(logits, matches, pairs, [*offsets, (1, 1)], regions)
    with pytest.raises(ValueError, match="regions: expected shape"):
        triton.temporal_pairwise_sums(logits, matches, pairs, offsets, regions[0])
    with pytest.raises(ValueError, match="frames 0 to 1"):
        triton.temporal_pairwise_sums(logits, matches, [(0, 2)], offsets, regions)


def test_the_tiny_case_that_decides_for_a_gpu_runs() -> None:
    assert triton._runs_on(DEVICE)


@pytest.mark.parametrize("name", CASES)
def test_cpu_without_the_interpreter_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "_IS_INTERPRETED", False)
    assert not triton.is_available(CPU)
    logits, arguments = CASES[name]((1, 1, 2), (3, 4), [(0, 1)])
    with pytest.raises(RuntimeError, match="CUDA devices, got a tensor on cpu"):
        getattr(triton, name)(logits, *arguments)
