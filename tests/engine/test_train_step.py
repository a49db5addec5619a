"""One training step, and what it does with numbers that are not finite."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from maskfreevis_ext.engine import train_step
from maskfreevis_ext.engine.optimizer import with_full_model_clipping
from maskfreevis_ext.engine.train_step import MAX_SKIPPED, TrainStep
from maskfreevis_ext.errors import NumericError


class _Model(nn.Module):
    """loss_a = w * x, loss_b = a * w ** 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        x, a = batch[0]["x"], batch[0]["a"]
        return {"loss_a": (self.w * x).sum(), "loss_b": (a * torch.sqrt(self.w - 2.0)).sum()}


def _step(x: float, a: float, *, clip: bool = False) -> tuple[TrainStep, EventStorage]:
    model = _Model()
    kind = with_full_model_clipping(torch.optim.SGD, 1.0, 2.0) if clip else torch.optim.SGD
    loader = [[{"x": x, "a": a, "video_id": 7, "frame_indices": [1, 4]}]] * 3
    step = TrainStep(model, loader, kind(model.parameters(), lr=0.1))
    step.iter = 12
    storage = EventStorage(12)
    with storage:
        step.run_step()
    return step, storage


def test_step_updates_the_weights_and_writes_the_losses():
    model = _Model()
    model.w.data.fill_(3.0)  # d/dw = x + a / (2 sqrt(1)) = 3 + 2
    step = TrainStep(
        model,
        [[{"x": 3.0, "a": 4.0}]],
        with_full_model_clipping(torch.optim.SGD, 100.0, 2.0)(model.parameters(), lr=0.1),
    )
    step.iter = 0
    with EventStorage(0) as storage:
        step.run_step()
    assert model.w.item() == pytest.approx(2.5)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["loss_a"] == pytest.approx(9.0)
    assert latest["loss_b"] == pytest.approx(4.0)
    assert latest["total_loss"] == pytest.approx(13.0)
    assert latest["grad_norm"] == pytest.approx(5.0)
    assert latest["data_time"] >= 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_before_the_update(bad):
    model = _Model()
    step = TrainStep(
        model,
        [[{"x": bad, "a": 0.0, "video_id": 7, "frame_indices": [1, 4]}]],
        torch.optim.SGD(model.parameters(), lr=0.1),
    )
    step.iter = 12
    with EventStorage(12), pytest.raises(NumericError) as error:
        step.run_step()
    message = str(error.value)
    for part in ("Iteration 12", "7", "[1, 4]", "loss_a", str(bad)):
        assert part in message
    assert "loss_b" not in message
    assert model.w.item() == 2.0


@pytest.mark.parametrize("clip", [False, True])
def test_gradient_that_is_not_finite_stops_before_the_update(clip):
    # At w = 2 the loss is 6, but the derivative of the square root is infinite.
    with pytest.raises(NumericError) as error:
        _step(3.0, 1.0, clip=clip)
    message = str(error.value)
    for part in ("Iteration 12", "video", "7", "gradient", "inf", "loss_a = 6", "w"):
        assert part in message


class _TwoBranches(nn.Module):
    """Two parameters, of which one has a finite loss with an infinite gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Parameter(torch.tensor([1.0]))
        self.bad = nn.Parameter(torch.tensor([0.0]))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return {"loss": (self.good + torch.sqrt(self.bad)).sum()}


@pytest.mark.parametrize("clip", [False, True])
def test_only_parameters_at_fault_are_named(clip):
    model = _TwoBranches()
    kind = with_full_model_clipping(torch.optim.SGD, 1.0, 2.0) if clip else torch.optim.SGD
    step = TrainStep(model, [[{"video_id": 7}]], kind(model.parameters(), lr=0.1))
    step.iter = 0
    with EventStorage(0), pytest.raises(NumericError, match=r"not finite: bad\. Losses"):
        step.run_step()
    assert (model.good.item(), model.bad.item()) == (1.0, 0.0)


class _Large(nn.Module):
    """Two finite gradients whose squares overflow in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return {"loss": (self.a * 1e30 + self.b * 1e30).sum()}


def test_norm_that_overflows_blames_no_parameter():
    model = _Large()
    step = TrainStep(model, [[{"video_id": 7}]], torch.optim.SGD(model.parameters(), lr=0.1))
    step.iter = 0
    with EventStorage(0), pytest.raises(NumericError, match="not finite: no single gradient"):
        step.run_step()


def test_losses_are_read_after_backward_and_before_the_update(monkeypatch):
    """On a GPU, reading waits for the device, which has backward() to compute meanwhile."""
    model = _Model()
    model.w.data.fill_(3.0)
    events = []
    read = train_step._read

    def recorded(losses: dict[str, torch.Tensor]) -> dict[str, float]:
        events.append("read")
        return read(losses)

    monkeypatch.setattr(train_step, "_read", recorded)
    model.w.register_post_accumulate_grad_hook(lambda _: events.append("backward"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: events.append("update"))
    step = TrainStep(model, [[{"x": 3.0, "a": 4.0}]], optimizer)
    step.iter = 0
    with EventStorage(0):
        step.run_step()
    assert events == ["backward", "read", "update"]


def test_nan_found_inside_the_model_gets_iteration_and_videos():
    class _Matcher(_Model):
        def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
            raise NumericError("cost of query 3 is nan")

    model = _Matcher()
    loader = [[{"video_id": 7, "frame_indices": [1, 4]}]]
    step = TrainStep(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
    step.iter = 12
    with EventStorage(12), pytest.raises(NumericError, match=r"12.*7.*\[1, 4\].*query 3 is nan"):
        step.run_step()


class _Linear(nn.Module):
    """A loss whose gradient overflows in float16 where ``x`` is large."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.linear.weight)
        self.dtypes: set[torch.dtype] = set()

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        y = self.linear(torch.full((1, 1), batch[0]["x"]))
        self.dtypes.add(y.dtype)
        return {"loss": y.float().sum()}


@pytest.mark.parametrize("clip", [False, True])
def test_mixed_precision_leaves_out_steps_that_overflow(clip):
    model = _Linear()
    kind = with_full_model_clipping(torch.optim.SGD, 1.0, 2.0) if clip else torch.optim.SGD
    loader = [[{"x": x}] for x in (2.0, 2.0, 60000.0, 2.0)]
    step = TrainStep(model, loader, kind(model.parameters(), lr=0.1), amp_dtype=torch.float16)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weights = []
    with EventStorage(0) as storage:
        for step.iter in range(4):
            storage.iter = step.iter
            step.run_step()
            weights.append(model.linear.weight.item())
    norms = [(i, norm) for norm, i in storage.histories()["grad_norm"].values()] if clip else []
    # nothing for the step that was left out, rather than the norm of the step before
    assert norms == ([(0, 2.0), (1, 2.0), (3, 2.0)] if clip else [])
    assert model.dtypes == {torch.float16}
    size = 0.1 if clip else 0.2
    assert weights == pytest.approx([1 - size, 1 - 2 * size, 1 - 2 * size, 1 - 3 * size], rel=1e-3)
    assert step.grad_scaler.get_scale() == 2.0
    assert step.state_dict()["grad_scaler"]["scale"] == 2.0


def test_bfloat16_needs_no_gradient_scaler():
    """A gradient that overflows in float16 is none in bfloat16, and no step is left out."""
    model = _Linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    step = TrainStep(model, [[{"x": 1e5}]], optimizer, amp_dtype=torch.bfloat16)
    step.iter = 0
    with EventStorage(0):
        step.run_step()
    assert model.dtypes == {torch.bfloat16}
    assert step.grad_scaler is None
    assert "grad_scaler" not in step.state_dict()
    assert model.linear.weight.item() == pytest.approx(0.9, rel=1e-2)


def test_mixed_precision_does_not_leave_out_steps_for_ever():
    class _Never(_Model):
        def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
            return {"loss": torch.sqrt(self.w - 2.0).sum()}  # an infinite gradient at w = 2

    model = _Never()
    loader = [[{"video_id": 7}]] * (MAX_SKIPPED + 1)
    step = TrainStep(
        model, loader, torch.optim.SGD(model.parameters(), lr=0.1), amp_dtype=torch.float16
    )
    with EventStorage(0):
        for step.iter in range(MAX_SKIPPED):
            step.run_step()
        step.iter = MAX_SKIPPED
        with pytest.raises(NumericError, match="in a row"):
            step.run_step()
    assert model.w.item() == 2.0


def test_state_goes_round():
    model = _Model()
    step = TrainStep(model, [], torch.optim.AdamW(model.parameters(), lr=0.5))
    other_model = _Model()
    other = TrainStep(other_model, [], torch.optim.AdamW(other_model.parameters(), lr=0.1))
    other.load_state_dict(step.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == 0.5


def test_state_of_a_mixed_precision_training_loads_without_a_gpu():
    model = _Model()
    step = TrainStep(model, [], torch.optim.SGD(model.parameters(), lr=0.5))
    step.load_state_dict({**step.state_dict(), "grad_scaler": {"scale": 2.0}})
    assert "grad_scaler" not in step.state_dict()


class _Criterion:
    """Weights of the terms as ``VideoSetCriterion`` has them."""

    weights: dict[str, float] = {"loss_a": 4.0, "loss_b_c": 0.5, "loss_off": 0.0}  # noqa: RUF012


class _Terms(nn.Module):
    """The same terms at every step, times the only weight of the model, which is 1."""

    terms: dict[str, float] = {  # noqa: RUF012
        "loss_a": 8.0,
        "loss_a_0": 6.0,
        "loss_a_12": 2.0,
        "loss_b_c": 3.0,
        "loss_b_c_0": 0.0,
        "loss_off": 0.0,
        "loss_off_0": 0.0,
        "loss_unknown": 5.0,
    }

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return {name: self.w * value for name, value in self.terms.items()}


class _Wrapped(nn.Module):
    """A model in another, as in distributed training."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return self.module(batch)


def _written(model: nn.Module) -> dict[str, float]:
    step = TrainStep(model, [[{}]], torch.optim.SGD(model.parameters(), lr=0.1))
    step.iter = 0
    with EventStorage(0) as storage:
        step.run_step()
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_terms_are_written_without_their_weights_too(is_wrapped):
    model = _Terms()
    model.criterion = _Criterion()
    latest = _written(_Wrapped(model) if is_wrapped else model)
    raw = {name: value for name, value in latest.items() if name.startswith("raw/")}
    assert raw == {
        "raw/a": pytest.approx(2.0),
        "raw/a_0": pytest.approx(1.5),
        "raw/a_12": pytest.approx(0.5),
        "raw/b_c": pytest.approx(6.0),
        "raw/b_c_0": 0.0,
    }
    assert {name: latest[name] for name in _Terms.terms} == pytest.approx(_Terms.terms)
    assert latest["total_loss"] == pytest.approx(24.0)


@pytest.mark.parametrize("criterion", ["absent", None, nn.Identity()], ids=str)
def test_model_without_weights_has_no_unweighted_terms(criterion):
    model = _Terms()
    if criterion != "absent":
        model.criterion = criterion
    latest = _written(model)
    assert not any(name.startswith("raw/") for name in latest)
    assert latest["loss_a"] == pytest.approx(8.0)
