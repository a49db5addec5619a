#!/usr/bin/env python3
r"""Train and evaluate a video model. The command line is Detectron2's, plus ``--device``.

Train; go on from the newest checkpoint; evaluate (the data set is made by ``make quickstart``):

    python tools/train_net.py --config-file configs/quickstart/maskfreevis_tiny.yaml

    python tools/train_net.py --config-file configs/quickstart/maskfreevis_tiny.yaml --resume

    python tools/train_net.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --eval-only MODEL.WEIGHTS output/quickstart/model_final.pth

Several processes: ``--num-gpus N`` starts them; processes that ``torchrun`` or ``srun`` has started
find each other by themselves (docs/distributed.md).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.engine import SafeCheckpointer, Trainer, setup_config
from maskfreevis_ext.engine.evaluation_sets import check_test_classes, check_test_sets
from maskfreevis_ext.engine.interrupt import terminate_at_once
from maskfreevis_ext.engine.launch_env import check_options, join_group, read_place
from maskfreevis_ext.engine.processes import Job, start_job
from maskfreevis_ext.engine.report import try_report
from maskfreevis_ext.engine.setup import read_timeout
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = default_argument_parser()
    parser.description = __doc__
    parser.epilog = None  # Detectron2's examples have placeholders
    # Detectron2's default is an address that others can foresee, and that all can reach.
    parser.set_defaults(dist_url="auto")
    parser.add_argument("--device", help='MODEL.DEVICE, for example "cpu" or "cuda"')
    return parser.parse_args(argv)


def evaluate(cfg, resume: bool) -> dict:
    """Evaluate MODEL.WEIGHTS, or with ``resume`` the newest checkpoint of OUTPUT_DIR if any."""
    check_test_sets(cfg)
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(
        model, save_dir=cfg.OUTPUT_DIR, must_fit=not cfg.TEST.PARTIAL_WEIGHTS
    )
    if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
        raise ConfigError(
            "MODEL.WEIGHTS: expected a weights file for --eval-only, got none. Add MODEL.WEIGHTS "
            "FILE to the command, or --resume to take the newest checkpoint of OUTPUT_DIR."
        )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    logging.getLogger("maskfreevis_ext").info(
        "--eval-only: evaluating %s", checkpointer.loaded_file
    )
    check_test_classes(cfg, class_names_of(model))
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        try_report(cfg, results)
    return results


def run(args: argparse.Namespace) -> object:
    """Train or evaluate in one process."""
    if comm.get_world_size() > 1:
        terminate_at_once()
    cfg = setup_config(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def start(args: argparse.Namespace) -> None:
    """Join the processes that torchrun or Slurm has started, or start one for each GPU."""
    place = read_place(os.environ)
    count = max(args.num_gpus, 1)
    if place is None and count * args.num_machines <= 1:
        run(args)
        return
    timeout = read_timeout(args)
    if place is not None:
        check_options(place, args.num_gpus, args.num_machines)
        join_group(place, args.num_gpus, run, (args,), timeout)
        return
    job = Job(count, args.num_machines, args.machine_rank, args.dist_url, timeout)
    start_job(run, (args,), job)


def main(argv: list[str] | None = None) -> None:
    """Train or evaluate; user errors end with one line and exit code 2.

    Ctrl-C ends a training with a checkpoint and exit code 130, SIGTERM with 143.
    """
    logging.raiseExceptions = False  # a log on a full disk would fill the terminal with tracebacks
    exit_on_user_error(start, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
