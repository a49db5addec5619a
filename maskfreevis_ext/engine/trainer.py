"""Detectron2's trainer with the data, optimizer, checkpoints and checks of this project."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.data.loaders import TrainBatches, build_test_loader, build_train_loader
from maskfreevis_ext.engine.accumulate import reset_iteration_counter
from maskfreevis_ext.engine.bad_batches import BadBatches, skips_together
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.console import ConsoleWriter
from maskfreevis_ext.engine.ema import AverageWeights, unwrapped
from maskfreevis_ext.engine.evaluation_sets import (
    check_best_metric,
    check_label_space,
    check_test_classes,
    check_test_sets,
    inference_folder,
)
from maskfreevis_ext.engine.guarded_evaluation import GuardedEvaluation
from maskfreevis_ext.engine.hooks import DrawPredictions, WriteReport
from maskfreevis_ext.engine.interrupt import StopOnInterrupt, stop_error
from maskfreevis_ext.engine.metric_writers import (
    MetricsWriter,
    TensorBoardWriter,
    restore_storage,
    storage_state,
)
from maskfreevis_ext.engine.optimizer import build_lr_scheduler, build_optimizer
from maskfreevis_ext.engine.random_state import seed_step
from maskfreevis_ext.engine.resume import FirstBatches, catch_up, close_writers, prepare_resume
from maskfreevis_ext.engine.self_training import (
    EmaTeacher,
    FollowModel,
    SelfTrainingSettings,
    TaughtBatches,
)
from maskfreevis_ext.engine.stopping import NOTICE, StopAtStep, stopped_message
from maskfreevis_ext.engine.train_step import TrainStep
from maskfreevis_ext.errors import MaskFreeError, NumericError
from maskfreevis_ext.evaluation import build_evaluator, evaluator_names
from maskfreevis_ext.evaluation.class_matching import match_classes
from maskfreevis_ext.files import remove_unfinished
from maskfreevis_ext.inference.video_model import VideoModel
from maskfreevis_ext.inference.window import WindowSettings
from maskfreevis_ext.out_of_memory import explain_out_of_memory, prediction_hints, training_hints
from maskfreevis_ext.precision import amp_dtype_of

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains, evaluates and saves a video model.

    Args:
        cfg: A config of ``load_config`` or ``setup_config``.

    Raises:
        ConfigError: The number of classes does not fit the data set, SOLVER.AMP.DTYPE does not fit
            the device, a name in TEST.EVALUATORS is unknown, or TEST.BEST_METRIC is not measured.
        DataError: The training set or a test set cannot be used, or a test set cannot be scored.
    """

    _trainer: TrainStep

    def __init__(self, cfg: CfgNode) -> None:
        # Not DefaultTrainer.__init__, which would build its own training step and checkpointer.
        super(DefaultTrainer, self).__init__()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.batches = self.build_train_loader(cfg)
        data_loader: Iterable = self.batches
        check_label_space(cfg)
        check_best_metric(cfg, check_test_sets(cfg))
        class_names = MetadataCatalog.get(cfg.DATASETS.TRAIN[-1]).get("thing_classes")
        check_test_classes(cfg, class_names)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.teacher: EmaTeacher | None = None
        if cfg.MODEL.MASKFREE.SELF_TRAINING.ENABLED:
            settings = SelfTrainingSettings(**SelfTrainingSettings.from_config(cfg))
            self.teacher = EmaTeacher(model, settings)
            data_loader = TaughtBatches(data_loader, self.teacher)
        self.average = AverageWeights(model, cfg.SOLVER.EMA) if cfg.SOLVER.EMA > 0 else None
        on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
        amp_dtype = None
        if cfg.SOLVER.AMP.ENABLED:
            amp_dtype = amp_dtype_of("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, cfg.MODEL.DEVICE)
        together = skips_together(cfg.SOLVER.ON_NONFINITE, model)
        model = create_ddp_model(
            model, broadcast_buffers=False, device_ids=[comm.get_local_rank()] if on_gpu else None
        )
        self._trainer = TrainStep(
            model, data_loader, optimizer, amp_dtype, cfg.SOLVER.ACCUMULATE, together
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            class_names=class_names,
            config=cfg.dump(),
            max_to_keep=cfg.SOLVER.CHECKPOINT_MAX_TO_KEEP,
            trainer=weakref.proxy(self),
        )
        if self.average is not None:
            self.checkpointer.saved_model = self.average.model
        self.metrics = MetricsWriter(os.path.join(cfg.OUTPUT_DIR, "metrics.json"))
        self.tensorboard = TensorBoardWriter(cfg.OUTPUT_DIR)
        self.stop = StopOnInterrupt(
            NOTICE if comm.is_main_process() else "", comm.get_world_size() > 1
        )
        self.bad_batches = BadBatches(cfg.SOLVER.ON_NONFINITE)
        self.seed = self.batches.seed
        self.figures: dict[str, Any] = {}  # of the checkpoint that the training goes on from
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the newest checkpoint of OUTPUT_DIR, or load MODEL.WEIGHTS.

        Args:
            resume: Look for a checkpoint in OUTPUT_DIR first. If there is none, MODEL.WEIGHTS is
                loaded.

        Raises:
            CheckpointError: The file cannot be used, or all checkpoints of OUTPUT_DIR are damaged.
        """
        if comm.is_main_process():
            remove_unfinished(self.cfg.OUTPUT_DIR, with_subfolders=True)
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1
        elif not self.cfg.MODEL.WEIGHTS:
            logger.info("MODEL.WEIGHTS is empty: training from random weights.")
        reset_iteration_counter(self.model, self.start_iter)
        self.batches.start_at(self.start_iter * self.cfg.SOLVER.ACCUMULATE, self.seed)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model whose predictions count: the average of SOLVER.EMA, or the one in training."""
        return self.model if self.average is None else self.average.model

    # Detectron2's DefaultTrainer has the same override.
    def train(self) -> Any:
        """Train from ``start_iter`` to SOLVER.MAX_ITER.

        Returns:
            The results of the last evaluation with TEST.EXPECTED_RESULTS, otherwise None.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the step was ended and a checkpoint saved.
        """
        if prepare_resume(self):
            return None
        quiet = _WithoutUserErrors()
        loop_logger = logging.getLogger("detectron2.engine.train_loop")
        loop_logger.addFilter(quiet)
        try:
            with self.stop:
                return super().train()
        finally:
            loop_logger.removeFilter(quiet)

    # The loop calls the following three.
    def before_train(self) -> None:
        """Call the hooks, and catch up with what a kill has cut off."""
        super().before_train()
        restore_storage(self.storage, self.figures)
        catch_up(self)

    def run_step(self) -> None:
        """One iteration; its random numbers follow from seed and iteration.

        Raises:
            KeyboardInterrupt: A signal came that has ended the loader's workers, too.
            NumericError: A loss or gradient is not finite, and SOLVER.ON_NONFINITE is "raise", or
                too many steps were left out.
        """
        seed_step(self.seed, self.iter, comm.get_rank())
        if self.cfg.TEST.PRECISE_BN.ENABLED:  # whose batches are counted too
            reset_iteration_counter(self.model, self.iter)
        try:
            with explain_out_of_memory(training_hints(self.cfg)):
                super().run_step()
            self.bad_batches.step_done()
        except NumericError as error:
            self.bad_batches.handle(error, self)
        except Exception:
            # A scheduler's signal may end loader workers, too, while they start.
            is_alone = comm.get_world_size() == 1
            if not (is_alone and self._trainer.waits_for_data and self.stop.is_requested):
                raise
            self.iter -= 1  # the last whole step
            self.save_and_stop(self.stop.exit_code)

    def after_train(self) -> None:
        """Call the hooks; after an error none of them raises another one in its place.

        Raises:
            KeyboardInterrupt: A signal came in the last evaluation.
        """
        if self.start_iter >= self.max_iter:
            self.iter = self.start_iter  # there was no step
        if self.iter >= self.max_iter:
            try:
                super().after_train()
            except KeyboardInterrupt:
                close_writers(self)
                raise
            return
        self.storage.iter = self.iter
        if self.stop.is_requested:
            close_writers(self)
            return
        for hook in self._hooks:
            if not isinstance(hook, hooks.EvalHook):  # it evaluates if the last step failed
                try:
                    hook.after_train()
                except Exception as error:
                    logger.warning(
                        "%s, after the error: %s: %s",
                        type(hook).__name__,
                        type(error).__name__,
                        error,
                    )

    def save_and_stop(self, exit_code: int) -> NoReturn:
        """Save a checkpoint after a whole step, unless there is one, and end the training.

        Args:
            exit_code: Of the command.

        Raises:
            KeyboardInterrupt: Always.
        """
        name = "model_final" if self.iter >= self.max_iter else f"model_{self.iter:07d}"
        if self.start_iter <= self.iter < self.max_iter:
            self.checkpointer.save(name, iteration=self.iter)
        path = os.path.join(self.cfg.OUTPUT_DIR, f"{name}.pth") if self.iter >= 0 else ""
        done = min(self.iter + 1, self.max_iter)
        message = stopped_message(path, done, self.max_iter) if comm.is_main_process() else ""
        raise stop_error(exit_code, message)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks, the stop after a signal, pictures, and the report.

        Hooks that exist in every process must have the same order in all of them: they exchange
        data, and processes in different hooks would wait for each other forever.
        """
        cfg = self.cfg
        ret = super().build_hooks()
        # Directly before the checkpointer of the main process. The other processes have no
        # checkpointer; there the next hook is EvalHook.
        behind = (hooks.PeriodicCheckpointer, hooks.EvalHook)
        place = next(i for i, hook in enumerate(ret) if isinstance(hook, behind))
        ret.insert(place, StopAtStep(self.stop))
        if self.average is not None:
            ret.insert(0, self.average)
        for hook in ret:
            if isinstance(hook, hooks.EvalHook):
                guarded = GuardedEvaluation(self, self._evaluate)
                hook._func = partial(self._evaluate_unless_stopped, guarded)
            elif isinstance(hook, hooks.PreciseBN):
                hook._data_loader = FirstBatches(hook._data_loader, hook._num_iter)
        if self.teacher is not None:
            ret.insert(0, FollowModel(self.teacher))  # before the checkpointer saves it
        if cfg.VIS_PERIOD > 0 and cfg.DATASETS.TEST and comm.is_main_process():
            ret.insert(len(ret) - 1, DrawPredictions(cfg))
        if cfg.LOG.REPORT and comm.is_main_process():
            ret.append(WriteReport(cfg))
        return ret

    def _evaluate(self) -> dict[str, Any]:
        """As Detectron2's hook does, but of the weights that count."""
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """Writers to the log, to ``metrics.json`` and to TensorBoard."""
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        console = ConsoleWriter(self.max_iter, self.cfg.LOG.ALL_LOSSES)
        return [console, self.metrics, self.tensorboard]

    def _evaluate_unless_stopped(self, evaluate: Callable[[], Any]) -> Any:
        """An evaluation that a signal ends at once; the weights are those of a whole step."""
        try:
            with self.stop.at_once():
                return evaluate()
        except KeyboardInterrupt:
            if not self.stop.is_requested:
                raise
            self.save_and_stop(self.stop.exit_code)

    def state_dict(self) -> dict[str, Any]:
        """State of the training: that of the loop, the seed, and the newest figures."""
        state = super().state_dict()
        state["seed"] = self.seed
        state["bad_batches"] = self.bad_batches.state_dict()
        state["figures"] = storage_state(self.storage) if hasattr(self, "storage") else {}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of a checkpoint, which may be of an earlier version."""
        super().load_state_dict(dict(state_dict))
        self.figures = state_dict.get("figures", {})
        if "bad_batches" in state_dict:
            self.bad_batches.load_state_dict(state_dict["bad_batches"])
        if self.cfg.SEED < 0:
            self.seed = state_dict.get("seed", self.seed)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of ``maskfreevis_ext.engine.optimizer``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of ``maskfreevis_ext.engine.optimizer``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainBatches:
        """Batches of clips without end."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        """The whole videos of a data set, one by one."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
    ) -> dict[str, Any]:
        """Evaluate a model on every set of DATASETS.TEST; long videos in windows (TEST.WINDOW).

        Classes are matched by name, where the model knows the names of its classes.

        Args:
            cfg: The config.
            model: The model with its weights.
            evaluators: One for each data set; None: of ``build_evaluator``.

        Returns:
            Data set -> results; the results themselves if there is one data set.
        """
        if evaluators is None:
            names = class_names_of(unwrapped(model))
            evaluators = [
                match_classes(cls.build_evaluator(cfg, dataset), dataset, names)
                for dataset in cfg.DATASETS.TEST
            ]
        with explain_out_of_memory(prediction_hints(cfg)):
            video_model = VideoModel(model, WindowSettings.from_config(cfg))
            return super().test(cfg, video_model, evaluators)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluators of TEST.EVALUATORS for a data set; they write to OUTPUT_DIR/inference.

        With several data sets in DATASETS.TEST, each has a subfolder with its name.
        """
        folder = inference_folder(cfg, dataset_name)
        names = evaluator_names(cfg, dataset_name)
        return build_evaluator(dataset_name, folder, names, cfg.TEST.MIN_SCORE)


class _WithoutUserErrors(logging.Filter):
    """Removes Detectron2's traceback of an error that the command line reports in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], MaskFreeError))
