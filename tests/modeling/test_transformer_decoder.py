"""Video decoder: attention, masks, any B and T, configuration."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.attention import MultiheadAttention
from maskfreevis_ext.modeling.transformer_decoder import VideoMultiScaleMaskedTransformerDecoder


def _decoder(**changes: object) -> VideoMultiScaleMaskedTransformerDecoder:
    arguments = {
        "num_classes": 3,
        "hidden_dim": 16,
        "mask_dim": 12,
        "num_queries": 7,
        "num_heads": 4,
        "dim_feedforward": 32,
        "num_layers": 4,
        "pre_norm": False,
        "enforce_input_proj": False,
    }
    return VideoMultiScaleMaskedTransformerDecoder(16, **(arguments | changes))


def _inputs(batch: int, frames: int, channels: int = 16) -> tuple[list[Tensor], Tensor]:
    """Encoded maps and mask features of odd sizes."""
    n = batch * frames
    maps = [torch.randn(n, channels, *size) for size in [(2, 3), (3, 5), (5, 9)]]
    return maps, torch.randn(n, 12, 9, 17)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_torch(masked: bool) -> None:
    ours, theirs = MultiheadAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    query, key, value = (torch.randn(2, length, 16) for length in (5, 9, 9))
    allowed = (torch.rand(2, 5, 9) > 0.5) | (torch.arange(9) == 0) if masked else None
    blocked = None if allowed is None else (~allowed).repeat_interleave(4, dim=0)
    expected = theirs(query, key, value, attn_mask=blocked, need_weights=False)[0]
    torch.testing.assert_close(ours(query, key, value, allowed), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 5), (2, 3), (3, 2), (6, 1)])
def test_decoder_output_shapes(batch: int, frames: int, pre_norm: bool) -> None:
    decoder = _decoder(pre_norm=pre_norm)
    outputs = decoder(*_inputs(batch, frames), num_frames=frames, return_aux=True)
    assert len(outputs["aux_outputs"]) == 4
    for output in (outputs, *outputs["aux_outputs"]):
        assert output["pred_logits"].shape == (batch, 7, 4)
        assert output["pred_masks"].shape == (batch, 7, frames, 9, 17)
        assert torch.isfinite(output["pred_masks"]).all()


def test_decoder_without_aux_gives_the_same_final_output() -> None:
    decoder, inputs = _decoder().eval(), _inputs(2, 2)
    plain = decoder(*inputs, num_frames=2)
    assert sorted(plain) == ["pred_logits", "pred_masks", "queries"]
    full = decoder(*inputs, num_frames=2, return_aux=True)
    for name in plain:
        torch.testing.assert_close(plain[name], full[name])


def test_decoder_clips_do_not_influence_each_other() -> None:
    decoder = _decoder()
    maps, mask_features = _inputs(3, 2)
    together = decoder(maps, mask_features, num_frames=2)
    alone = decoder([m[2:4] for m in maps], mask_features[2:4], num_frames=2)
    for name in alone:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-4, atol=1e-5)


def test_decoder_frames_of_a_clip_influence_each_other() -> None:
    decoder = _decoder()
    maps, mask_features = _inputs(1, 2)
    before = decoder(maps, mask_features, num_frames=2)["pred_logits"]
    maps = [torch.cat([m[:1], m[1:] + 1]) for m in maps]
    assert not torch.allclose(before, decoder(maps, mask_features, num_frames=2)["pred_logits"])


def test_decoder_masks_are_products_of_embedding_and_features() -> None:
    decoder, (maps, mask_features) = _decoder(num_layers=0), _inputs(2, 3)
    outputs = decoder(maps, mask_features, num_frames=3)
    embedding = decoder.mask_embed(decoder.decoder_norm(decoder.query_feat.weight))
    expected = torch.einsum("qc,btchw->bqthw", embedding, mask_features.view(2, 3, 12, 9, 17))
    torch.testing.assert_close(outputs["pred_masks"], expected, rtol=1e-5, atol=1e-5)


def test_decoder_attention_mask_is_that_of_the_resized_masks() -> None:
    decoder, (maps, mask_features) = _decoder(), _inputs(2, 3)
    folded = mask_features.view(2, 3, 12, 9, 17).transpose(1, 2)
    embedding = torch.randn(2, 7, 12)
    masks = torch.einsum("bqc,bcthw->bqthw", embedding, folded)
    of_levels = decoder._resized_mask_features(mask_features, maps, 3)
    for level, features in zip(maps, of_levels, strict=True):
        resized = F.interpolate(
            masks.flatten(0, 1), size=level.shape[-2:], mode="bilinear", align_corners=False
        )
        expected = resized.sigmoid().view(2, 7, -1) >= 0.5
        assert torch.equal(decoder._allowed(embedding, features), expected)


def test_decoder_query_with_an_empty_mask_looks_everywhere() -> None:
    features = torch.tensor([[[1.0, -1.0, 2.0]]])
    allowed = VideoMultiScaleMaskedTransformerDecoder._allowed(
        torch.tensor([[[1.0], [-1.0], [0.0]]]), torch.cat([features, features[..., :1]], dim=2)
    )
    assert allowed.tolist() == [
        [[True, False, True, True], [False, True, False, False], [True] * 4]
    ]
    nothing = VideoMultiScaleMaskedTransformerDecoder._allowed(
        torch.tensor([[[-1.0]]]), features.abs()
    )
    assert nothing.all()


def test_decoder_in_training_gives_masks_without_a_graph_and_what_they_are_made_of() -> None:
    decoder = _decoder()
    outputs = decoder(*_inputs(2, 3), num_frames=3, return_aux=True)
    features = outputs["mask_features"]
    assert features.shape == (2, 12, 3, 9, 17)
    for layer in (outputs, *outputs["aux_outputs"]):
        assert not layer["pred_masks"].requires_grad
        assert layer["mask_embed"].requires_grad
        product = torch.einsum("bqc,bcthw->bqthw", layer["mask_embed"], features)
        torch.testing.assert_close(product, layer["pred_masks"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_decoder_every_parameter_gets_a_gradient(pre_norm: bool) -> None:
    decoder = _decoder(pre_norm=pre_norm, enforce_input_proj=True, dense_mask_gradients=True)
    outputs = decoder(*_inputs(2, 2), num_frames=2, return_aux=True)
    layers = [outputs, *outputs["aux_outputs"]]
    tensors = [layer[name] for layer in layers for name in ("pred_logits", "pred_masks")]
    sum((x * torch.randn_like(x)).sum() for x in tensors).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decoder_runs_under_autocast(dtype: torch.dtype) -> None:
    decoder, inputs = _decoder(), _inputs(2, 2)
    with torch.autocast("cpu", dtype=dtype):
        outputs = decoder(*inputs, num_frames=2, return_aux=True)
        loss = outputs["pred_masks"].float().square().mean()
        loss = loss + outputs["aux_outputs"][1]["pred_logits"].float().square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(decoder.query_feat.weight.grad).all()


def test_decoder_projects_maps_only_where_needed() -> None:
    assert not any("input_proj" in key for key in _decoder().state_dict())
    assert "input_proj.2.weight" in _decoder(enforce_input_proj=True).state_dict()
    wide = VideoMultiScaleMaskedTransformerDecoder(
        10,
        num_classes=3,
        hidden_dim=16,
        mask_dim=12,
        num_queries=7,
        num_heads=4,
        dim_feedforward=32,
        num_layers=1,
        pre_norm=False,
        enforce_input_proj=False,
    )
    assert wide(*_inputs(1, 2, channels=10), num_frames=2)["pred_logits"].shape == (1, 7, 4)


def test_decoder_loads_the_old_name_of_the_queries() -> None:
    decoder = _decoder()
    state = {k: torch.randn_like(v) for k, v in decoder.state_dict().items()}
    state["static_query.weight"] = expected = state.pop("query_feat.weight")
    decoder.load_state_dict(state)
    assert torch.equal(decoder.query_feat.weight, expected)


def test_decoder_starts_with_xavier_weights_and_zero_attention_biases() -> None:
    decoder = _decoder(hidden_dim=64, dim_feedforward=256)
    weight = decoder.transformer_ffn_layers[0].linear1.weight
    assert weight.std().item() == pytest.approx((2 / (64 + 256)) ** 0.5, rel=0.05)
    attention = decoder.transformer_cross_attention_layers[0].multihead_attn
    assert attention.in_proj_bias.abs().max() == attention.out_proj.bias.abs().max() == 0
    assert decoder.query_feat.weight.std().item() == pytest.approx(1.0, rel=0.2)


def test_decoder_frames_that_do_not_make_whole_clips_raise() -> None:
    with pytest.raises(ValueError, match="6 frames do not make whole clips of 4"):
        _decoder()(*_inputs(2, 3), num_frames=4)


def test_decoder_bad_width_names_the_keys() -> None:
    with pytest.raises(ConfigError, match=r"HIDDEN_DIM must be even .*NHEADS \(4\), got 18"):
        _decoder(hidden_dim=18)
