"""The sums of ``dense.py`` as fused Triton kernels, which store no map of single pairs.

``spatial_pairwise_sums`` and ``temporal_pairwise_sums`` have the same signatures and results as in
``dense.py``. The gradient has the closed form of ``listed.py``. Each program writes only the cells
of its own tile, and torch adds the results of several programs in a fixed order. There are no
atomic operations, so results are the same bit by bit in every run.

One kernel serves both losses: for a frame pair (a, b) and an offset o, the cell p of frame b and
the cell p + o of frame a are a pair with a weight. Spatial pairs of a frame t use the frame pair
(t, t) and the weight (box at p + box at p + o) * edge; the temporal weight is region at p * match.

The module imports without Triton. With TRITON_INTERPRET=1 set before the import the kernels run
on the CPU, slowly, for tests.

Shape letters: K decoder outputs, N objects, T frames, E frame pairs, R offsets, (h, w) map; F
maps of an object (T spatial, 1 temporal), S tiles of a map.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskfreevis_ext.losses.pairwise import dense
from maskfreevis_ext.ops.neighbors import Offset, pair_slices
from maskfreevis_ext.ops.reduce import send

try:
    import triton
    import triton.language as tl
except (ImportError, OSError, RuntimeError):  # absent, or installed but not loadable
    triton = None

# Cells of a program, powers of 2; a row of 32 logits fills one cache line.
_TILE_ROWS, _TILE_COLS = 16, 32

if triton is not None:

    @triton.jit
    def _tile_cells(tile, height, width, ROWS: tl.constexpr, COLS: tl.constexpr):
        """Rows and columns of a tile's cells, and which are on the map; each (ROWS * COLS,)."""
        cell = tl.arange(0, ROWS * COLS)
        num_across = (width + COLS - 1) // COLS
        y = tile // num_across * ROWS + cell // COLS
        x = tile % num_across * COLS + cell % COLS
        return y, x, (y < height) & (x < width)

    @triton.jit
    def _sigmoid(x):
        """Sigmoid without overflow."""
        small = tl.exp(-tl.abs(x))
        return tl.where(x >= 0, 1.0, small) / (1.0 + small)

    @triton.jit
    def _same_label_nll(a, b):
        """``dense.same_label_nll`` with one logarithm."""
        size_a, size_b = tl.abs(a), tl.abs(b)
        linear = tl.where((a < 0) != (b < 0), tl.minimum(size_a, size_b), 0.0)
        exp_a, exp_b, exp_ab = tl.exp(-size_a), tl.exp(-size_b), tl.exp(-tl.abs(a + b))
        # (1 + exp_a) (1 + exp_b) / (1 + exp_ab) - 1; labels that are sure and equal make it tiny,
        # hence log(1 + x) with the rounding of 1 + x taken back
        x = (exp_a + exp_b + exp_a * exp_b - exp_ab) / (1.0 + exp_ab)
        rounded = 1.0 + x
        step = rounded - 1.0
        curved = tl.where(step == 0, x, tl.log(rounded) * (x / tl.where(step == 0, 1.0, step)))
        return linear + curved

    @triton.jit
    def _partner(
        r, y, x, inside, logits, flags, boxes, offsets, height, width,
        SIGN: tl.constexpr, SPATIAL: tl.constexpr,
    ):  # fmt: skip
        """Pairs of a tile's cells at offset ``r``; a cell is p (SIGN 1) or p + offset (SIGN -1).

        Returns the weight of p (for SIGN 1), the weight of the pair (0 where one of its cells is
        off the map), and the logit of the other cell, which is read only where there is a weight.
        """
        other_y = y + SIGN * tl.load(offsets + 2 * r)
        other_x = x + SIGN * tl.load(offsets + 2 * r + 1)
        both = inside & (other_y >= 0) & (other_y < height) & (other_x >= 0) & (other_x < width)
        own_cell = y * width + x
        other_cell = other_y * width + other_x
        if SIGN > 0:
            start, end, is_start = own_cell, other_cell, inside
        else:
            start, end, is_start = other_cell, own_cell, both
        weight = tl.load(boxes + start, mask=is_start, other=0.0)
        if SPATIAL:
            weight += tl.load(boxes + end, mask=both, other=0.0)
        flag = tl.load(flags + r * height * width + start, mask=is_start & (weight != 0), other=0)
        weight = tl.where(flag != 0, weight, 0.0)
        of_pair = tl.where(both, weight, 0.0)
        other = tl.load(logits + other_cell, mask=of_pair != 0, other=0.0).to(tl.float32)
        return weight, of_pair, other

    @triton.jit
    def _forward_kernel(
        logits, flags, boxes, near, pairs, offsets, sums, weights,
        num_outputs, num_frames, num_pairs, num_offsets, num_tiles, height, width,
        SPATIAL: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        """Sum and weight of one tile of one frame pair of one object at one output."""
        # Programs that run together differ in the output and the frame pair first, so that they
        # find the weights and the other frames of the object in the cache.
        place = tl.program_id(0)
        k = place % num_outputs
        e = place // num_outputs % num_pairs
        tile = place // num_outputs // num_pairs
        n = tl.program_id(1).to(tl.int64)  # 32 bits would not do for large batches
        kn = k * tl.num_programs(1).to(tl.int64) + n
        ne = n * num_pairs + e
        plane = height * width
        if SPATIAL:
            nf = ne
        else:
            nf = n
        total = tl.zeros([ROWS * COLS], tl.float32)
        count = tl.zeros([ROWS * COLS], tl.float32)
        if tl.load(near + nf * num_tiles + tile) != 0:
            first = kn * num_frames + tl.load(pairs + 2 * e)
            second = kn * num_frames + tl.load(pairs + 2 * e + 1)
            y, x, inside = _tile_cells(tile, height, width, ROWS, COLS)
            own = tl.load(logits + second * plane + y * width + x, mask=inside, other=0.0)
            own = own.to(tl.float32)
            for r in range(num_offsets):
                weight, of_pair, other = _partner(
                    r, y, x, inside, logits + first * plane, flags + ne * num_offsets * plane,
                    boxes + nf * plane, offsets, height, width, 1, SPATIAL,
                )  # fmt: skip
                # not 0 * NaN, where a logit without a pair is not finite
                total += tl.where(of_pair != 0, of_pair * _same_label_nll(own, other), 0.0)
                count += weight
        tl.store(sums + (kn * num_pairs + e) * num_tiles + tile, tl.sum(total, 0))
        if k == 0:
            tl.store(weights + ne * num_tiles + tile, tl.sum(count, 0))

    @triton.jit
    def _gradient_from(
        own, y, x, inside, logits, flags, boxes, offsets, num_offsets, height, width,
        SIGN: tl.constexpr, SPATIAL: tl.constexpr,
    ):  # fmt: skip
        """Sum over the partners of each cell of weight * (sigmoid(a) - sigmoid(a + b))."""
        prob = _sigmoid(own)
        gradient = tl.zeros_like(own)
        for r in range(num_offsets):
            _, of_pair, other = _partner(
                r, y, x, inside, logits, flags, boxes, offsets, height, width, SIGN, SPATIAL
            )
            difference = prob - _sigmoid(own + other)
            gradient += tl.where(of_pair != 0, of_pair * difference, 0.0)
        return gradient

    @triton.jit
    def _backward_kernel(
        logits, flags, boxes, near, pairs, offsets, upstream, gradients,
        num_outputs, num_frames, num_pairs, num_offsets, num_tiles, height, width,
        SPATIAL: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        """Gradient of one tile of one frame of one object at one output, from all its pairs."""
        place = tl.program_id(0)
        k = place % num_outputs
        t = place // num_outputs % num_frames
        tile = place // num_outputs // num_frames
        n = tl.program_id(1).to(tl.int64)
        kn = k * tl.num_programs(1).to(tl.int64) + n
        plane = height * width
        y, x, inside = _tile_cells(tile, height, width, ROWS, COLS)
        cells = (kn * num_frames + t) * plane + y * width + x
        gradient = tl.zeros([ROWS * COLS], tl.float32)
        for e in range(num_pairs):
            first, second = tl.load(pairs + 2 * e), tl.load(pairs + 2 * e + 1)
            ne = n * num_pairs + e
            if SPATIAL:
                nf = ne
            else:
                nf = n
            if ((first == t) | (second == t)) & (tl.load(near + nf * num_tiles + tile) != 0):
                own = tl.load(logits + cells, mask=inside, other=0.0).to(tl.float32)
                factor = tl.load(upstream + kn * num_pairs + e)
                flags_here, boxes_here = flags + ne * num_offsets * plane, boxes + nf * plane
                if second == t:
                    gradient += factor * _gradient_from(
                        own, y, x, inside, logits + (kn * num_frames + first) * plane, flags_here,
                        boxes_here, offsets, num_offsets, height, width, 1, SPATIAL,
                    )  # fmt: skip
                if first == t:
                    gradient += factor * _gradient_from(
                        own, y, x, inside, logits + (kn * num_frames + second) * plane, flags_here,
                        boxes_here, offsets, num_offsets, height, width, -1, SPATIAL,
                    )  # fmt: skip
        tl.store(gradients + cells, gradient, mask=inside)

    # The interpreter is chosen when a kernel is defined.
    _IS_INTERPRETED = not isinstance(_forward_kernel, triton.JITFunction)


def is_available(device: torch.device) -> bool:
    """Whether the kernels of this module run on a device.

    Triton needs a C compiler and the headers of Python, which not every machine has. So the first
    call for a GPU compiles and runs both kernels on a tiny case; a failure is logged once. On the
    CPU the kernels run only in Triton's interpreter.
    """
    if triton is None:
        return False
    if device.type == "cpu":
        return _IS_INTERPRETED
    return device.type == "cuda" and _runs_on(device)


@functools.cache
def _runs_on(device: torch.device) -> bool:
    """Whether both kernels can be compiled and run on a GPU, with a tiny case."""
    try:
        maps = torch.ones(1, 1, 1, 1, device=device)
        with torch.enable_grad():
            logits = maps[None].requires_grad_()
            sums, _ = _PairSums.apply(logits, maps[None].bool(), maps, ((0, 0),), ((0, 0),), True)
            torch.autograd.grad(sums.sum(), logits)  # compiles the kernel of the gradient too
    except Exception as error:  # many kinds: no compiler, no header, no driver, an old GPU
        logging.getLogger(__name__).warning(
            "The pairwise losses run without their Triton kernels on %s: %s: %s",
            device,
            type(error).__name__,
            error,
        )
        return False
    return True


def spatial_pairwise_sums(
    mask_logits: Tensor,
    edges: Sequence[Tensor],
    offsets: Sequence[Offset],
    box_maps: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fused version of ``dense.spatial_pairwise_sums``, which gives the formula.

    Half precision is computed and returned in float32; float64 is computed by ``dense``. Logits of
    cells without a pair of weight > 0 are not read, so that a NaN there does not reach the sums.
    Only the logits have a gradient, which cannot be differentiated again.

    Args:
        mask_logits: (K, N, T, h, w).
        edges: For each of the offsets, (N, T, h', w'), bool.
        offsets: The half offsets.
        box_maps: Filled boxes, (N, T, h, w), values in [0, 1].

    Returns:
        Sums (K, N) and weights (N,), float32.

    Raises:
        RuntimeError: There is no Triton for the device.
        ValueError: Shapes disagree.
    """
    _require(mask_logits.device)
    if _is_left_to_dense(mask_logits, box_maps):
        return dense.spatial_pairwise_sums(mask_logits, edges, offsets, box_maps)
    num_frames, height, width = mask_logits.shape[2:]
    _check_shape("box_maps", box_maps, mask_logits.shape[1:])
    frames = mask_logits.shape[1:3]
    flags = torch.zeros(
        (*frames, len(offsets), height, width), dtype=torch.bool, device=mask_logits.device
    )
    for index, (offset, edge) in enumerate(zip(offsets, edges, strict=True)):
        window = flags[:, :, index][(..., *pair_slices(offset, height, width)[0])]
        _check_shape(f"edges[{index}]", edge, window.shape)
        window.copy_(edge)
    pairs = tuple((frame, frame) for frame in range(num_frames))
    sums, weights = _PairSums.apply(mask_logits, flags, box_maps, pairs, tuple(offsets), True)
    return sums.sum(-1), weights.sum(-1)


def temporal_pairwise_sums(
    mask_logits: Tensor,
    matches: Tensor,
    pairs: Sequence[tuple[int, int]],
    offsets: Sequence[Offset],
    regions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fused version of ``dense.temporal_pairwise_sums``, which gives the formula.

    Precision, gradients and the handling of NaN are as in ``spatial_pairwise_sums``.

    Args:
        mask_logits: (K, N, T, h, w).
        matches: (N, E, R, h, w), bool; at p, whether p + offset of frame a matches p of frame b.
        pairs: E pairs (a, b).
        offsets: R offsets.
        regions: Cells p that count, (N, h, w), values 0 or 1.

    Returns:
        Sums (K, N, E) and weights (N, E), float32.

    Raises:
        RuntimeError: There is no Triton for the device.
        ValueError: Shapes disagree, or a pair names a frame that is not there.
    """
    _require(mask_logits.device)
    if _is_left_to_dense(mask_logits, regions):
        return dense.temporal_pairwise_sums(mask_logits, matches, pairs, offsets, regions)
    num_objects, num_frames, height, width = mask_logits.shape[1:]
    # a kernel would silently read beyond the tensors
    _check_shape("regions", regions, (num_objects, height, width))
    _check_shape("matches", matches, (num_objects, len(pairs), len(offsets), height, width))
    if not all(0 <= frame < num_frames for pair in pairs for frame in pair):
        raise ValueError(f"pairs name frames 0 to {num_frames - 1}, got {list(pairs)}")
    return _PairSums.apply(
        mask_logits, matches, regions[:, None], tuple(pairs), tuple(offsets), False
    )


def _require(device: torch.device) -> None:
    """Raise a RuntimeError if kernels cannot run on the device; see ``is_available``."""
    if triton is None:
        raise RuntimeError(
            "losses.pairwise.triton needs Triton, which cannot be imported: pip install triton, or "
            "use losses.pairwise.dense"
        )
    if device.type != "cuda" and not (device.type == "cpu" and _IS_INTERPRETED):
        raise RuntimeError(
            f"losses.pairwise.triton runs on CUDA devices, got a tensor on {device}; use "
            "losses.pairwise.dense, or set TRITON_INTERPRET=1 before the import to run it on the "
            "CPU for tests"
        )


def _is_left_to_dense(mask_logits: Tensor, maps: Tensor) -> bool:
    """Whether ``dense`` must compute it: float64 logits, or K = 0 (weights without sums)."""
    return torch.float64 in (mask_logits.dtype, maps.dtype) or len(mask_logits) == 0


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Raise a ValueError if a tensor has another shape."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")


class _PairSums(torch.autograd.Function):
    """Weighted sums (K, N, E) and weights (N, E) of the frame pairs."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        flags: Tensor,
        maps: Tensor,
        pairs: tuple[tuple[int, int], ...],
        offsets: tuple[Offset, ...],
        is_spatial: bool,
    ) -> tuple[Tensor, Tensor]:
        """Run the forward kernel; ``flags`` is (N, E, R, h, w), bool, and ``maps`` (N, F, h, w)."""
        logits, flags = logits.contiguous(), flags.bool().contiguous().view(torch.uint8)
        maps = maps.float().contiguous()
        ctx.settings = pairs, offsets, is_spatial
        if logits.numel() == 0 or flags.numel() == 0:  # there is nothing to launch
            ctx.save_for_backward(logits)
            sums = logits.new_zeros((*logits.shape[:2], len(pairs)), dtype=torch.float32)
            weights = sums.new_zeros(sums.shape[1:])
        else:
            near = _tiles_near(maps, offsets)
            inputs = logits, flags, maps, near
            ctx.save_for_backward(*inputs)
            shape = *logits.shape[:2], len(pairs), near.shape[2]
            tile_sums = logits.new_empty(shape, dtype=torch.float32)
            tile_weights = tile_sums.new_empty(shape[1:])
            outputs = tile_sums, tile_weights
            _launch(_forward_kernel, len(pairs), inputs, outputs, *ctx.settings)
            sums, weights = tile_sums.sum(-1), tile_weights.sum(-1)
        ctx.mark_non_differentiable(weights)
        return sums, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the mask logits; ``upstream`` is (K, N, E)."""
        logits, *rest = ctx.saved_tensors
        if not rest:
            return torch.zeros_like(logits), *[None] * 5
        gradients = torch.empty_like(logits)
        tensors = upstream.float().contiguous(), gradients
        _launch(_backward_kernel, logits.shape[2], ctx.saved_tensors, tensors, *ctx.settings)
        return gradients, *[None] * 5


def _tiles_near(maps: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Whether a map has a value > 0 in a tile or within one offset of it.

    The programs of all other tiles have only pairs of weight 0 and read nothing.

    Args:
        maps: (N, F, h, w), float32.
        offsets: At least one.

    Returns:
        (N, F, S), uint8.
    """
    reach_y, reach_x = (max(abs(step) for step in steps) for steps in zip(*offsets, strict=True))
    rows, cols = _TILE_ROWS, _TILE_COLS
    near = F.max_pool2d(maps, (1, cols + 2 * reach_x), (1, cols), (0, reach_x), ceil_mode=True)
    near = F.max_pool2d(near, (rows + 2 * reach_y, 1), (rows, 1), (reach_y, 0), ceil_mode=True)
    return (near > 0).flatten(2).view(torch.uint8)


def _launch(
    kernel: "triton.JITFunction",
    num_planes: int,
    inputs: Sequence[Tensor],
    others: Sequence[Tensor],
    pairs: tuple[tuple[int, int], ...],
    offsets: tuple[Offset, ...],
    is_spatial: bool,
) -> None:
    """Run a kernel, one program for each decoder output, object, plane and tile.

    Args:
        kernel: ``_forward_kernel`` or ``_backward_kernel``.
        num_planes: Frame pairs or frames.
        inputs: Logits (K, N, T, h, w), flags (N, E, R, h, w), maps (N, F, h, w), near (N, F, S).
        others: The tensors that the kernel takes after the tables.
        pairs: E pairs.
        offsets: R offsets.
        is_spatial: Weights of the spatial loss; False: of the temporal loss.
    """
    logits, near = inputs[0], inputs[3]
    num_outputs, num_objects, num_frames, height, width = logits.shape
    tables = _table(pairs, logits.device), _table(offsets, logits.device)
    grid = num_outputs * num_planes * near.shape[2], num_objects
    sizes = num_outputs, num_frames, len(pairs), len(offsets), near.shape[2], height, width
    with torch.cuda.device_of(logits):
        kernel[grid](
            *inputs, *tables, *others, *sizes,
            SPATIAL=is_spatial, ROWS=_TILE_ROWS, COLS=_TILE_COLS,
        )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _table(rows: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Rows of two numbers as an int32 tensor on the device; cached between calls."""
    return send(torch.tensor(rows, dtype=torch.int32), device)
