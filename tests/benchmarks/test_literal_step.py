"""The literal attention layer in a model: the values of the package's layer."""

from __future__ import annotations

import torch

from benchmarks.jobs.deform_attn import level_shapes
from benchmarks.literal.step import GridSampleMSDeformAttn, weighted
from benchmarks.options import parse_args
from maskfreevis_ext.modeling.pixel_decoder import MSDeformAttn


def test_default_levels_of_the_attention_have_the_tokens_of_the_readme() -> None:
    shapes = level_shapes(parse_args(["deform_attn"]))
    assert sum(height * width for height, width in shapes) == 5040


def test_literal_attention_layer_equals_that_of_the_package() -> None:
    torch.manual_seed(0)
    shapes = [(2, 3), (4, 6)]
    layer = MSDeformAttn(dim=8, num_levels=2, num_heads=2, num_points=3)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(layer.attention_weights.weight)
    literal = GridSampleMSDeformAttn(
        num_heads=2,
        num_levels=2,
        num_points=3,
        sampling_offsets=layer.sampling_offsets,
        attention_weights=layer.attention_weights,
        value_proj=layer.value_proj,
        output_proj=layer.output_proj,
    )
    tokens, places = torch.randn(2, 30, 8), torch.rand(30, 2)
    expected = layer(tokens, places, tokens, shapes)
    torch.testing.assert_close(literal(tokens, places, tokens, shapes), expected)


def test_losses_of_auxiliary_outputs_have_the_weight_of_their_term() -> None:
    losses = {"loss_ce": torch.tensor(1.0), "loss_ce_10": torch.tensor(2.0)}
    assert weighted(losses, {"loss_ce": 3.0}) == {"loss_ce": 3.0, "loss_ce_10": 6.0}
