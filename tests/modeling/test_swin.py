"""Swin backbone: windows, masks, sizes, training switches."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.modeling.backbone.swin import SwinTransformer
from maskfreevis_ext.modeling.backbone.swin_blocks import (
    DropPath,
    PatchMerging,
    _from_windows,
    _relative_position_index,
    _shift_mask,
    _to_windows,
)


def _tiny(**changes: object) -> SwinTransformer:
    arguments = {
        "embed_dim": 8,
        "depths": [2, 2, 2, 2],
        "num_heads": [1, 2, 2, 2],
        "window_size": 3,
    }
    return SwinTransformer(**(arguments | changes))


def test_windows_round_trip() -> None:
    x = torch.randn(2, 6, 9, 4)
    windows = _to_windows(x, 3)
    assert windows.shape == (2 * 6, 9, 4)
    assert torch.equal(windows[1], x[0, :3, 3:6].reshape(9, 4))
    assert torch.equal(_from_windows(windows, 3, 6, 9), x)


def test_relative_position_index_depends_on_the_offset_only() -> None:
    side = 4
    index = _relative_position_index(side)
    rows = {}
    for a in range(side * side):
        for b in range(side * side):
            offset = (a // side - b // side, a % side - b % side)
            assert rows.setdefault(offset, index[a, b].item()) == index[a, b].item()
    assert sorted(rows.values()) == list(range((2 * side - 1) ** 2))


def test_shift_mask_allows_former_neighbours_only() -> None:
    side, shift, height, width = 4, 2, 8, 12
    mask = _shift_mask(height, width, side, shift, torch.device("cpu"))
    place = torch.arange(height * width).view(1, height, width, 1)
    place = _to_windows(place.roll((-shift, -shift), dims=(1, 2)), side).squeeze(2)
    for window, allowed in zip(place, mask, strict=True):
        y, x = window // width, window % width
        # Cells that came around the edge are far from the others of their window.
        near = ((y[:, None] - y).abs() < side) & ((x[:, None] - x).abs() < side)
        assert torch.equal(allowed, near)


def test_patch_merging_pads_odd_maps() -> None:
    assert PatchMerging(4)(torch.randn(2, 5, 7, 4)).shape == (2, 3, 4, 8)


@pytest.mark.parametrize("size", [(32, 64), (33, 50), (8, 8)])
def test_swin_outputs_fit_any_size(size: tuple[int, int]) -> None:
    backbone = _tiny().eval()
    outputs = backbone(torch.randn(2, 3, *size))
    height, width = (-(-length // 4) for length in size)
    for name, spec in backbone.output_shape().items():
        assert outputs[name].shape == (2, spec.channels, height, width)
        assert outputs[name].is_contiguous()
        height, width = -(-height // 2), -(-width // 2)
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32]


def test_swin_images_do_not_influence_each_other() -> None:
    backbone = _tiny().eval()
    images = torch.randn(2, 3, 40, 40)
    together = backbone(images)
    alone = backbone(images[1:])
    for name in together:
        torch.testing.assert_close(together[name][1:], alone[name], rtol=1e-4, atol=1e-5)


def test_swin_gives_asked_outputs_and_keeps_all_norms() -> None:
    backbone = _tiny(out_features=["res3", "res5"]).eval()
    assert list(backbone(torch.randn(1, 3, 32, 32))) == ["res3", "res5"]
    assert "norm0.weight" in backbone.state_dict()


def test_swin_checkpointing_gives_the_same_gradients() -> None:
    images = torch.randn(1, 3, 32, 32)
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(1)
        backbone = _tiny(use_checkpoint=use_checkpoint, drop_path_rate=0.0).train()
        sum(output.square().mean() for output in backbone(images).values()).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_swin_absolute_position_embedding_is_resized() -> None:
    backbone = _tiny(ape=True, pretrain_img_size=64).eval()
    assert backbone.state_dict()["absolute_pos_embed"].shape == (1, 8, 16, 16)
    assert backbone(torch.randn(1, 3, 40, 24))["res2"].shape == (1, 8, 10, 6)


def test_swin_initial_weights() -> None:
    backbone = _tiny(embed_dim=32)
    qkv = backbone.layers[0].blocks[0].attn.qkv
    assert qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert qkv.bias.abs().max() == 0
    assert [layer.prob for layer in backbone.modules() if isinstance(layer, DropPath)] == (
        pytest.approx(torch.linspace(0, 0.2, 8).tolist())
    )


def test_drop_path_keeps_the_mean_and_whole_samples() -> None:
    layer = DropPath(0.25).train()
    output = layer(torch.ones(4000, 3, 2))
    assert output.mean().item() == pytest.approx(1.0, abs=0.05)
    assert output.flatten(1).unique(dim=0).tolist() == [[0.0] * 6, [pytest.approx(1 / 0.75)] * 6]
    assert torch.equal(layer.eval()(torch.ones(5, 2)), torch.ones(5, 2))


def test_swin_runs_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = _tiny()(torch.randn(1, 3, 32, 32))
    assert all(torch.isfinite(output).all() for output in outputs.values())
