"""Evaluation while training: it keeps the best weights, and loses nothing where it fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

logger = logging.getLogger(__name__)


class GuardedEvaluation:
    """The evaluation of a training, with what has to be saved before or after it.

    Where TEST.BEST_METRIC rises, the weights are saved as ``model_best.pth``. The best value so far
    stands in the manifest of OUTPUT_DIR, so that a resumed training knows it. An error in an
    evaluation ends the training, after the last step has been saved.

    Args:
        trainer: The trainer.
        evaluate: Its evaluation.
    """

    def __init__(self, trainer: Trainer, evaluate: Callable[[], Any]) -> None:
        self._trainer, self._evaluate = trainer, evaluate
        self._metric = trainer.cfg.TEST.BEST_METRIC

    def __call__(self) -> Any:
        """Evaluate.

        Returns:
            The results of the evaluation.

        Raises:
            Exception: Whatever ends the evaluation.
        """
        try:
            results = self._evaluate()
        except Exception:
            self._save_last_step()
            raise
        if self._metric and results and comm.is_main_process():
            self._keep_best(results)
        return results

    def _keep_best(self, results: Mapping[str, Any]) -> None:
        checkpointer = self._trainer.checkpointer
        value = float(flatten_results_dict(results).get(self._metric, math.nan))
        best = checkpointer.record.best(self._metric)
        if not math.isfinite(value):
            logger.warning("TEST.BEST_METRIC: %s has no value: no best weights.", self._metric)
        elif best is None or value > best:
            last = min(self._trainer.iter, self._trainer.max_iter - 1)
            logger.info("%s %.4f is the best so far.", self._metric, value)
            checkpointer.save_best(self._metric, value, last)

    def _save_last_step(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        last = self._trainer.iter
        done, period = last + 1, self._trainer.cfg.SOLVER.CHECKPOINT_PERIOD
        if done % period and done < self._trainer.max_iter:
            self._trainer.checkpointer.save(f"model_{last:07d}", iteration=last)
