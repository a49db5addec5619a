"""Ctrl-C and SIGTERM in a training: the step ends, a checkpoint is saved."""

from __future__ import annotations

import itertools
import signal

import pytest
from detectron2.engine import HookBase

from maskfreevis_ext.engine.interrupt import Terminated
from maskfreevis_ext.engine.stopping import stopped_message
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.killed_training import figures, weights_hash
from tests.helpers.trainers import make_trainer

OPTIONS = ("SOLVER.CHECKPOINT_PERIOD", 100, "LOG.REPORT", False, "TEST.EVAL_PERIOD", 3)


class _Signal(HookBase):
    """Sends a signal to this process in the middle of a step."""

    def __init__(self, number: signal.Signals, step: int) -> None:
        self.number, self.step = number, step

    def after_backward(self) -> None:
        if self.trainer.iter == self.step:
            signal.raise_signal(self.number)


def _trainer(videos, folder) -> Trainer:
    return make_trainer(videos, folder, *OPTIONS, resume=True)


@pytest.fixture(scope="module")
def whole(tiny_videos, tmp_path_factory):
    """A training that is not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    _trainer(tiny_videos, folder).train()
    return folder


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_stopped_training_goes_on_as_if_it_had_not_been(
    whole, tiny_videos, tmp_path, number, error
):
    trainer = _trainer(tiny_videos, tmp_path)
    trainer._trainer.register_hooks([_Signal(number, 1)])
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.train()
    assert type(stop.value) is error
    path = tmp_path / "model_0000001.pth"
    assert str(stop.value) == stopped_message(str(path), 2, 4)
    assert "Stopped after 2 of 4 iterations" in str(stop.value)
    again = _trainer(tiny_videos, tmp_path)
    assert again.start_iter == 2
    again.train()
    assert weights_hash(tmp_path) == weights_hash(whole)
    assert figures(tmp_path) == figures(whole)


@pytest.mark.parametrize("calls", [1, 2])
def test_evaluation_is_stopped_at_once_and_made_up_for(
    whole, tiny_videos, tmp_path, calls, monkeypatch
):
    """In the middle of the training, and behind its end."""
    trainer = _trainer(tiny_videos, tmp_path)
    evaluate, left = Trainer.test.__func__, [calls]

    def interrupted(cls, *args):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(cls, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", classmethod(interrupted))
        with pytest.raises(Terminated, match=f"after {2 + calls} of 4 iterations"):
            trainer.train()
    again = _trainer(tiny_videos, tmp_path)
    assert again.start_iter == 2 + calls
    again.train()
    assert weights_hash(tmp_path) == weights_hash(whole)
    assert figures(tmp_path) == figures(whole)


@pytest.mark.parametrize("step", [0, 2])
def test_signal_that_ends_the_workers_too_leaves_the_last_whole_step(
    whole, tiny_videos, tmp_path, step
):
    trainer = _trainer(tiny_videos, tmp_path)
    batches = iter(trainer.batches)

    def interrupted():
        yield from itertools.islice(batches, step)
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    trainer._trainer._data_loader_iter_obj = interrupted()
    said = f"after {step} of 4" if step else "before the first of 4"
    with pytest.raises(Terminated, match=f"Stopped {said} iterations"):
        trainer.train()
    again = _trainer(tiny_videos, tmp_path)
    assert again.start_iter == step
    again.train()
    assert weights_hash(tmp_path) == weights_hash(whole)
    assert figures(tmp_path) == figures(whole)


def test_message_says_when_the_checkpoint_could_not_be_saved(tmp_path):
    assert "could not be saved" in stopped_message(str(tmp_path / "gone.pth"), 1, 2)
