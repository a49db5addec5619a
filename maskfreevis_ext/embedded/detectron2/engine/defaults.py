"""The usual way to set up a job, and the usual trainer."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_EXAMPLES = """examples:
  one machine:      {program} --config-file FILE --num-gpus 8
  other settings:   {program} --config-file FILE MODEL.WEIGHTS FILE.pth SOLVER.BASE_LR 0.001
  several machines: {program} --config-file FILE --num-machines 2 --machine-rank R --dist-url URL
"""


def create_ddp_model(model: nn.Module, **kwargs: Any) -> nn.Module:
    """Wrap a model for several processes; with a single one, return it as it is.

    Args:
        model: The model.
        **kwargs: Of ``DistributedDataParallel``; ``device_ids`` is this process's GPU unless given.
    """
    if comm.get_world_size() == 1:
        return model
    kwargs.setdefault("device_ids", [comm.get_local_rank()])
    return DistributedDataParallel(model, **kwargs)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The command line of Detectron2's training tools.

    Args:
        epilog: Text below the help; by default a few examples.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog or _EXAMPLES.format(program=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML file of the config")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of OUTPUT_DIR"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on each machine")
    parser.add_argument("--num-machines", type=int, default=1, help="machines of the job")
    parser.add_argument("--machine-rank", type=int, default=0, help="index of this machine")
    # A fixed port per user: processes that a killed job left behind show as a port in use.
    user = os.getuid() if hasattr(os, "getuid") else 1
    port = 49152 + user % 16384  # of the range that is nobody's by agreement
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where the processes of a distributed job meet",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        default=None,
        help="config keys and their values: KEY VALUE KEY VALUE ...",
    )
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set up loggers, output folder and seeds; log environment, command line and config.

    Args:
        cfg: The config; a copy goes to ``OUTPUT_DIR/config.yaml``.
        args: The command line.
    """
    output_dir, rank = cfg.OUTPUT_DIR, comm.get_rank()
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", _environment())
    logger.info("Command line arguments: %s", args)
    config_file = getattr(args, "config_file", "")
    if config_file:
        with PathManager.open(config_file, "r") as stream:
            logger.info("Contents of args.config_file=%s:\n%s", config_file, stream.read())
    if comm.is_main_process() and output_dir:
        logger.info("Running with full config:\n%s", cfg.dump())
        path = os.path.join(output_dir, "config.yaml")
        with PathManager.open(path, "w") as stream:
            stream.write(cfg.dump())
        logger.info("Full config saved to %s", path)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not getattr(args, "eval_only", False):  # test images differ in size: no kernel search
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        logger.info("Set fp32 precision to %s", cfg.FLOAT32_PRECISION)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
            torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def _environment() -> str:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return (
        f"Python {sys.version}\ndetectron2 {detectron2.__version__}, torch {torch.__version__}\n"
        f"GPUs: {', '.join(gpus) or 'none'}\n{torch.__config__.show()}"
    )


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the log, to ``metrics.json`` and to TensorBoard.

    Args:
        output_dir: Folder for the files.
        max_iter: Last iteration, for the ETA.
    """
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


class DefaultTrainer(TrainerBase):
    """The parts of a training that follow from the config: hooks, evaluation, scaling.

    Unlike the real one it does not build itself: the constructor of a subclass sets the attributes
    below and registers ``build_hooks()``.

    Attributes:
        cfg: The config.
        scheduler: Learning-rate schedule.
        checkpointer: Saves and loads.
    """

    cfg: CfgNode
    scheduler: torch.optim.lr_scheduler.LRScheduler
    checkpointer: DetectionCheckpointer
    _trainer: SimpleTrainer
    _last_eval_results: dict[str, Any] | None = None

    @property
    def model(self) -> nn.Module:
        """The model, wrapped for several processes or not."""
        return self._trainer.model

    @property
    def data_loader(self) -> Iterable:
        """Batches to train on."""
        return self._trainer.data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self._trainer.optimizer

    def build_hooks(self) -> list[HookBase]:
        """Timer, learning rate, precise BN, checkpoints, evaluation and writers, in this order."""
        cfg = self.cfg
        ret: list[HookBase] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            ret.append(self._build_precise_bn())
        if comm.is_main_process():
            ret.append(hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))

        def test_and_save_results() -> dict[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        ret.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, test_and_save_results))
        if comm.is_main_process():
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return ret

    def _build_precise_bn(self) -> HookBase:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        loader = self.build_train_loader(cfg)
        num_iter = cfg.TEST.PRECISE_BN.NUM_ITER
        return hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, num_iter)

    def build_writers(self) -> list[EventWriter]:
        """``default_writers`` of OUTPUT_DIR."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> dict[str, Any] | None:
        """Train from ``start_iter`` to ``max_iter``.

        Returns:
            The last evaluation, if ``TEST.EXPECTED_RESULTS`` asks for a comparison.

        Raises:
            AssertionError: ``TEST.EXPECTED_RESULTS`` is set, but nothing was evaluated.
        """
        self._run_loop(self.start_iter, self.max_iter)
        if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
            return None
        if self._last_eval_results is None:
            raise AssertionError("TEST.EXPECTED_RESULTS is set, but nothing was evaluated.")
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def run_step(self) -> None:
        """One iteration."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the loop, the hooks and the optimizer."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """``detectron2.modeling.build_model``; the model is logged."""
        model = build_model(cfg)
        logging.getLogger(__name__).info("Model:\n%s", model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable:
        """Batches to train on.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError(f"{cls.__name__} needs a build_train_loader.")

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Batches of a test set.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError(f"{cls.__name__} needs a build_test_loader.")

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator of a test set.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError(f"{cls.__name__} needs a build_evaluator to evaluate.")

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
    ) -> dict[str, Any]:
        """Evaluate a model on every set of ``DATASETS.TEST``.

        Args:
            cfg: The config.
            model: The model with its weights.
            evaluators: One for each data set; None: of ``build_evaluator``.

        Returns:
            Data set -> results; the results themselves if there is one data set.

        Raises:
            AssertionError: The number of evaluators is not that of the data sets.
        """
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(cfg.DATASETS.TEST):
            raise AssertionError(f"{len(cfg.DATASETS.TEST)} != {len(evaluators)}")
        results: dict[str, Any] = {}
        for index, name in enumerate(cfg.DATASETS.TEST):
            loader = cls.build_test_loader(cfg, name)
            evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                logging.getLogger(__name__).info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Scale a config written for ``SOLVER.REFERENCE_WORLD_SIZE`` processes to another number.

        Batch size and learning rate grow in proportion, all counts of iterations shrink.

        Args:
            cfg: The config; it is not changed.
            num_workers: Number of processes.

        Returns:
            A new config, or the same one if nothing has to be done (REFERENCE_WORLD_SIZE 0).

        Raises:
            AssertionError: The batch size is not a multiple of ``SOLVER.REFERENCE_WORLD_SIZE``.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        if cfg.SOLVER.IMS_PER_BATCH % reference:
            raise AssertionError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is not a multiple of "
                f"SOLVER.REFERENCE_WORLD_SIZE {reference}."
            )
        scale = num_workers / reference
        scaled = cfg.clone()
        scaled.defrost()
        solver = scaled.SOLVER
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR = solver.BASE_LR * scale
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            solver[key] = round(solver[key] / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        scaled.TEST.EVAL_PERIOD = round(scaled.TEST.EVAL_PERIOD / scale)
        solver.REFERENCE_WORLD_SIZE = num_workers
        logging.getLogger(__name__).info(
            "Auto-scaling the config to batch_size=%d, learning_rate=%s, max_iter=%d, warmup=%d.",
            solver.IMS_PER_BATCH,
            solver.BASE_LR,
            solver.MAX_ITER,
            solver.WARMUP_ITERS,
        )
        if cfg.is_frozen():
            scaled.freeze()
        return scaled
