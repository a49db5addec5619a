"""Masks of matched queries: the gradient of their product, in half precision too."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.losses.matched_masks import matched_masks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e6, 1e-5])
def test_gradient_of_half_precision_masks_is_not_rounded(dtype: torch.dtype, scale: float) -> None:
    """float16 has no value for the gradient of a cell here, but for that of an embedding."""
    embed = torch.full((1, 2, 4), 1e-2 if scale > 1 else 50.0, dtype=dtype, requires_grad=True)
    features = torch.full((1, 4, 1, 20, 20), 1e-3 if scale > 1 else 50.0, dtype=dtype)
    features.requires_grad_()
    with torch.no_grad():
        masks = torch.einsum("bqd,bdthw->bqthw", embed, features)
    layers = [{"pred_masks": masks, "mask_embed": embed, "mask_features": features}]
    matched = matched_masks(
        layers, torch.zeros(1, dtype=torch.int64), torch.tensor([[1]]), torch.zeros(1)
    )
    assert matched.logits.dtype == torch.float32
    (matched.logits * scale).mean().backward()
    expected = scale * features.detach().float().mean((0, 2, 3, 4))
    assert torch.isfinite(features.grad).all()
    torch.testing.assert_close(embed.grad[0, 1].float(), expected, rtol=1e-2, atol=0)
    assert (embed.grad[0, 0] == 0).all()
