"""Sizes of the attention, and weights of the literal losses."""

from __future__ import annotations

import torch

from benchmarks.jobs.deform_attn import level_shapes
from benchmarks.literal.step import weighted
from benchmarks.options import parse_args


def test_default_levels_of_the_attention_have_the_tokens_of_the_readme() -> None:
    shapes = level_shapes(parse_args(["deform_attn"]))
    assert sum(height * width for height, width in shapes) == 5040


def test_losses_of_auxiliary_outputs_have_the_weight_of_their_term() -> None:
    losses = {"loss_ce": torch.tensor(1.0), "loss_ce_10": torch.tensor(2.0)}
    assert weighted(losses, {"loss_ce": 3.0}) == {"loss_ce": 3.0, "loss_ce_10": 6.0}
