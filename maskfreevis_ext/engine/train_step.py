"""One training step: forward, backward, the check that all is finite, update."""

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

from maskfreevis_ext.engine.optimizer import FullModelClip, gradient_norm
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
        amp_dtype: Compute in this type where that is safe (mixed precision); None: float32
            throughout. With float16, whose range is small, a gradient scaler leaves out the steps
            whose gradients overflow, and tries a smaller scale; bfloat16 has the range of float32
            and needs none.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._device_type = next(model.parameters()).device.type
        self._amp_dtype = amp_dtype
        needs_scaler = amp_dtype is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self._device_type) if needs_scaler else None
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
        try:
            with torch.autocast(
                self._device_type, self._amp_dtype, enabled=self._amp_dtype is not None
            ):
                losses = self.model(data)
                total = sum(losses.values())
        except NumericError as e:  # found inside the model, by the matcher for example
            raise NumericError(f"{self._where(data)}: {e}") from e
        self.optimizer.zero_grad()
        scaled = total if self.grad_scaler is None else self.grad_scaler.scale(total)
        scaled.backward()
        # Read after backward() is launched: a GPU would have nothing to do while Python reads.
        values = _read(losses)
        self._check(values, data)
        self.after_backward()
        self._write_metrics(
            {name: torch.tensor(value) for name, value in values.items()}, data_time
        )
        self._write_unweighted(values)
        self._update_weights(values, data)

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

    def _update_weights(self, values: dict[str, float], data: list[dict]) -> None:
        clip = self.optimizer if isinstance(self.optimizer, FullModelClip) else None
        if clip is not None:
            clip.grad_norm = None  # stays so where the gradient scaler leaves the step out
        try:
            if self.grad_scaler is not None:
                self._scaled_step(self.grad_scaler)
            else:
                if clip is None:  # else the optimizer checks
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
                f"expected finite gradients, got {self._skipped} steps in a row without, down to a "
                f"loss scale of {scale:.3g}"
            )

    def _names_without_finite_gradient(self) -> str:
        names = [n for n, p in self.model.named_parameters() if not _has_finite_gradient(p)]
        if not names:
            return "none by itself, only the norm of all"
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    def _where(self, data: list[dict]) -> str:
        videos = ", ".join(f"{d.get('video_id')} (frames {d.get('frame_indices')})" for d in data)
        return f"Iteration {self.iter}, videos {videos}"

    def state_dict(self) -> dict[str, Any]:
        """State of optimizer, hooks and gradient scaler."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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
