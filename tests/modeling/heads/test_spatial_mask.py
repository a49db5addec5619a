"""The spatial mask head alone: start values, sign, range, gradients, order of tokens, schedule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.modeling.heads.spatial import SpatialBias
from maskfreevis_ext.modeling.heads.spatial_mask import SpatialMaskHead, fold_frames
from tests.helpers.configs import tiny_cfg

CHANNELS = 8
START_VALUES = [(2.0, 1.0), (6.0, 0.2), (0.05, 0.4), (40.0, 3.0)]


def _head(**arguments: object) -> SpatialMaskHead:
    return SpatialMaskHead(CHANNELS, **arguments)


def _perturbed(**arguments: object) -> SpatialMaskHead:
    """A head whose mask depends on what it sees."""
    head = _head(**arguments)
    torch.nn.init.normal_(head.layers[-1].weight)
    return head


def _tokens(
    clips: int = 2, frames: int = 3, grid: tuple[int, int] = (4, 5), special: int = 0
) -> Tensor:
    return torch.randn(clips, frames, special + grid[0] * grid[1], CHANNELS)


def _shows_channel_0(head: SpatialMaskHead, scale: float = 1.0) -> SpatialMaskHead:
    """Make the mask a rising function of channel 0 of the same patch."""
    with torch.no_grad():
        for conv in (head.layers[0], head.layers[2]):
            conv.weight.zero_()
            conv.weight[:, 0, 1, 1] = 1
            conv.bias.zero_()
        head.layers[-1].weight.zero_()
        head.layers[-1].weight[0, 0] = scale
    return head


# ---------------------------------------------------------------- start


@pytest.mark.parametrize("suppress", ["background", "dynamic"])
@pytest.mark.parametrize(("tau", "alpha"), START_VALUES)
@pytest.mark.parametrize("bias_max", [0.0, 0.5, 3.0])
def test_start_gives_one_bias_everywhere(
    suppress: str, tau: float, alpha: float, bias_max: float
) -> None:
    head = _head(tau_init=tau, alpha_init=alpha, bias_max=bias_max, suppress=suppress)
    m_logit, bias, row_mask = head(_tokens(), (4, 5))
    assert m_logit.shape == (6, 1, 4, 5)
    assert (m_logit == 0).all()
    assert bias.shape == row_mask.shape == (2, 60)
    expected = -bias_max * min(alpha * 0.5, 1.0)
    torch.testing.assert_close(bias, torch.full_like(bias, expected))
    assert (bias == bias[0, 0]).all()
    assert row_mask.dtype == torch.bool
    assert not row_mask.any()


@pytest.mark.parametrize(("tau", "alpha"), START_VALUES)
def test_start_values_are_those_of_the_config(tau: float, alpha: float) -> None:
    key = "MODEL.SPATIAL_MASK."
    cfg = tiny_cfg(key + "TAU_INIT", tau, key + "ALPHA_INIT", alpha)
    head = SpatialMaskHead(**SpatialMaskHead.from_config(cfg, CHANNELS))
    assert head.tau.item() == pytest.approx(tau, rel=1e-6)
    assert head.alpha.item() == pytest.approx(alpha, rel=1e-6)


def test_default_start_values_are_not_those_of_the_origin() -> None:
    head = SpatialMaskHead(**SpatialMaskHead.from_config(tiny_cfg(), CHANNELS))
    assert head.tau.item() == pytest.approx(2.0, rel=1e-6)  # the origin's formula gives 1.0986
    assert head.alpha.item() == pytest.approx(1.0, rel=1e-6)  # and 0.6931


def test_config_reaches_the_head() -> None:
    key = "MODEL.SPATIAL_MASK."
    cfg = tiny_cfg(
        *(key + "BIAS_MAX", 4.0, key + "SUPPRESS", "dynamic", key + "DETACH_INPUT", False),
        *(key + "HOLD_START", 3, key + "HOLD_END", 9),
    )
    head = SpatialMaskHead(**SpatialMaskHead.from_config(cfg, CHANNELS))
    assert (head.bias_max, head.sign, head.detach_input, head.hold) == (4.0, 1.0, False, (3, 9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"suppress": "foreground"},
        {"tau_init": 0.0},
        {"tau_init": -1.0},
        {"alpha_init": 0.0},
        {"bias_max": -0.1},
    ],
    ids=str,
)
def test_wrong_value_raises_and_is_named(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        _head(**wrong)


# ---------------------------------------------------------------- sign and range


@pytest.mark.parametrize(
    ("suppress", "of_moving", "of_still"), [("background", 0.0, -0.5), ("dynamic", -0.5, 0.0)]
)
def test_sign(suppress: str, of_moving: float, of_still: float) -> None:
    head = _head(suppress=suppress)
    got = head.bias_of(torch.tensor([60.0, -60.0]))
    torch.testing.assert_close(got, torch.tensor([of_moving, of_still]))
    between = head.bias_of(torch.linspace(-6, 6, 13))
    steps = between.diff()
    assert (steps > 0).all() if suppress == "background" else (steps < 0).all()


def test_background_form_equals_the_formula_of_the_origin() -> None:
    head = _head(tau_init=1.0986123, alpha_init=0.6931472)
    got = head.bias_of(torch.tensor([-6.0, 0.0, 6.0]))
    expected = torch.tensor([-0.345, -0.173, -0.0015])  # measured on the origin
    torch.testing.assert_close(got, expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("suppress", ["background", "dynamic"])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_bias_lies_between_minus_bias_max_and_0(suppress: str, alpha: float) -> None:
    head = _head(suppress=suppress, alpha_init=alpha, bias_max=2.0)
    bias = head.bias_of(torch.cat((torch.randn(1000) * 30, torch.tensor([1e30, -1e30]))))
    assert torch.isfinite(bias).all()
    assert bias.max() <= 0
    assert bias.max() > -1e-6
    assert bias.min() >= -2
    assert bias.min().item() == pytest.approx(-2 * min(alpha, 1), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bias_is_at_least_float32(dtype: torch.dtype) -> None:
    bias = _head().bias_of(torch.randn(2, 3).to(dtype))
    assert bias.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_finite_masks_and_gradients(dtype: torch.dtype) -> None:
    head = _perturbed(detach_input=False)
    tokens = _tokens().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        m_logit, bias, _ = head(tokens, (4, 5))
    assert bias.dtype == torch.float32
    assert torch.isfinite(m_logit).all()
    (m_logit.float().sum() + bias.square().sum()).backward()
    assert torch.isfinite(tokens.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("suppress", ["background", "dynamic"])
def test_bias_has_a_gradient_to_every_parameter(suppress: str, detach: bool) -> None:
    head = _perturbed(suppress=suppress, detach_input=detach)
    _, bias, _ = head(_tokens(), (4, 5))
    (bias * torch.randn_like(bias)).sum().backward()
    names = {name for name, _ in head.named_parameters()}
    convs = {f"layers.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    assert names == {"raw_tau", "raw_alpha"} | convs
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def test_logits_have_a_gradient_to_every_convolution() -> None:
    head = _perturbed()
    m_logit, _, _ = head(_tokens(), (4, 5))
    (m_logit * torch.randn_like(m_logit)).sum().backward()
    for name, parameter in head.layers.named_parameters():
        assert (parameter.grad != 0).any(), name


def test_start_learns_through_the_last_layer() -> None:
    head = _head()
    m_logit, _, _ = head(_tokens(), (4, 5))
    (m_logit * torch.randn_like(m_logit)).sum().backward()
    assert (head.layers[-1].weight.grad != 0).any()
    assert all(parameter.grad is not None for parameter in head.layers.parameters())


@pytest.mark.parametrize("output", [0, 1], ids=["logits", "bias"])
@pytest.mark.parametrize("detach", [True, False])
def test_input_has_a_gradient_only_when_it_is_not_detached(detach: bool, output: int) -> None:
    tokens = _tokens(special=2).requires_grad_()
    head = _perturbed(detach_input=detach)
    head(tokens, (4, 5), patch_start=2)[output].square().sum().backward()
    if detach:
        assert tokens.grad is None
    else:
        assert (tokens.grad[:, :, 2:] != 0).any()
        assert (tokens.grad[:, :, :2] == 0).all()


def test_gradients_equal_finite_differences() -> None:
    head = _perturbed(detach_input=False, alpha_init=0.7).double()
    tokens = _tokens(1, 2, (2, 3)).double().requires_grad_()

    def run(tokens: Tensor, raw_tau: Tensor, raw_alpha: Tensor) -> Tensor:
        values = {"raw_tau": raw_tau, "raw_alpha": raw_alpha}
        return torch.func.functional_call(head, values, (tokens, (2, 3)))[1]

    assert torch.autograd.gradcheck(run, (tokens, head.raw_tau, head.raw_alpha))


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("special", [0, 1, 5])
def test_special_tokens_are_marked_and_not_suppressed(special: int) -> None:
    head = _perturbed()
    m_logit, bias, row_mask = head(_tokens(2, 3, (4, 5), special), (4, 5), patch_start=special)
    assert m_logit.shape == (6, 1, 4, 5)
    assert bias.shape == row_mask.shape == (2, 3 * (special + 20))
    by_frame, rows = bias.view(2, 3, -1), row_mask.view(2, 3, -1)
    assert rows[..., :special].all()
    assert not rows[..., special:].any()
    assert (by_frame[..., :special] == 0).all()
    assert (by_frame[..., special:] < 0).all()
    of_patches = head.bias_of(m_logit).view(2, 3, 20)
    torch.testing.assert_close(by_frame[..., special:], of_patches, rtol=0, atol=0)


def test_special_tokens_change_no_patch() -> None:
    head, tokens = _perturbed(), _tokens(special=2)
    other = tokens.clone()
    other[:, :, :2] += 7
    for value, expected in zip(head(other, (4, 5), 2), head(tokens, (4, 5), 2), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("special", [0, 2])
def test_lit_patch_changes_its_own_token(special: int) -> None:
    head, (height, width) = _shows_channel_0(_head()), (4, 5)
    dark = torch.zeros(2, 3, special + height * width, CHANNELS)
    _, before, _ = head(dark, (height, width), special)
    for clip, t, y, x in itertools.product(range(2), range(3), (0, 2, 3), (0, 1, 4)):
        lit = dark.clone()
        lit[clip, t, special + y * width + x, 0] = 5
        m_logit, after, _ = head(lit, (height, width), special)
        assert (m_logit != 0).nonzero().tolist() == [[clip * 3 + t, 0, y, x]]
        index = t * (special + height * width) + special + y * width + x
        assert (after != before).nonzero().tolist() == [[clip, index]]
        assert after[clip, index] > before[clip, index]  # an object, so suppressed less


@pytest.mark.parametrize(
    ("num_tokens", "grid", "special"), [(20, (4, 4), 0), (20, (4, 5), 1), (17, (4, 4), 0)]
)
def test_wrong_number_of_tokens_raises_with_the_shape(
    num_tokens: int, grid: tuple[int, int], special: int
) -> None:
    shape = (2, 3, num_tokens, CHANNELS)
    message = rf"{special} special and {grid[0]} x {grid[1]} .*\(2, 3, {num_tokens}, {CHANNELS}\)"
    with pytest.raises(ValueError, match=message):
        _head()(torch.zeros(shape), grid, special)


SIZES = [(2, 3), (4, 6), (8, 12)]  # coarse first


def _spatial_bias(in_level: int = 2, **arguments: object) -> SpatialBias:
    head = _shows_channel_0(_head(**arguments))
    return SpatialBias(head, in_level=in_level, num_layers=4)


@pytest.mark.parametrize("in_level", [0, 1, 2])
def test_lit_patch_changes_its_own_memory_index_in_every_level(in_level: int) -> None:
    spatial, (clips, frames) = _spatial_bias(in_level), (2, 3)
    dark = [torch.zeros(clips * frames, CHANNELS, *size) for size in SIZES]
    before = spatial(dark, frames)
    height, width = SIZES[in_level]
    for clip, t, y, x in ((0, 0, 0, 0), (0, 2, 1, 0), (1, 1, height - 1, width - 1)):
        lit = [level.clone() for level in dark]
        lit[in_level][clip * frames + t, 0, y, x] = 20
        found = spatial(lit, frames)
        where = (found.outputs["mask_logits"] != 0).nonzero().tolist()
        assert where == [[clip, t, y, x]]
        for level, (h, w) in enumerate(SIZES):
            change = found.bias.of_levels[level] - before.bias.of_levels[level]
            assert change.shape == (clips, frames * h * w)
            changed = {tuple(row) for row in change.nonzero().tolist()}
            # memory is (t, y, x), as the decoder flattens it
            resized = F.interpolate(
                found.outputs["mask_logits"][clip, t][None, None], (h, w), mode="bilinear"
            )
            expected = {
                (clip, (t * h + row) * w + column)
                for row, column in (resized[0, 0] != 0).nonzero().tolist()
            }
            assert changed == expected
            if level == in_level:
                assert changed == {(clip, (t * h + y) * w + x)}
            if h >= height:  # where the level is as fine, the lit place is the best one
                best = change[clip].argmax().item()
                row, column = divmod(best - t * h * w, w)
                assert (row * height // h, column * width // w) == (y, x)


def test_resized_bias_equals_that_of_the_resized_frames() -> None:
    spatial = _spatial_bias()
    maps = [torch.randn(6, CHANNELS, *size) for size in SIZES]
    found = spatial(maps, 3)
    logits = found.outputs["mask_logits"]
    for level, (h, w) in enumerate(SIZES):
        expected = torch.stack(
            [
                torch.cat(
                    [
                        spatial.head.bias_of(
                            F.interpolate(logits[b, t][None, None], (h, w), mode="bilinear")
                        ).flatten()
                        for t in range(3)
                    ]
                )
                for b in range(2)
            ]
        )
        torch.testing.assert_close(found.bias.of_levels[level], expected)


def test_views_that_do_not_divide_the_frames_raise() -> None:
    with pytest.raises(ValueError, match=r"5 frames .* 2 views"):
        _spatial_bias()([torch.zeros(5, CHANNELS, *size) for size in SIZES], 5, 2)


# ---------------------------------------------------------------- shape of the logits


@pytest.mark.parametrize("shape", ["(BS)1hw", "BShw", "BS1hw", "BTVhw", "BTV1hw"])
@pytest.mark.parametrize("views", [None, 1, 3])
@pytest.mark.parametrize(("clips", "frames"), [(1, 1), (1, 2), (2, 1), (2, 4)])
def test_fold_frames_of_every_rank(shape: str, views: int | None, clips: int, frames: int) -> None:
    count = views or 1
    merged = frames * count
    lead = {
        "(BS)1hw": (clips * merged, 1),
        "BShw": (clips, merged),
        "BS1hw": (clips, merged, 1),
        "BTVhw": (clips, frames, count),
        "BTV1hw": (clips, frames, count, 1),
    }[shape]
    logits = torch.arange(clips * merged * 6.0).view(*lead, 2, 3)
    folded = fold_frames(logits, clips, frames, views)
    axes = (clips, frames) if views is None else (clips, frames, views)
    assert folded.shape == (*axes, 2, 3)
    for b, t, v in itertools.product(range(clips), range(frames), range(count)):
        place = ((b * frames + t) * count + v) * 6.0
        frame = folded[b, t] if views is None else folded[b, t, v]
        assert torch.equal(frame, place + torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize(
    ("shape", "views", "expected"),
    [
        ((5, 1, 4, 6), None, (6, 1, 4, 6)),
        ((3, 2, 4, 6), None, (2, 3, 4, 6)),  # frames and clips swapped
        ((2, 3, 4, 6), 2, (2, 6, 4, 6)),  # one view of two
        ((2, 2, 3, 4, 6), 2, (2, 3, 2, 4, 6)),  # views first
        ((2, 3, 2, 4, 6), None, (2, 3, 1, 4, 6)),
        ((2, 3, 2, 2, 4, 6), 2, (2, 3, 2, 1, 4, 6)),
        ((6, 4, 6), None, (6, 1, 4, 6)),
        ((1, 2, 3, 1, 1, 4, 6), None, (2, 3, 1, 4, 6)),
    ],
)
def test_fold_frames_of_another_shape_raises_with_both_shapes(
    shape: tuple[int, ...], views: int | None, expected: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="2 clips, 3 frames") as raised:
        fold_frames(torch.zeros(shape), 2, 3, views)
    assert f"got {shape}" in str(raised.value)
    assert str(expected) in str(raised.value)


def test_fold_frames_does_not_guess_from_the_number_of_elements() -> None:
    with pytest.raises(ValueError, match="have one of the shapes"):
        fold_frames(torch.zeros(3, 2, 1, 4, 6), 2, 3)


# ---------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ("hold", "step", "factor"),
    [
        ((0, 0), 0, 1.0),
        ((0, 0), 10**6, 1.0),
        ((6000, 10000), 0, 1.0),
        ((6000, 10000), 6000, 1.0),
        ((6000, 10000), 7000, (1 + math.sqrt(0.5)) / 2),
        ((6000, 10000), 8000, 0.5),
        ((6000, 10000), 10000, 0.0),
        ((6000, 10000), 20000, 0.0),
        ((0, 4), 1, (1 + math.sqrt(0.5)) / 2),
    ],
)
def test_bias_fades(hold: tuple[int, int], step: int, factor: float) -> None:
    head = _head(hold=hold)
    logits = torch.randn(7)
    full = _head().bias_of(logits)
    head.steps.fill_(step)
    assert head.fade().item() == pytest.approx(factor, abs=1e-6)
    torch.testing.assert_close(head.bias_of(logits), factor * full, rtol=1e-5, atol=1e-6)


def test_fade_is_falling_and_smooth() -> None:
    head, factors = _head(hold=(5, 15)), []
    for step in range(21):
        head.steps.fill_(step)
        factors.append(head.fade().item())
    assert factors[:6] == [1.0] * 6
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[5:16]))
    assert factors[15:] == pytest.approx([0.0] * 6, abs=1e-6)


def test_faded_bias_keeps_the_graph() -> None:
    head = _perturbed(hold=(0, 2))
    head.steps.fill_(5)
    _, bias, _ = head(_tokens(), (4, 5))
    assert bias.abs().max() == 0
    bias.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in head.parameters())


def test_steps_are_counted_in_training_only() -> None:
    spatial = _spatial_bias(hold=(0, 4))
    maps = [torch.zeros(2, CHANNELS, *size) for size in SIZES]
    for expected in (1, 2, 3):
        spatial.train()(maps, 2)
        assert spatial.head.steps.item() == expected
        spatial.eval()(maps, 2)
        assert spatial.head.steps.item() == expected


def test_steps_are_saved() -> None:
    spatial, restored = (_spatial_bias(hold=(0, 4)) for _ in range(2))
    spatial.head.count_step()
    restored.load_state_dict(spatial.state_dict())
    assert restored.head.steps.item() == 1
    assert restored.head.fade() == spatial.head.fade()
