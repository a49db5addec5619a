"""Going on after a kill as if there had been none: files, figures, and what was cut off."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from detectron2.engine import hooks
from detectron2.utils import comm

from maskfreevis_ext.engine.metric_writers import WINDOW
from maskfreevis_ext.exchange import all_gather_json

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

logger = logging.getLogger(__name__)

#: File of the last checkpoint of a finished training.
_FINAL = "model_final.pth"
#: Iterations between two rows of ``metrics.json``; Detectron2's ``PeriodicWriter`` has this number.
_PERIOD = WINDOW


class FirstBatches:
    """The first batches of a loader, again and again.

    Statistics of batch norms then depend on the weights alone, not on how often they were renewed.
    """

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        """Keep the loader, and the number of batches."""
        self.loader, self.count = loader, count

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from itertools.islice(self.loader, self.count)


def prepare_resume(trainer: Trainer) -> bool:
    """Before a training goes on, make its files fit its checkpoint.

    Rows of ``metrics.json`` from steps that will be done again are dropped. A training that was
    killed after its last step gets its last checkpoint.

    Args:
        trainer: After ``resume_or_load``.

    Returns:
        Whether there is nothing to do: the training is finished and was evaluated.
    """
    if not trainer.checkpointer.resumed:
        return False
    is_main = comm.is_main_process()
    if all_gather_json(is_main and _is_finished(trainer))[0]:
        logger.info(
            "Nothing to do: the training in %s is finished (%d of SOLVER.MAX_ITER %d iterations)."
            " Raise SOLVER.MAX_ITER to train on, or add --eval-only to evaluate.",
            trainer.cfg.OUTPUT_DIR,
            trainer.start_iter,
            trainer.max_iter,
        )
        return True
    if is_main:
        is_final = os.path.basename(trainer.checkpointer.loaded_file) == _FINAL
        trainer.metrics.go_on_from(trainer.start_iter, keep_last_evaluation=is_final)
        trainer.tensorboard.go_on_from(trainer.start_iter, trainer.metrics.last_iteration)
        if trainer.start_iter == trainer.max_iter and not is_final:
            trainer.checkpointer.save(_FINAL.removesuffix(".pth"), iteration=trainer.iter)
    return False


def _is_finished(trainer: Trainer) -> bool:
    cfg = trainer.cfg
    if trainer.start_iter < trainer.max_iter or cfg.TEST.EXPECTED_RESULTS:
        return False
    if os.path.basename(trainer.checkpointer.loaded_file) != _FINAL:
        return trainer.start_iter > trainer.max_iter
    rows = trainer.metrics.rows()
    return not cfg.DATASETS.TEST or any(row["iteration"] >= trainer.start_iter for row in rows)


def catch_up(trainer: Trainer) -> None:
    """Evaluate and log the last step of a checkpoint, if a kill has cut that off.

    The hooks behind the one that saves checkpoints have not run then.

    Args:
        trainer: In ``before_train``, with the figures of the checkpoint.
    """
    if not trainer.checkpointer.resumed or trainer.start_iter >= trainer.max_iter:
        return
    if not all_gather_json(comm.is_main_process() and _is_cut_off(trainer))[0]:
        return
    place = next(i for i, hook in enumerate(trainer._hooks) if isinstance(hook, hooks.EvalHook))
    trainer.iter = trainer.storage.iter = trainer.start_iter - 1
    for hook in trainer._hooks[place:]:
        hook.after_step()
    trainer.iter = trainer.storage.iter = trainer.start_iter


def _is_cut_off(trainer: Trainer) -> bool:
    done, step = trainer.start_iter, trainer.start_iter - 1
    rows = [row for row in trainer.metrics.rows() if row["iteration"] == step]
    if done % _PERIOD == 0 and not rows:
        return True
    period = trainer.cfg.TEST.EVAL_PERIOD
    if not trainer.cfg.DATASETS.TEST or period <= 0 or done % period:
        return False
    of_step = {name for name, entry in trainer.figures.items() if entry["values"][-1][1] == step}
    known = of_step | {"iteration", "eta_seconds"}
    return not any(row.keys() - known for row in rows)


def close_writers(trainer: Trainer) -> None:
    """Close the files of a stopped training, whose figures are in its checkpoint."""
    if comm.is_main_process():
        trainer.metrics.close()
        trainer.tensorboard.close()
