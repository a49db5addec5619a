"""Moving averages of a model's weights: the average of SOLVER.EMA, and that of a mean teacher."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from detectron2.engine import HookBase
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

Model = TypeVar("Model", bound=nn.Module)


def copy_for_average(model: Model) -> Model:
    """A copy of a model in evaluation mode, whose weights get no gradients.

    Args:
        model: The model, without a wrapper for several processes.
    """
    return copy.deepcopy(model).eval().requires_grad_(False)


def warm_decay(decay: float, step: int) -> float:
    """Decay at an iteration: smaller at first, so that the first weights are soon forgotten.

    Args:
        decay: The decay that is reached, in [0, 1].
        step: Iterations done before this one, >= 0.

    Example:
        >>> warm_decay(0.99, 0), warm_decay(0.99, 10_000)
        (0.1, 0.99)
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def follow_weights(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average towards a model: ``decay`` x average + (1 - ``decay``) x model, in place.

    Args:
        average: Of the same kind as ``model``. Its buffers become those of ``model``.
        model: The model.
        decay: In [0, 1]; 0 copies.
    """
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), 0)
    for mine, new in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(new)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for several processes, or the model itself.

    Args:
        model: With or without ``DistributedDataParallel``.
    """
    inner: nn.Module = getattr(model, "module", model)
    return inner


class FollowWeights(HookBase):
    """Lets an average follow the trainer's model after every iteration; faster at first.

    Subclasses save and load the average, and set ``is_restored`` when it was loaded.

    Attributes:
        model: The average, in evaluation mode.
    """

    trainer: Trainer

    def __init__(self, average: nn.Module, decay: float) -> None:
        """Keep the average.

        Args:
            average: Of ``copy_for_average``.
            decay: The decay that is reached, in [0, 1].
        """
        self.model = average
        self.is_restored = False
        self._decay = decay

    def before_train(self) -> None:
        """Start from the model, whose weights may have been loaded, unless resumed."""
        if not self.is_restored:
            follow_weights(self.model, unwrapped(self.trainer.model), 0.0)

    def after_step(self) -> None:
        """Take the new weights in."""
        decay = warm_decay(self._decay, self.trainer.iter)
        follow_weights(self.model, unwrapped(self.trainer.model), decay)


class AverageWeights(FollowWeights):
    """Averages the weights of the trainer's model after every iteration (SOLVER.EMA).

    Checkpoints hold the average as ``model`` (``SafeCheckpointer.saved_model``), and, in the state
    of this hook, the weights in training. So every reader of a checkpoint takes what was evaluated,
    and a resumed training goes on exactly where it stopped.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy the model.

        Args:
            model: The model that is trained, without a wrapper.
            decay: SOLVER.EMA, in (0, 1).
        """
        super().__init__(copy_for_average(model), decay)

    def state_dict(self) -> dict[str, Any]:
        """The weights in training."""
        return {"trained": unwrapped(self.trainer.model).state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put average and weights in training in their places.

        Args:
            state_dict: Of ``state_dict``. The model holds the average: ``model`` of the checkpoint.
        """
        model = unwrapped(self.trainer.model)
        self.model.load_state_dict(model.state_dict())
        model.load_state_dict(state_dict["trained"])
        self.is_restored = True
