"""Runs a batch of ``bad_batches`` again and shows where NaN or Inf begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from maskfreevis_ext.engine.accumulate import reset_iteration_counter
from maskfreevis_ext.engine.random_state import seed_step
from maskfreevis_ext.errors import CheckpointError, NumericError
from maskfreevis_ext.safe_load import load_pth

_NEEDED = {"iteration", "seed", "rank", "error", "batches", "model"}


@dataclass
class Replay:
    """What a batch did when it was run again.

    Attributes:
        losses: Of each of the batches of the step, by name.
        outputs: Modules whose outputs were not finite, the first one first, with the tensors.
        gradients: Parameters whose gradients are not finite.
        error: Message of the error that ended the forward pass; "" for none.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def is_finite(self) -> bool:
        """Whether all was finite this time."""
        values = [value for losses in self.losses for value in losses.values()]
        finite = bool(torch.tensor(values).isfinite().all()) if values else True
        return finite and not (self.outputs or self.gradients or self.error)


def read_bad_batch(path: str) -> dict[str, Any]:
    """The content of a ``bad_batch_*.pt``.

    Args:
        path: The file.

    Raises:
        CheckpointError: It is no such file, or damaged.
    """
    content = load_pth(path)
    missing = _NEEDED - set(content) if isinstance(content, dict) else _NEEDED
    if missing or not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a bad_batch_*.pt of a training, got a file without "
            f"{', '.join(sorted(missing))}."
        )
    return content


def replay(cfg: CfgNode, content: dict[str, Any], path: str) -> Replay:
    """Run forward and backward pass in float32, with the random numbers of the training step.

    Args:
        cfg: The config of the training.
        content: Of ``read_bad_batch``.
        path: Its file, for messages.

    Raises:
        CheckpointError: The weights do not fit the model of the config.
    """
    model: nn.Module = build_model(cfg).train()
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its weights do not fit the model of the config ({error})."
        ) from error
    result = Replay()
    hooks = [
        module.register_forward_hook(_watch(name, result.outputs))
        for name, module in model.named_modules()
    ]
    seed_step(content["seed"], content["iteration"], content["rank"])
    try:
        for batch in content["batches"]:
            reset_iteration_counter(model, content["iteration"])
            losses = model(batch)
            result.losses.append({name: float(loss.detach()) for name, loss in losses.items()})
            sum(losses.values(), torch.zeros(())).backward()
    except NumericError as error:
        result.error = str(error)
    finally:
        for hook in hooks:
            hook.remove()
    result.gradients = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return result


def _watch(name: str, found: list[str]) -> Any:
    """A forward hook that notes outputs that are not finite."""

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        bad = [
            f"{key or 'output'} {tuple(tensor.shape)}: {_count(tensor)}"
            for key, tensor in _tensors(output)
            if tensor.is_floating_point() and not bool(tensor.isfinite().all())
        ]
        if bad:
            found.append(f"{name or 'the model'} ({type(module).__name__}): {'; '.join(bad)}")

    return hook


def _count(tensor: Tensor) -> str:
    nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return f"{nan} NaN, {inf} Inf of {tensor.numel()}"


def _tensors(value: Any, key: str = "") -> list[tuple[str, Tensor]]:
    """All tensors of nested dicts, lists and tuples, with their places."""
    if isinstance(value, Tensor):
        return [(key, value.detach())]
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return []
    return [pair for name, one in items for pair in _tensors(one, f"{key}[{name!r}]")]
