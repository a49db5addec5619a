"""One training step: forward, backward, check for NaN and Inf, update."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import nn

from maskfreevis_ext.engine.accumulate import gradient_sync, reset_iteration_counter
from maskfreevis_ext.engine.ema import unwrapped
from maskfreevis_ext.engine.optimizer import FullModelClip, gradient_norm
from maskfreevis_ext.errors import NumericError
from maskfreevis_ext.exchange import all_gather_json, gather_json

_LAYER_SUFFIX = re.compile(r"_\d+$")

#: Mixed-precision training stops after this many skipped steps in a row.
MAX_SKIPPED = 40


class NumericErrorElsewhere(NumericError):
    """Another process of the job met NaN or infinity in the step of this one."""


class TrainStep(SimpleTrainer):
    """Detectron2's training step, in float32 or mixed precision, which keeps NaN off the weights.

    Args:
        model: Maps a batch to a dict of scalar losses.
        data_loader: Yields batches without end.
        optimizer: Steps once per iteration.
        amp_dtype: Type of autocast (mixed precision); None: float32 throughout. With float16,
            whose range is small, a gradient scaler skips steps whose gradients overflow and
            reduces its scale; bfloat16 has the range of float32 and needs no scaler.
        accumulate: Batches of one iteration, whose gradients are averaged (SOLVER.ACCUMULATE).
        raise_together: A loss that is not finite raises in all processes of the job, so that they
            can go on together; otherwise in its own, and the others wait for it in vain.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        amp_dtype: torch.dtype | None = None,
        accumulate: int = 1,
        raise_together: bool = False,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._raise_together = raise_together
        self._fault: NumericError | None = None  # of this step, not raised yet
        self._accumulate = accumulate
        self._device_type = next(model.parameters()).device.type
        self._amp_dtype = amp_dtype
        needs_scaler = amp_dtype is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self._device_type) if needs_scaler else None
        #: Whether a step has begun whose batch has not come yet; the weights are unchanged then.
        self.waits_for_data = False
        #: Batches of this step so far.
        self.batches: list[list[dict]] = []
        self._skipped = 0  # consecutive steps skipped by the gradient scaler

    def run_step(self) -> None:
        """Take one batch, or ``accumulate``, and update the weights once.

        Raises:
            NumericError: A loss or the gradient is NaN or infinite; names the iteration, the losses
                and the videos of the batch. The weights are unchanged.
            NumericErrorElsewhere: A loss of another process is.
        """
        data_time = 0.0
        self.batches, self._fault = [], None
        values: dict[str, float] = {}  # means over the batches
        self.optimizer.zero_grad()
        for index in range(self._accumulate):
            start = time.perf_counter()
            self.waits_for_data = True
            data = next(self._data_loader_iter)
            self.waits_for_data = False
            data_time += time.perf_counter() - start
            self.batches.append(data)
            if index > 0:  # warm-ups count updates, the model counts its calls
                reset_iteration_counter(self.model, self.iter)
            with gradient_sync(self.model, index + 1 == self._accumulate):
                for name, loss in self._backward(data).items():
                    values[name] = values.get(name, 0.0) + loss / self._accumulate
        if self._raise_together:
            self._raise_fault_of_any()
        self.after_backward()
        self._write_losses(values, data_time)
        self._write_unweighted(values)
        self._update_weights(values, [sample for data in self.batches for sample in data])

    def _backward(self, data: list[dict]) -> dict[str, float]:
        """Add the gradients of a batch to those that are there, and return its losses."""
        try:
            with torch.autocast(
                self._device_type, self._amp_dtype, enabled=self._amp_dtype is not None
            ):
                losses = self.model(data)
                total = sum(losses.values()) / self._accumulate
        except NumericError as e:  # raised inside the model, for example by the matcher
            raise NumericError(f"{self._where(data)}: {e}") from e
        scaled = total if self.grad_scaler is None else self.grad_scaler.scale(total)
        scaled.backward()
        # Read after backward() is launched; before, the GPU would be idle while Python waits.
        values = _read(losses)
        self._check(values, data)
        return values

    def _write_losses(self, values: dict[str, float], data_time: float) -> None:
        """Store the means over all processes; Detectron2's own function sends pickles."""
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time)
        gathered = gather_json([values, data_time])
        if not gathered:
            return
        storage.put_scalar("data_time", max(seconds for _, seconds in gathered))
        means = {name: sum(one[name] for one, _ in gathered) / len(gathered) for name in values}
        storage.put_scalar("total_loss", sum(means.values()))
        if len(means) > 1:
            storage.put_scalars(**means)

    def _write_unweighted(self, values: dict[str, float]) -> None:
        """Also log each term without its weight, as ``raw/<name without "loss_">``."""
        criterion = getattr(unwrapped(self.model), "criterion", None)
        weights = getattr(criterion, "weights", {})
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
        if not bad:
            return
        fault = NumericError(
            f"{self._where(data)}: expected finite losses, got {_table(values, bad)}."
        )
        if not self._raise_together:
            raise fault
        self._fault = self._fault or fault

    def _raise_fault_of_any(self) -> None:
        told = all_gather_json(str(self._fault or ""))
        if self._fault is not None:
            raise self._fault
        for rank, text in enumerate(told):
            if text:
                raise NumericErrorElsewhere(f"Rank {rank}: {text}")

    def _update_weights(self, values: dict[str, float], data: list[dict]) -> None:
        clip = self.optimizer if isinstance(self.optimizer, FullModelClip) else None
        if clip is not None:
            clip.grad_norm = None  # stays None if the gradient scaler skips the step
        try:
            if self.grad_scaler is not None:
                self._scaled_step(self.grad_scaler)
            else:
                if clip is None:  # otherwise the optimizer checks the norm
                    gradient_norm(self.optimizer)
                self.optimizer.step()
        except NumericError as e:
            raise NumericError(
                f"{self._where(data)}: {e}; not finite: {self._names_without_finite_gradient()}. "
                f"Losses: {_table(values, list(values)[:6])}."
            ) from None
        if clip is not None and clip.grad_norm is not None:
            get_event_storage().put_scalar("grad_norm", clip.grad_norm.item(), smoothing_hint=True)

    def _scaled_step(self, scaler: torch.amp.GradScaler) -> None:
        scale = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        self._skipped = self._skipped + 1 if scaler.get_scale() < scale else 0
        if self._skipped > MAX_SKIPPED:
            raise NumericError(
                f"expected finite gradients, got NaN or Inf in {self._skipped} steps in a row, "
                f"down to a loss scale of {scale:.3g}"
            )

    def _names_without_finite_gradient(self) -> str:
        names = [n for n, p in self.model.named_parameters() if not _has_finite_gradient(p)]
        if not names:
            return "no single gradient, only the norm of all"
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    def _where(self, data: list[dict]) -> str:
        videos = ", ".join(f"{d.get('video_id')} (frames {d.get('frame_indices')})" for d in data)
        return f"Iteration {self.iter}, videos {videos}"

    def state_dict(self) -> dict[str, Any]:
        """State of optimizer, hooks and gradient scaler."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
            state["skipped"] = self._skipped
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, which may come from a training with or without a gradient scaler."""
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
            self._skipped = state_dict.get("skipped", 0)


def _read(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    """Values of all losses, read in one transfer instead of about sixty that wait for the GPU."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _table(values: dict[str, float], names: list[str]) -> str:
    return ", ".join(f"{name} = {values[name]:.4g}" for name in names)


def _has_finite_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
