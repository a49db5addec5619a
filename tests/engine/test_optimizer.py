"""Parameter groups, clipping and schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from maskfreevis_ext.config import default_config
from maskfreevis_ext.engine.optimizer import build_lr_scheduler, build_optimizer, parameter_groups
from maskfreevis_ext.errors import ConfigError, NumericError
from maskfreevis_ext.modeling.heads.spatial import SpatialBias
from maskfreevis_ext.modeling.heads.spatial_mask import SpatialMaskHead


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.relative_position_bias_table = nn.Parameter(torch.ones(3))


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Block()
        self.head = _Block()
        self.query_embed = nn.Embedding(3, 2)
        self.level_embed = nn.Parameter(torch.ones(3, 2))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.shared = self.head.linear  # the same parameters under a second name


class _Gate(nn.Module):
    """A gate and a temperature that zero is no neutral value of, beside ordinary parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(2))
        self.inner = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)

    def no_weight_decay(self) -> set[str]:
        return {"gate", "inner.bias", "norm.bias", "not_there"}


@pytest.fixture
def cfg():
    cfg = default_config()
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.WARMUP_FACTOR = 1.0
    cfg.SOLVER.WARMUP_ITERS = 0
    return cfg


def test_parameter_groups_follow_the_published_rules(cfg):
    model = _Model()
    found = {}
    for group in parameter_groups(model, cfg):
        for parameter in group["params"]:
            assert parameter not in found
            found[parameter] = (pytest.approx(group["lr"]), group["weight_decay"])
    expected = {
        model.backbone.linear.weight: (0.001, 0.05),
        model.backbone.linear.bias: (0.001, 0.05),  # biases decay too
        model.backbone.norm.weight: (0.001, 0.0),
        model.backbone.norm.bias: (0.001, 0.0),
        model.backbone.relative_position_bias_table: (0.001, 0.0),
        model.head.linear.weight: (0.01, 0.05),
        model.head.linear.bias: (0.01, 0.05),
        model.head.norm.weight: (0.01, 0.0),
        model.head.norm.bias: (0.01, 0.0),
        model.head.relative_position_bias_table: (0.01, 0.0),
        model.query_embed.weight: (0.01, 0.0),
        model.level_embed: (0.01, 0.05),  # a bare parameter, not an embedding
    }
    assert found == expected


def _decays(model: nn.Module, cfg) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: group["weight_decay"]
        for group in parameter_groups(model, cfg)
        for parameter in group["params"]
    }


def test_modules_name_what_is_not_decayed(cfg):
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.02
    assert _decays(nn.Sequential(nn.Linear(1, 1, bias=False), _Gate()), cfg) == {
        "0.weight": 0.05,
        "1.gate": 0.0,
        "1.inner.weight": 0.05,
        "1.inner.bias": 0.0,
        "1.norm.weight": 0.02,
        "1.norm.bias": 0.0,
    }


def test_temperature_strength_and_gates_of_the_spatial_mask_are_not_decayed(cfg):
    head = SpatialMaskHead(4)
    decays = _decays(SpatialBias(head, in_level=0, num_layers=3, gated=True), cfg)
    not_decayed = {name for name, decay in decays.items() if decay == 0}
    assert not_decayed == {"gates", "head.raw_tau", "head.raw_alpha"}


def test_optimizer_kinds(cfg):
    assert isinstance(build_optimizer(cfg, _Model()), torch.optim.AdamW)
    cfg.SOLVER.OPTIMIZER = "SGD"
    sgd = build_optimizer(cfg, _Model())
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == cfg.SOLVER.MOMENTUM
    cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(ConfigError, match=r"SOLVER.OPTIMIZER.*LION"):
        build_optimizer(cfg, _Model())


def test_nothing_to_train_is_an_error(cfg):
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        build_optimizer(cfg, model)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_full_model_clipping_scales_all_gradients_together(cfg, norm_type):
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = norm_type
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    optimizer = build_optimizer(cfg, model)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter, value in zip(model.parameters(), (3.0, -4.0), strict=True):
        parameter.grad = torch.full_like(parameter, value)
    optimizer.step()
    norm = torch.tensor([3.0, -4.0]).norm(norm_type)
    torch.testing.assert_close(optimizer.grad_norm, norm)
    for parameter, old, value in zip(model.parameters(), before, (3.0, -4.0), strict=True):
        expected = old - cfg.SOLVER.BASE_LR * value * 0.5 / norm
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["ADAMW", "SGD"])
@pytest.mark.parametrize("clip_value", [0.01, 1e6])  # far below the norm, and far above
def test_fused_step_with_merged_clipping_equals_the_plain_steps(cfg, kind, clip_value):
    cfg.SOLVER.OPTIMIZER = kind
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip_value
    torch.manual_seed(0)
    models = [nn.Linear(5, 7) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fused, plain = (build_optimizer(cfg, model) for model in models)
    assert all(group["fused"] for group in fused.param_groups)
    for group in plain.param_groups:  # as in a checkpoint of an older version
        group["fused"] = None
    for _ in range(3):
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        fused.step()
        plain.step()
        assert fused.grad_norm == plain.grad_norm
        assert not hasattr(fused, "grad_scale")
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-9)


def test_gradient_scaler_unscales_before_clipping_and_skips_what_overflows(cfg):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(cfg, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)
    assert optimizer.grad_norm == pytest.approx(math.sqrt(6))
    optimizer.grad_norm, before = None, [p.clone() for p in model.parameters()]
    model.weight.grad[0, 0] = math.inf
    scaler.update()
    scaler.step(optimizer)
    assert optimizer.grad_norm is None
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_full_model_clipping_stops_at_a_gradient_that_is_not_finite(cfg):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(cfg, model)
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[1.0, math.nan]])
    model.bias.grad = torch.ones(1)
    with pytest.raises(NumericError, match="nan"):
        optimizer.step()
    assert torch.equal(model.weight, before)
    assert model.bias.grad.item() == 1.0  # so that the gradients tell which one is at fault


@pytest.mark.parametrize(("kind", "expected"), [("value", (0.5, 0.5)), ("norm", (0.5, 0.5))])
def test_other_clip_types_are_those_of_detectron2(cfg, kind, expected):
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    optimizer = build_optimizer(cfg, model)
    before = [p.item() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    steps = [old - p.item() for old, p in zip(before, model.parameters(), strict=True)]
    assert steps == pytest.approx([cfg.SOLVER.BASE_LR * e for e in expected], rel=1e-4)


def _rates(cfg, iterations):
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_multi_step_schedule(cfg):
    cfg.SOLVER.STEPS = (10, 20)
    rates = _rates(cfg, 30)
    assert rates[9] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(0.001)
    assert rates[25] == pytest.approx(0.0001)


def test_steps_after_the_end_are_left_out_and_reported(cfg, caplog):
    cfg.SOLVER.STEPS = (10, 100, 200)
    assert _rates(cfg, 30)[25] == pytest.approx(0.001)
    assert "(10, 100, 200)" in caplog.text


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_poly_schedule_equals_its_formula(cfg, method):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.2
    cfg.SOLVER.WARMUP_FACTOR = 0.1
    cfg.SOLVER.WARMUP_ITERS = 10
    cfg.SOLVER.WARMUP_METHOD = method
    rates = _rates(cfg, 100)
    for i, rate in enumerate(rates):
        poly = (1 - i / 100) ** 0.9
        if i < 10:
            factor = 0.1 if method == "constant" else 0.1 * (1 - i / 10) + i / 10
            expected = factor * poly
        else:
            expected = max(poly, 0.2)
        assert rate == pytest.approx(0.01 * expected), i


def test_poly_schedule_refuses_an_unknown_warm_up(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.WARMUP_METHOD = "exponential"
    with pytest.raises(ConfigError, match="WARMUP_METHOD"):
        _rates(cfg, 1)
