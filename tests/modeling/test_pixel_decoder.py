"""Pixel decoder: shapes, initial weights, precision, configuration."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling import pixel_decoder
from maskfreevis_ext.modeling.pixel_decoder import MSDeformAttn, MSDeformAttnPixelDecoder

CHANNELS = {"res2": 6, "res3": 8, "res4": 10, "res5": 12}


def _decoder(**changes: object) -> MSDeformAttnPixelDecoder:
    shapes = {
        name: ShapeSpec(channels=channels, stride=4 * 2**i)
        for i, (name, channels) in enumerate(CHANNELS.items())
    }
    arguments = {
        "transformer_in_features": ["res3", "res4", "res5"],
        "num_heads": 4,
        "num_layers": 2,
        "dropout": 0.0,
        "conv_dim": 24,
        "mask_dim": 20,
        "norm": "GN",
        "common_stride": 4,
        "dim_feedforward": 32,
    }
    return MSDeformAttnPixelDecoder(shapes, **(arguments | changes))


def _features(batch: int = 2, height: int = 32, width: int = 64) -> dict[str, Tensor]:
    return {
        name: torch.randn(batch, channels, height // 4 // 2**i, width // 4 // 2**i)
        for i, (name, channels) in enumerate(CHANNELS.items())
    }


def test_pixel_decoder_output_shapes() -> None:
    mask_features, maps = _decoder()(_features())
    assert mask_features.shape == (2, 20, 8, 16)
    assert [tuple(m.shape) for m in maps] == [(2, 24, 1, 2), (2, 24, 2, 4), (2, 24, 4, 8)]


@pytest.mark.parametrize("sizes", [[(9, 13), (5, 7), (3, 4), (2, 2)], [(1, 1)] * 4])
def test_pixel_decoder_takes_odd_maps(sizes: list[tuple[int, int]]) -> None:
    features = {
        name: torch.randn(1, channels, *size)
        for (name, channels), size in zip(CHANNELS.items(), sizes, strict=True)
    }
    mask_features, maps = _decoder()(features)
    assert mask_features.shape[-2:] == sizes[0]
    assert [m.shape[-2:] for m in maps] == sizes[:0:-1]


def test_pixel_decoder_frames_are_independent() -> None:
    decoder, features = _decoder().eval(), _features(batch=3)
    mask_features, maps = decoder(features)
    alone_features, alone_maps = decoder({name: m[1:2] for name, m in features.items()})
    torch.testing.assert_close(mask_features[1:2], alone_features, rtol=1e-4, atol=1e-5)
    for together, alone in zip(maps, alone_maps, strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_pixel_decoder_under_float16_autocast_is_float32() -> None:
    decoder, features = _decoder().eval(), _features()
    features = {name: m.half() for name, m in features.items()}
    expected, _ = decoder({name: m.float() for name, m in features.items()})
    with torch.autocast("cpu", dtype=torch.float16):
        mask_features, maps = decoder(features)
    assert mask_features.dtype == maps[0].dtype == torch.float32
    assert torch.equal(mask_features, expected)


@pytest.mark.parametrize("size", [(32, 64), (256, 256)])  # grid_sample, and the sparse kernels
def test_pixel_decoder_under_bfloat16_autocast_is_near_float32(size: tuple[int, int]) -> None:
    """Outputs, and gradients, which differ more, where rounding changes the side of a ReLU."""
    decoder, features = _decoder(), _features(1, *size)
    weight = torch.randn(1, 20, size[0] // 4, size[1] // 4)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            mask_features, maps = decoder(features)
        assert mask_features.dtype == (torch.bfloat16 if enabled else torch.float32)
        (mask_features.float() * weight).mean().backward()
        gradients = [p.grad.flatten() for p in decoder.parameters() if p.grad is not None]
        results.append([torch.cat(gradients), mask_features, *maps])
        decoder.zero_grad()
    for i, (expected, got) in enumerate(zip(*results, strict=True)):
        assert (got.float() - expected).norm() < (0.02 if i else 0.2) * expected.norm()


def test_sampling_positions_and_weights_stay_float32_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def keep(value: Tensor, shapes: object, locations: Tensor, weights: Tensor) -> Tensor:
        seen.append((locations.dtype, weights.dtype))
        return value.flatten(2)

    monkeypatch.setattr(pixel_decoder, "multi_scale_deformable_attention", keep)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _decoder()(_features())
    assert seen == [(torch.float32, torch.float32)] * 2


def test_pixel_decoder_in_bfloat16_is_near_float32() -> None:
    decoder, features = _decoder().eval(), _features()
    expected, _ = decoder(features)
    mask_features, _ = decoder.bfloat16()(features)
    assert mask_features.dtype == torch.bfloat16
    assert (mask_features.float() - expected).norm() < 0.05 * expected.norm()


def test_pixel_decoder_every_parameter_gets_a_gradient() -> None:
    decoder = _decoder()
    mask_features, maps = decoder(_features())
    weights = [torch.randn_like(x) for x in (mask_features, *maps)]
    sum((x * w).sum() for x, w in zip((mask_features, *maps), weights, strict=True)).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": ""},
        {"norm": "BN"},
        {"common_stride": 8},
        {"transformer_in_features": ["res5"]},
        {"transformer_in_features": ["res2", "res3", "res4", "res5"]},
        {"num_layers": 0},
        {"conv_dim": 20, "num_heads": 5},
    ],
)
def test_pixel_decoder_variants_run(changes: dict[str, object]) -> None:
    decoder = _decoder(**changes)
    mask_features, maps = decoder(_features())
    assert len(maps) == len(changes.get("transformer_in_features", [0, 0, 0]))
    assert torch.isfinite(mask_features).all()
    if changes.get("transformer_in_features") == ["res5"]:
        # Three steps from stride 32 to stride 4; the last has number 1.
        assert decoder.adapter_1.in_channels == CHANNELS["res2"]
        assert decoder.layer_3.in_channels == 24
        assert mask_features.shape[-2:] == (8, 16)


def test_deformable_attention_starts_with_points_in_a_star() -> None:
    layer = MSDeformAttn(dim=32, num_levels=3, num_heads=8)
    assert layer.sampling_offsets.weight.abs().max() == 0
    offsets = layer.sampling_offsets.bias.view(8, 3, 4, 2)
    for head in range(8):
        direction = (math.cos(head * math.pi / 4), math.sin(head * math.pi / 4))
        scale = max(abs(direction[0]), abs(direction[1]))
        for point in range(4):
            expected = [(point + 1) * d / scale for d in direction]
            for level in range(3):
                assert offsets[head, level, point].tolist() == pytest.approx(expected, abs=1e-5)
    assert layer.attention_weights.weight.abs().max() == 0
    assert layer.value_proj.bias.abs().max() == 0


def test_pixel_decoder_bad_config_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"CONVS_DIM must be even and a multiple .* got 30"):
        _decoder(conv_dim=30)
    with pytest.raises(ConfigError, match=r"ENCODER_IN_FEATURES must name .* got \['res6'\]"):
        _decoder(transformer_in_features=["res6"])
