"""One training step: forward, backward, the check that all is finite, update."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable

import detectron2.utils.comm as comm
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import nn

from maskfreevis_ext.errors import NumericError

_LAYER_SUFFIX = re.compile(r"_\d+$")

#: A mixed-precision training ends when this many steps in a row were left out.
MAX_SKIPPED = 40


class TrainStep(SimpleTrainer):
    """Detectron2's training step, in float32 or mixed precision, that never learns NaN or Inf.

    Args:
        model: Takes a batch, returns a dict of scalar losses.
        data_loader: Gives batches without end.
        optimizer: Steps once per iteration.
        amp: Compute in float16 where that is safe. A gradient scaler leaves out the steps whose
            gradients overflow, and tries smaller ones.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        amp: bool = False,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self._device_type) if amp else None
        self._skipped = 0  # steps in a row that the gradient scaler left out

    def run_step(self) -> None:
        """Take one batch and update the weights once.

        Raises:
            NumericError: A loss or the gradient is NaN or infinite; names the iteration, the losses
                and the videos of the batch. The weights are as they were before the step.
        """
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        amp = self.grad_scaler is not None
        try:
            with torch.autocast(self._device_type, torch.float16, enabled=amp):
                losses = self.model(data)
                total = sum(losses.values())
            values = _read(losses)
        except NumericError as e:  # found inside the model, by the matcher for example
            raise NumericError(f"{self._where(data)}: {e}") from e
        self._check(values, data)
        self.optimizer.zero_grad()
        if self.grad_scaler is None:
            total.backward()
        else:
            self.grad_scaler.scale(total).backward()
        self.after_backward()
        self._write_metrics(
            {name: torch.tensor(value) for name, value in values.items()}, data_time
        )
        self._write_unweighted(values)
        self._update(values, data)

    def _write_unweighted(self, values: dict[str, float]) -> None:
        """Log each term without its weight too, as ``raw/`` + its name without "loss_"."""
        model = getattr(self.model, "module", self.model)
        weights = getattr(getattr(model, "criterion", None), "weights", {})
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        latest = storage.latest()  # means over all processes
        for name in values:
            weight = weights.get(_LAYER_SUFFIX.sub("", name), 0)
            if weight and name in latest:
                storage.put_scalar("raw/" + name.removeprefix("loss_"), latest[name][0] / weight)

    def _check(self, values: dict[str, float], data: list[dict]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NumericError(
                f"{self._where(data)}: expected finite losses, got {_table(values, bad)}."
            )

    def _update(self, values: dict[str, float], data: list[dict]) -> None:
        try:
            if self.grad_scaler is not None:
                self._scaled_step()
            else:
                if not hasattr(self.optimizer, "grad_norm"):
                    _check_gradients(self.optimizer)
                self.optimizer.step()
        except NumericError as e:
            names = [n for n, p in self.model.named_parameters() if not _has_finite_gradient(p)]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise NumericError(
                f"{self._where(data)}: {e}; not finite: {', '.join(names[:5])}{more}. "
                f"Losses: {_table(values, list(values)[:6])}."
            ) from None
        norm = getattr(self.optimizer, "grad_norm", None)
        if norm is not None:
            get_event_storage().put_scalar("grad_norm", norm.item(), smoothing_hint=True)

    def _scaled_step(self) -> None:
        scale = self.grad_scaler.get_scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._skipped = self._skipped + 1 if self.grad_scaler.get_scale() < scale else 0
        if self._skipped > MAX_SKIPPED:
            raise NumericError(
                f"expected finite gradients, got {self._skipped} steps in a row without, down to a "
                f"loss scale of {scale:.3g}"
            )

    def _where(self, data: list[dict]) -> str:
        videos = ", ".join(f"{d.get('video_id')} (frames {d.get('frame_indices')})" for d in data)
        return f"Iteration {self.iter}, videos {videos}"

    def state_dict(self) -> dict:
        """State of optimizer, hooks and gradient scaler."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over the state of another training, with or without a gradient scaler."""
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def _read(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    """The values of all losses; reading each by itself would wait for the GPU some sixty times."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _table(values: dict[str, float], names: list[str]) -> str:
    return ", ".join(f"{name} = {values[name]:.4g}" for name in names)


def _has_finite_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


def _check_gradients(optimizer: torch.optim.Optimizer) -> None:
    grads = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    norm = nn.utils.get_total_norm(grads)
    if not torch.isfinite(norm):
        raise NumericError(f"expected finite gradients, got a norm of {norm.item()}")
