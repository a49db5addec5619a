"""The model with the spatial mask head: equality at the start, attention, targets, gradients."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.modeling.attention import MultiheadAttention
from maskfreevis_ext.modeling.heads.spatial import SpatialBias
from maskfreevis_ext.modeling.transformer_decoder import VideoMultiScaleMaskedTransformerDecoder
from maskfreevis_ext.ops.clip import frame_probabilities
from tests.helpers.configs import tiny_cfg
from tests.modeling.test_meta_arch import LOSSES, _clip, _video

KEY = "MODEL.SPATIAL_MASK."
ON = (KEY + "ENABLED", True)
WEAK = (KEY + "LOSS.BOX_MODE", "weak")
NUM_LAYERS = 3  # of the tiny decoder; one more output
SUFFIXES = ("", *(f"_{i}" for i in range(NUM_LAYERS)))


def _build(*overrides: object) -> nn.Module:
    torch.manual_seed(3)
    return build_model(tiny_cfg(*ON, *overrides))


def _build_plain(*overrides: object) -> nn.Module:
    torch.manual_seed(4)
    return build_model(tiny_cfg(*overrides))


def _spatial(model: nn.Module) -> SpatialBias:
    return model.sem_seg_head.predictor.spatial_bias


def _perturb(model: nn.Module) -> nn.Module:
    """Let the mask depend on what the head sees."""
    generator = torch.Generator().manual_seed(8)
    for i in (0, 2, 4):
        weight = _spatial(model).head.layers[i].weight
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The tiny model with a head that sees; tests set its mode and leave its weights alone."""
    return _perturb(_build())


@pytest.fixture(scope="module")
def weak_model() -> nn.Module:
    """The same, and boxes teach the head."""
    return _perturb(_build(*WEAK))


def _motion(clip: dict, missing: tuple[int, ...] = ()) -> dict:
    """The clip with motion masks unlike the masks of its objects; some frames have none."""
    size = tuple(clip["image"][0].shape[-2:])
    masks: list[Tensor | None] = []
    for t in range(len(clip["image"])):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[20:40, 8 + 4 * t : 24 + 4 * t] = True
        masks.append(None if t in missing else mask)
    return {**clip, "motion_masks": masks}


def _losses(model: nn.Module, batch: list[dict], seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return model.train()(batch)


def _mask_logits(model: nn.Module, batch: list[dict]) -> Tensor:
    """What the head gives for a batch of training."""
    seen: list[dict] = []
    handle = model.sem_seg_head.register_forward_hook(lambda *args: seen.append(args[2]))
    try:
        _losses(model, batch)
    finally:
        handle.remove()
    return seen[0]["mask_logits"]


def _bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean BCE over valid cells of the targets, (F, h, w)."""
    resized = F.interpolate(logits.flatten(0, -3)[:, None], target.shape[-2:], mode="bilinear")
    cost = F.binary_cross_entropy_with_logits(resized[:, 0], target.float(), reduction="none")
    return cost[valid].mean()


# ---------------------------------------------------------------- the model as it was


def _pair(*overrides: object) -> tuple[nn.Module, nn.Module]:
    """The plain model, and one with a fresh head and the same weights."""
    plain, new = _build_plain(), _build(*overrides)
    missing, unexpected = new.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(".spatial_bias." in name for name in missing)
    return plain, new


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (KEY + "SUPPRESS", "dynamic", KEY + "TAU_INIT", 0.5, KEY + "ALPHA_INIT", 1.7),
        (KEY + "BIAS_MAX", 4.0, KEY + "ROWS", "gate", KEY + "LAYERS", [1, 2]),
        (KEY + "IN_LEVEL", "res5", KEY + "DETACH_INPUT", False, KEY + "HOLD_END", 50),
    ],
    ids=["default", "dynamic", "gate", "res5"],
)
def test_start_equals_the_plain_model(overrides: tuple[object, ...]) -> None:
    plain, new = _pair(*overrides)
    for frames in (1, 3):
        video = _video(frames)
        expected, got = (model.eval().predict(copy.deepcopy(video))[0] for model in (plain, new))
        for name in ("pred_logits", "pred_masks"):
            torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-5)
    batch = [_clip(2), _clip(2, supervision="mask")]
    expected, got = (_losses(model, batch) for model in (plain, new))
    assert set(got) - set(expected) == {"loss_spatial_mask"}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_start_gives_the_gradients_of_the_plain_model() -> None:
    plain, new = (model.double() for model in _pair())
    batch = [_clip(2), _clip(2, supervision="mask")]
    gradients = []
    for model in (plain, new):
        losses = _losses(model, batch)
        sum(value for name, value in losses.items() if "spatial" not in name).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-5, atol=1e-8, msg=name)


def test_without_the_head_nothing_is_new() -> None:
    plain, off = _build_plain(), _build_plain(KEY + "ENABLED", False, *WEAK)
    assert list(off.state_dict()) == list(plain.state_dict())
    assert not any("spatial" in name for name in off.state_dict())
    assert set(off.state_dict()) == {
        name for name in _build().state_dict() if ".spatial_bias." not in name
    }
    assert set(_losses(off, [_motion(_clip(2))])) == {
        name + suffix for name in LOSSES for suffix in SUFFIXES
    }
    outputs, _ = off.eval().predict(_video(2))
    assert "mask_logits" not in outputs
    assert "dynamic_mask" not in off([_video(2)])[0]


def test_perturbed_head_changes_the_outputs(model: nn.Module) -> None:
    same = copy.deepcopy(model)
    nn.init.zeros_(_spatial(same).head.layers[-1].weight)
    video = _video(2)
    before, after = (m.eval().predict(video)[0]["pred_masks"] for m in (same, model))
    assert (before - after).abs().max() > 1e-4


# ---------------------------------------------------------------- attention


def _explicit_attention(
    attention: MultiheadAttention, query: Tensor, memory: Tensor, raw: Tensor, key_bias: Tensor
) -> Tensor:
    """With an additive mask: the rule of full rows on the boolean, then -inf, then the bias."""
    allowed = raw | ~raw.any(-1, keepdim=True)
    mask = torch.zeros_like(raw, dtype=key_bias.dtype).masked_fill(~allowed, -torch.inf)
    mask = mask + key_bias[:, None]
    q, k, v = (
        F.linear(x, weight, bias).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (query, memory, memory),
            attention.in_proj_weight.chunk(3),
            attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + mask[:, None]
    return attention.out_proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _attention_case(
    dim: int, heads: int, bias_max: float = 2.0
) -> tuple[MultiheadAttention, Tensor, Tensor, Tensor, Tensor]:
    """Attention, queries, memory, where its queries may look (one nowhere), and a bias."""
    batch, queries, places = 2, 5, 13
    attention = MultiheadAttention(dim, heads)
    nn.init.normal_(attention.in_proj_bias)
    raw = torch.rand(batch, queries, places) > 0.5
    raw[:, 1] = False
    raw[:, 2] = True
    raw[:, 3] = torch.arange(places) == 4
    key_bias = (-bias_max * torch.rand(batch, places)).requires_grad_()
    query, memory = torch.randn(batch, queries, dim), torch.randn(batch, places, dim)
    return attention, query.requires_grad_(), memory.requires_grad_(), raw, key_bias


def _rule(raw: Tensor) -> Tensor:
    """The decoder's own rule: features that are one-hot give the embeddings as mask logits."""
    eye = torch.eye(raw.shape[-1]).expand(len(raw), -1, -1)
    return VideoMultiScaleMaskedTransformerDecoder._allowed(raw.float() * 2 - 1, eye)


HEADS = [(32, 4), (32, 2), (12, 2), (30, 3), (64, 1), (14, 2)]  # 8, 16, 6, 10, 64 and 7 channels


@pytest.mark.parametrize(("dim", "heads"), HEADS)
@pytest.mark.parametrize("bias_max", [0.0, 0.5, 32.0])
def test_attention_equals_an_explicit_additive_mask(dim: int, heads: int, bias_max: float) -> None:
    attention, query, memory, raw, key_bias = _attention_case(dim, heads, bias_max)
    expected = _explicit_attention(attention, query, memory, raw, key_bias)
    allowed = _rule(raw)
    assert allowed[:, 1].all()
    got = attention(query, memory, memory, allowed, key_bias)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(got).all()


@pytest.mark.parametrize(("dim", "heads"), HEADS)
def test_gradients_equal_those_of_the_explicit_form(dim: int, heads: int) -> None:
    attention, query, memory, raw, key_bias = _attention_case(dim, heads)
    upstream = torch.randn(2, 5, dim)
    leaves = key_bias, query, memory, attention.in_proj_weight, attention.out_proj.weight
    explicit = _explicit_attention(attention, query, memory, raw, key_bias)
    expected = torch.autograd.grad((explicit * upstream).sum(), leaves)
    fused = attention(query, memory, memory, _rule(raw), key_bias)
    got = torch.autograd.grad((fused * upstream).sum(), leaves)
    assert (got[0] != 0).any()
    for value, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_attention_in_float64_equals_the_explicit_form() -> None:
    attention, query, memory, raw, key_bias = _attention_case(30, 3)
    attention, query, memory = attention.double(), query.double(), memory.double()
    expected = _explicit_attention(attention, query, memory, raw, key_bias.double())
    got = attention(query, memory, memory, _rule(raw), key_bias.double())
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_bias_works_without_a_mask() -> None:
    attention, query, memory, raw, key_bias = _attention_case(32, 4)
    everywhere = torch.ones_like(raw)
    expected = _explicit_attention(attention, query, memory, everywhere, key_bias)
    got = attention(query, memory, memory, None, key_bias)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_constant_bias_changes_nothing() -> None:
    attention, query, memory, raw, _ = _attention_case(32, 4)
    expected = attention(query, memory, memory, _rule(raw))
    got = attention(query, memory, memory, _rule(raw), torch.full((2, 13), -0.25))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_strong_bias_hides_a_key() -> None:
    attention, query, memory, raw, _ = _attention_case(32, 4)
    key_bias = torch.zeros(2, 13)
    key_bias[:, 6] = -200
    hidden = torch.ones_like(raw)
    hidden[..., 6] = False
    expected = attention(query, memory, memory, hidden)
    torch.testing.assert_close(attention(query, memory, memory, None, key_bias), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias_max", [0.5, 32.0])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_has_no_nan(dtype: torch.dtype, bias_max: float, autocast: bool) -> None:
    attention, query, memory, raw, key_bias = _attention_case(32, 4, bias_max)
    allowed = _rule(raw)
    expected = attention(query, memory, memory, allowed, key_bias)
    if autocast:
        with torch.autocast("cpu", dtype=dtype):
            got = attention(query, memory, memory, allowed, key_bias)
    else:
        half = copy.deepcopy(attention).to(dtype)
        got = half(query.to(dtype), *[memory.to(dtype)] * 2, allowed, key_bias)
    assert got.dtype == dtype
    assert torch.isfinite(got).all()
    # rounding of a bias of 32 moves a weight by up to e^(32 / 2^9) or e^(32 / 2^12)
    torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.1)
    got.float().square().sum().backward()
    for leaf in (key_bias, query, memory):
        assert torch.isfinite(leaf.grad).all()
    assert (key_bias.grad != 0).any()


def test_decoder_equals_one_with_explicit_masks(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = _video(3)
    expected, _ = model.eval().predict(video)
    calls = []

    def forward(
        self: MultiheadAttention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        calls.append(key_bias)
        mask = query.new_zeros(len(query), query.shape[1], key.shape[1])
        if allowed is not None:
            mask = mask.masked_fill(~allowed, -torch.inf) + key_bias[:, None]
        q, k, v = (
            F.linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key, value),
                self.in_proj_weight.chunk(3),
                self.in_proj_bias.chunk(3),
                strict=True,
            )
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    monkeypatch.setattr(MultiheadAttention, "forward", forward)
    got, _ = model.predict(video)
    assert sum(key_bias is not None for key_bias in calls) == NUM_LAYERS
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-4)


def test_bias_and_memory_have_the_same_order(model: nn.Module) -> None:
    predictor = model.eval().sem_seg_head.predictor
    clips, frames, sizes = 2, 3, [(2, 3), (4, 6), (8, 12)]
    maps = [torch.randn(clips * frames, 32, *size) for size in sizes]
    before, found = predictor._memory(maps, frames)[0], predictor.spatial_bias(maps, frames)
    for level, (h, w) in enumerate(sizes):
        for clip, t, y, x in ((0, 0, 0, 0), (1, 0, 0, w - 1), (0, 2, h - 1, 0), (1, 1, 1, 2)):
            lit = [level_map.clone() for level_map in maps]
            lit[level][clip * frames + t, :, y, x] += 1
            changed = (predictor._memory(lit, frames)[0][level] != before[level]).any(-1)
            assert changed.nonzero().tolist() == [[clip, (t * h + y) * w + x]]
            assert changed.shape == found.bias.of_levels[level].shape
    # the level that the head looks at: its bias is that of its mask at the same index
    own = predictor.spatial_bias.head.bias_of(found.outputs["mask_logits"]).flatten(1)
    torch.testing.assert_close(found.bias.of_levels[2], own)


# ---------------------------------------------------------------- outputs


@pytest.mark.parametrize(("level", "side"), [("res3", 8), ("res4", 4), ("res5", 2)])
def test_logits_have_the_size_of_their_level(level: str, side: int) -> None:
    model = _build(KEY + "IN_LEVEL", level)
    batch = [_clip(3), _clip(3, (40, 33))]
    assert _mask_logits(model, batch).shape == (2, 3, side, side)
    outputs, _ = model.eval().predict(_video(2))
    assert outputs["mask_logits"].shape == (2, side, side)


def test_order_of_the_levels_in_the_config_does_not_matter() -> None:
    key = "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"
    model = _build(key, ["res5", "res4", "res3"], KEY + "IN_LEVEL", "res3")
    assert _mask_logits(model, [_clip(2)]).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_logits_have_an_axis_of_views(model: nn.Module, views: int) -> None:
    batch = [_clip(4), _clip(4)]
    plain = _mask_logits(model, batch)
    with_views = _mask_logits(model, [{**clip, "num_views": views} for clip in batch])
    assert with_views.shape == (2, 4 // views, views, 8, 8)
    assert torch.equal(with_views.flatten(1, 2), plain)
    result = model.eval()([{**_video(4), "num_views": views}])[0]
    assert result["dynamic_mask"].shape == (4 // views, views, 96, 128)


@pytest.mark.parametrize("overrides", [(), WEAK], ids=["skip", "weak"])
def test_views_change_no_loss(overrides: tuple[object, ...]) -> None:
    model = _perturb(_build(*overrides, KEY + "LOSS.DICE", 0.5, KEY + "LOSS.USE_TV", True))
    batch = [_clip(4), _clip(4, supervision="mask"), _motion(_clip(4), missing=(1, 2))]
    expected = _losses(model, batch)
    got = _losses(model, [{**clip, "num_views": 2} for clip in batch])
    assert set(got) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, msg=name)


@pytest.mark.parametrize("second", [None, 1, 4])
def test_clips_with_different_views_raise(model: nn.Module, second: int | None) -> None:
    batch = [{**_clip(4), "num_views": 2}, _clip(4)]
    if second is not None:
        batch[1]["num_views"] = second
    with pytest.raises(DataError, match="number of views") as raised:
        model.train()(batch)
    assert str([2, second]) in str(raised.value)


def test_frames_that_do_not_divide_into_views_raise(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"3 frames .* 2 views"):
        model.train()([{**_clip(3), "num_views": 2}])


@pytest.mark.parametrize("frames", [1, 3])
def test_dynamic_mask_of_a_video(model: nn.Module, frames: int) -> None:
    videos = [_video(frames), _video(frames + 1, (50, 40))]
    for result, video, size in zip(
        model.eval()(videos), videos, ((96, 128), (100, 80)), strict=True
    ):
        mask = result["dynamic_mask"]
        assert mask.dtype == torch.uint8
        assert mask.device.type == "cpu"
        assert mask.shape == (len(video["image"]), *size)
        outputs, sizes = model.predict(video)
        assert torch.equal(mask, frame_probabilities(outputs["mask_logits"], *sizes))
        assert mask.min() < mask.max()


def test_dynamic_mask_at_the_start_is_one_half() -> None:
    mask = _build().eval()([_video(2)])[0]["dynamic_mask"]
    assert (mask == 128).all()


def test_probabilities_lose_the_padding_and_keep_their_place() -> None:
    logits = torch.full((2, 8, 8), -40.0)
    logits[1, :3] = 40  # rows 0 to 23 of 64
    logits[:, 6:] = 40  # rows 48 to 63: padding
    probs = frame_probabilities(logits, (64, 64), (48, 64), (96, 128))
    assert probs.shape == (2, 96, 128)
    assert (probs[0, :80] == 0).all()
    assert (probs[1, :40] == 255).all()
    assert (probs[1, 56:80] == 0).all()


def test_chunks_give_the_same_mask(model: nn.Module) -> None:
    video = _video(5)
    expected = model.eval().predict(video)[0]["mask_logits"]
    before, model.frames_per_chunk = model.frames_per_chunk, 2
    try:
        got = model.predict(video)[0]["mask_logits"]
    finally:
        model.frames_per_chunk = before
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- losses and gradients


BATCHES = {
    "box": lambda: [_clip(2)],
    "mask": lambda: [_clip(2, supervision="mask")],
    "mixed": lambda: [_clip(2), _clip(2, (40, 33), supervision="mask")],
    "no objects, boxes": lambda: [_clip(2, objects=0)],
    "no objects, masks": lambda: [_clip(2, objects=0, supervision="mask")],
    "motion": lambda: [_motion(_clip(2))],
    "motion of some": lambda: [
        _motion(_clip(2, (44, 64)), missing=(0,)),
        _clip(2),
        _clip(2, supervision="mask"),
    ],
    "motion of no frame": lambda: [_motion(_clip(2), missing=(0, 1))],
    "one frame": lambda: [_clip(1), _motion(_clip(1))],
}
WITHOUT_MASKS = ("box", "no objects, boxes", "motion of no frame")
WITH_BOX_CLIPS = ("box", "mixed", "no objects, boxes", "motion of some", "one frame")


@pytest.mark.parametrize("mode", ["skip", "weak"])
@pytest.mark.parametrize("kind", BATCHES)
def test_every_loss_is_there_and_every_parameter_has_a_gradient(
    kind: str, mode: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue("model" if mode == "skip" else "weak_model")
    model.zero_grad()
    losses = _losses(model, BATCHES[kind]())
    new = {"loss_spatial_mask"} | ({"loss_spatial_box"} if mode == "weak" else set())
    assert set(losses) == {name + suffix for name in LOSSES for suffix in SUFFIXES} | new
    for name in new:
        assert losses[name].ndim == 0
        assert losses[name].requires_grad
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    assert (losses["loss_spatial_mask"] == 0) == (kind in WITHOUT_MASKS)
    if mode == "weak":
        assert (losses["loss_spatial_box"] > 0) == (kind in WITH_BOX_CLIPS)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", BATCHES)
def test_spatial_losses_alone_reach_every_convolution_of_the_head(kind: str) -> None:
    model = _build(*WEAK, KEY + "LOSS.USE_TV", True, KEY + "LOSS.USE_TEMPORAL", True)
    losses = _losses(model, BATCHES[kind]())
    names = ("mask", "box", "tv", "temporal")
    for name in names:
        gradients = torch.autograd.grad(
            losses[f"loss_spatial_{name}"],
            list(_spatial(model).head.layers.parameters()),
            retain_graph=True,
        )
        assert all(torch.isfinite(gradient).all() for gradient in gradients), name


def test_every_parameter_has_a_gradient_without_supervision() -> None:
    model = _perturb(_build(KEY + "LOSS.ENABLED", False, KEY + "ROWS", "gate"))
    losses = _losses(model, [_motion(_clip(2, supervision="mask"))])
    assert not any("spatial" in name for name in losses)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    for name, parameter in _spatial(model).named_parameters():  # it learns through the attention
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("overrides", [(), WEAK], ids=["skip", "weak"])
def test_ground_truth_changes_no_other_loss(overrides: tuple[object, ...]) -> None:
    model = _perturb(_build(*overrides))
    silent = _perturb(_build(KEY + "LOSS.ENABLED", False))
    for clip in (_clip(2), _clip(2, supervision="mask")):
        variants = [
            clip,
            _motion(clip),
            _motion(clip, missing=(0,)),
            {**clip, "motion_masks": None},
        ]
        expected = _losses(silent, [clip])
        for variant in variants:
            got = _losses(model, [variant])
            for name, value in expected.items():
                assert torch.equal(got[name], value), name


def test_loss_of_masks_by_hand(model: nn.Module) -> None:
    clip = _clip(2, supervision="mask")
    got = _losses(model, [clip])["loss_spatial_mask"]
    target, valid = torch.zeros(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16).bool()
    valid[:, :12] = True
    for t, frame in enumerate(clip["instances"]):
        union = frame.gt_masks.tensor[frame.gt_ids >= 0].any(0).float()
        target[t, :12] = F.avg_pool2d(union[None], 4)[0] >= 0.5
    torch.testing.assert_close(got, _bce(_mask_logits(model, [clip]), target, valid))


@pytest.mark.parametrize("missing", [(), (0,), (1,), (0, 2)])
def test_loss_of_motion_masks_by_hand(model: nn.Module, missing: tuple[int, ...]) -> None:
    clip = _motion(_clip(3), missing)
    got = _losses(model, [clip])["loss_spatial_mask"]
    target, valid = torch.zeros(3, 16, 16, dtype=torch.bool), torch.zeros(3, 16, 16).bool()
    for t, mask in enumerate(clip["motion_masks"]):
        if mask is not None:
            target[t, :12] = mask[::4, ::4]  # its edges are edges of cells
            valid[t, :12] = True
    torch.testing.assert_close(got, _bce(_mask_logits(model, [clip]), target, valid))


def test_motion_masks_come_before_masks_and_masks_before_boxes(weak_model: nn.Module) -> None:
    masks = _clip(2, supervision="mask")
    boxes = {**masks, "supervision": "box"}
    of_masks, of_boxes = (_losses(weak_model, [clip]) for clip in (masks, boxes))
    of_both = [_losses(weak_model, [_motion(clip)]) for clip in (masks, boxes)]
    assert torch.equal(of_both[0]["loss_spatial_mask"], of_both[1]["loss_spatial_mask"])
    assert of_both[0]["loss_spatial_mask"] != of_masks["loss_spatial_mask"]
    assert of_masks["loss_spatial_box"] == 0
    assert of_boxes["loss_spatial_mask"] == 0
    assert of_boxes["loss_spatial_box"] > 0
    for losses in of_both:
        assert losses["loss_spatial_box"] == 0


def test_boxes_are_not_taught_as_rectangles(model: nn.Module) -> None:
    model.zero_grad()
    loss = _losses(model, [_clip(2)])["loss_spatial_mask"]
    assert loss == 0
    loss.backward()
    for name, parameter in _spatial(model).head.layers.named_parameters():
        assert (parameter.grad == 0).all(), name


def test_clip_with_boxes_adds_nothing_to_that_with_masks(model: nn.Module) -> None:
    masks, boxes = _clip(2, supervision="mask"), _clip(2)
    results = []
    for batch in ([masks], [masks, boxes], [boxes, masks]):
        model.zero_grad()
        loss = _losses(model, batch)["loss_spatial_mask"]
        loss.backward()
        gradients = [parameter.grad for parameter in _spatial(model).head.layers.parameters()]
        results.append([loss.detach(), *gradients])
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_frame_without_a_motion_mask_has_no_gradient(model: nn.Module) -> None:
    batch = [_motion(_clip(3), missing=(1,))]
    seen: list[dict] = []

    def keep(_: nn.Module, __: object, outputs: dict) -> None:
        outputs["mask_logits"].retain_grad()
        seen.append(outputs)

    handle = model.sem_seg_head.register_forward_hook(keep)
    try:
        _losses(model, batch)["loss_spatial_mask"].backward()
    finally:
        handle.remove()
    gradient = seen[0]["mask_logits"].grad
    assert (gradient[0, 1] == 0).all()
    assert (gradient[0, 0] != 0).any()
    assert (gradient[0, 2] != 0).any()
    assert (gradient[0, :, 7] == 0).all()  # padding
    model.zero_grad()


def test_motion_mask_of_another_size_raises(model: nn.Module) -> None:
    clip = _motion(_clip(2))
    clip["motion_masks"][1] = torch.zeros(64, 48, dtype=torch.bool)
    with pytest.raises(DataError, match=r"video 5, frame \[1\].*\(64, 48\).*\(48, 64\)"):
        model.train()([clip])


def test_weights_of_the_losses() -> None:
    batch = [_clip(2), _clip(2, supervision="mask")]
    plain, heavy = (
        _losses(_perturb(_build(*WEAK, KEY + "LOSS.WEIGHT", weight)), batch)
        for weight in (1.0, 3.0)
    )
    for name, value in plain.items():
        factor = 3 if "spatial" in name else 1
        torch.testing.assert_close(heavy[name], factor * value, msg=name)


@pytest.mark.parametrize("detach", [True, False])
def test_loss_reaches_the_pixel_decoder_only_when_the_input_is_not_detached(detach: bool) -> None:
    model = _perturb(_build(KEY + "DETACH_INPUT", detach))
    loss = _losses(model, [_clip(2, supervision="mask")])["loss_spatial_mask"]
    trunk = [*model.sem_seg_head.pixel_decoder.transformer.parameters()]
    trunk += [p for p in model.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trunk, retain_graph=True, allow_unused=True)
    if detach:
        assert all(gradient is None for gradient in gradients)
    else:
        assert any(gradient is not None and (gradient != 0).any() for gradient in gradients)
    of_head = torch.autograd.grad(loss, list(_spatial(model).head.layers.parameters()))
    assert all((gradient != 0).any() for gradient in of_head)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_with_autocast_is_finite(weak_model: nn.Module, dtype: torch.dtype) -> None:
    batch = [_clip(2), _clip(2, supervision="mask"), _motion(_clip(2), missing=(0,))]
    expected = _losses(weak_model, batch)
    weak_model.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=dtype):
        losses = weak_model(batch)
    for name in ("loss_spatial_mask", "loss_spatial_box"):
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name], rtol=0.1, atol=0.05)
    sum(losses.values()).backward()
    for name, parameter in weak_model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_sgd_on_the_mask_loss_alone_lowers_it() -> None:
    model = _build()
    clip = _clip(2, supervision="mask")
    optimizer = torch.optim.Adam(_spatial(model).head.layers.parameters(), lr=0.01)
    values = []
    for _ in range(8):
        loss = _losses(model, [clip])["loss_spatial_mask"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[0] == pytest.approx(math.log(2), rel=1e-5)
    assert values[-1] < 0.95 * values[0]


# ---------------------------------------------------------------- layers, gates, schedule


def _biases_of_layers(model: nn.Module, video: dict) -> list[Tensor | None]:
    seen: list[Tensor | None] = []
    layers = model.sem_seg_head.predictor.transformer_cross_attention_layers
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[5]))
        for layer in layers
    ]
    try:
        model.eval().predict(video)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("layers", [[], [0], [2], [0, 1], [1, 1]], ids=str)
def test_bias_goes_to_the_listed_layers(layers: list[int]) -> None:
    model = _perturb(_build(KEY + "LAYERS", layers))
    found = _biases_of_layers(model, _video(2))
    expected = layers or list(range(NUM_LAYERS))
    assert [i for i, bias in enumerate(found) if bias is not None] == sorted(set(expected))
    for level, bias in enumerate(found):
        if bias is not None:
            assert bias.shape == (1, 2 * (2 * 2**level) ** 2)  # coarse levels first


def test_layers_before_the_first_listed_one_are_as_without_the_head() -> None:
    plain, new = _pair(KEY + "LAYERS", [1])
    _perturb(new)
    batch = [_clip(2)]
    expected, got = (_losses(model, batch) for model in (plain, new))
    for name in LOSSES:
        for suffix in ("_0", "_1"):  # of the learned queries, and after layer 0
            torch.testing.assert_close(got[name + suffix], expected[name + suffix])
    assert any(got[name + "_2"] != expected[name + "_2"] for name in LOSSES)


def test_gates_halve_the_bias_at_first() -> None:
    plain, gated = _perturb(_build()), _perturb(_build(KEY + "ROWS", "gate"))
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["sem_seg_head.predictor.spatial_bias.gates"]
    assert not unexpected
    assert _spatial(gated).gates.shape == (NUM_LAYERS,)
    video = _video(2)
    expected, got = (_biases_of_layers(model, video) for model in (plain, gated))
    for value, whole in zip(got, expected, strict=True):
        torch.testing.assert_close(value, 0.5 * whole)


def test_closed_gates_give_the_plain_model() -> None:
    plain, new = _pair(KEY + "ROWS", "gate")
    _perturb(new)
    nn.init.constant_(_spatial(new).gates, -100)
    video = _video(2)
    expected, got = (model.eval().predict(video)[0] for model in (plain, new))
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [[], [0], [1, 2]], ids=str)
def test_gates_of_the_listed_layers_learn(layers: list[int]) -> None:
    model = _perturb(_build(KEY + "ROWS", "gate", KEY + "LAYERS", layers))
    sum(_losses(model, [_clip(2)]).values()).backward()
    gradient = _spatial(model).gates.grad
    expected = layers or list(range(NUM_LAYERS))
    assert (gradient != 0).nonzero().flatten().tolist() == expected
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((KEY + "LAYERS", [0, 3]), r"MODEL\.SPATIAL_MASK\.LAYERS: .*0 to 2 .*got \[0, 3\]"),
        ((KEY + "LAYERS", [-1]), r"MODEL\.SPATIAL_MASK\.LAYERS: .*got \[-1\]"),
        ((KEY + "IN_LEVEL", "res2"), r"MODEL\.SPATIAL_MASK\.IN_LEVEL: .*res3.*got 'res2'"),
        ((KEY + "IN_LEVEL", ""), r"MODEL\.SPATIAL_MASK\.IN_LEVEL: .*got ''"),
        (
            (KEY + "HOLD_START", 20, KEY + "HOLD_END", 10),
            r"MODEL\.SPATIAL_MASK\.HOLD_END: .*20 .*got 10",
        ),
    ],
)
def test_wrong_key_is_named(overrides: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _build(*overrides)


def test_bias_is_gone_at_the_end_of_the_schedule() -> None:
    plain, new = _pair(KEY + "HOLD_START", 1, KEY + "HOLD_END", 3)
    _perturb(new)
    video, batch = _video(2), [_clip(2)]
    strengths = []
    for _ in range(4):
        _losses(new, batch)
        biases = _biases_of_layers(new, video)
        strengths.append(max(bias.abs().max().item() for bias in biases))
    assert strengths[0] > strengths[1] > strengths[2]
    assert strengths[1] == pytest.approx(strengths[0] / 2, rel=1e-5)
    assert strengths[2] == strengths[3] == pytest.approx(0, abs=1e-6)
    assert _spatial(new).head.steps == 4  # evaluation counts none
    expected, got = (model.eval().predict(video)[0] for model in (plain, new))
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-5)
    sum(_losses(new, batch).values()).backward()
    assert all(parameter.grad is not None for parameter in new.parameters())


# ---------------------------------------------------------------- with other parts


@pytest.mark.parametrize(
    "kind",
    [
        *("box", "mask", "mixed", "motion of some"),
        "no objects, masks",
    ],
)
def test_multimask_and_spatial_heads_work_together(kind: str) -> None:
    model = _perturb(_build(*WEAK, "MODEL.MULTIMASK.ENABLED", True))
    alone = build_model(tiny_cfg("MODEL.MULTIMASK.ENABLED", True))
    batch = BATCHES[kind]()
    losses = _losses(model, batch)
    assert set(losses) - set(_losses(alone, batch)) == {"loss_spatial_mask", "loss_spatial_box"}
    assert all(torch.isfinite(value.detach()) for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    result = model.eval()([_video(2)])[0]
    assert result["dynamic_mask"].shape == (2, 96, 128)
    assert len(result["pred_masks"]) == 10


@pytest.mark.parametrize(
    "overrides",
    [
        ("MODEL.MASKFREE.DENSE_MASK_GRADIENTS", True),
        ("MODEL.MASK_FORMER.DEEP_SUPERVISION", False),
        ("MODEL.MASK_FORMER.PRE_NORM", True),
    ],
    ids=lambda pair: pair[0].rsplit(".", 1)[1],
)
def test_other_ways_to_train_have_every_gradient(overrides: tuple[object, ...]) -> None:
    model = _perturb(_build(*overrides))
    losses = _losses(model, [_clip(2), _clip(2, supervision="mask")])
    assert losses["loss_spatial_mask"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if overrides[0].endswith("DEEP_SUPERVISION"):
            continue
        assert parameter.grad is not None, name
    assert all(parameter.grad is not None for parameter in _spatial(model).parameters())
