"""Multi-scale deformable attention of the pixel decoder; B counts frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.literal.deform_attn import grid_sample_attention
from benchmarks.measure import Side, measure
from benchmarks.options import Options
from benchmarks.predictions import leaves_of
from benchmarks.report import Result, relative_difference
from benchmarks.scene import SIZE_DIVISIBILITY
from maskfreevis_ext.ops.deform_attn import multi_scale_deformable_attention


def run(options: Options) -> Result:
    """Measure the attention, without the linear layers around it."""
    torch.manual_seed(options.seed)
    shapes = level_shapes(options)
    inputs = _attention_inputs(options, shapes)
    weight = torch.randn(
        inputs[0].shape[0], inputs[1].shape[1], options.channels, device=options.device
    )
    functions = {"literal": grid_sample_attention, "ours": multi_scale_deformable_attention}

    def side(name: str, baseline: str) -> Side:
        value, locations, weights = leaves = leaves_of(inputs)

        def forward() -> Tensor:
            return (functions[name](value, shapes, locations, weights) * weight).sum()

        start = "projected values, locations and weights, all with gradients"
        return Side(name, start, forward, leaves, baseline)

    def values(side: Side) -> dict[str, Tensor]:
        side.clear()
        side.run()
        value, locations, weights = side.leaves
        found = {"output": functions[side.name](value, shapes, locations, weights)}
        for name, leaf in zip(("value", "locations", "weights"), side.leaves, strict=True):
            assert leaf.grad is not None
            found[f"gradient of {name}"] = leaf.grad
        return found

    literal, ours = sides = [side("literal", ""), side("ours", "literal")]
    figures = measure(sides, options)
    expected, found = values(literal), values(ours)
    differences = {name: relative_difference(found[name], expected[name]) for name in expected}
    tokens = sum(height * width for height, width in shapes)
    note = (
        f"{tokens} tokens in {options.levels} levels, {options.heads} heads, "
        f"{options.channels} channels"
    )
    return Result(sides, figures, differences, {"tokens": tokens}, [note])


def level_shapes(options: Options) -> list[tuple[int, int]]:
    """(height, width) of the maps of the encoder, coarse first."""
    coarse = [math.ceil(length / SIZE_DIVISIBILITY) for length in (options.height, options.width)]
    return [(coarse[0] * 2**k, coarse[1] * 2**k) for k in range(options.levels)]


def _attention_inputs(
    options: Options, shapes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (B, S, heads, D), locations (B, S, heads, K, P, 2) near each token, and weights."""
    centers = []
    for height, width in shapes:
        y, x = (torch.arange(n) + 0.5 for n in (height, width))
        y, x = torch.meshgrid(y / height, x / width, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    center = torch.cat(centers)[None, :, None, None, None]
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=torch.float32)
    batch, tokens = options.batch, center.shape[1]
    # up to P cells away, as the initial weights of the layer have it
    shape = (batch, tokens, options.heads, len(shapes), options.sampling_points)
    offsets = torch.randn(*shape, 2) * options.sampling_points / 2
    locations = center + offsets / sizes[:, None]
    weights = torch.randn(*shape).flatten(3).softmax(-1).view(shape)
    value = torch.randn(batch, tokens, options.heads, options.channels // options.heads)
    return value.to(options.device), locations.to(options.device), weights.to(options.device)
