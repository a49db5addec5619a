"""The training loop, its hooks, and how a job starts."""

from detectron2.engine import hooks
from detectron2.engine.defaults import (
    DefaultTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.launch import launch
from detectron2.engine.train_loop import HookBase, SimpleTrainer, TrainerBase

__all__ = [
    "DefaultTrainer",
    "HookBase",
    "SimpleTrainer",
    "TrainerBase",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "hooks",
    "launch",
]
