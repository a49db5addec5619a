"""The tiny training of ``tests.helpers.training`` in this process."""

from __future__ import annotations

from pathlib import Path

from detectron2.utils.env import seed_all_rng

from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.training import CONFIG, tiny_options


def make_trainer(videos: Path, output: Path, *more: object, resume: bool = False) -> Trainer:
    """A trainer of ``tiny_options`` in this process, seeded as ``tools/train_net.py`` does it.

    Args:
        videos: Folder of ``write_videos``.
        output: OUTPUT_DIR.
        more: Further keys and values.
        resume: Whether it goes on from the newest checkpoint of ``output``.
    """
    cfg = load_config(CONFIG, tiny_options(videos, output, *more))
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer
