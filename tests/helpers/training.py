"""A training that takes a second: generated videos and the smallest model of every part."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils.logger import setup_logger

from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "quickstart" / "maskfreevis_tiny.yaml")
TRAIN, VAL = "tiny_train", "tiny_val"


def write_videos(folder: Path) -> Path:
    """Write 4 videos to train on and 2 to test on, 4 frames of 64 x 64, into a folder."""
    config = SyntheticConfig(num_train=4, num_val=2, num_frames=4, height=64, width=64)
    make_synthetic(str(folder), config)
    return folder


def tiny_options(
    videos: Path, output: Path, *more: object, train: str = TRAIN, val: str = VAL
) -> list[str]:
    """Overrides that turn the quickstart's config into a tiny one on ``write_videos``'s data.

    Args:
        videos: Folder of ``write_videos``.
        output: OUTPUT_DIR.
        more: Further keys and values.
        train: Name of the training set; another for each folder.
        val: Name of the test set.
    """
    entries = [
        [name, str(videos / f"{split}.json"), str(videos / split / "JPEGImages")]
        for name, split in ((train, "train"), (val, "val"))
    ]
    options = {
        "INPUT.DATASETS": entries,
        "DATASETS.TRAIN": (train,),
        "DATASETS.TEST": (val,),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MAX_SIZE_TRAIN": 64,
        "INPUT.MIN_SIZE_TEST": 64,
        "INPUT.MAX_SIZE_TEST": 64,
        "INPUT.SAMPLING_FRAME_NUM": 2,
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
        "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
        "MODEL.MASK_FORMER.NHEADS": 2,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 5,
        "MODEL.MASK_FORMER.DEC_LAYERS": 2,
        "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.STEPS": (),
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "SOLVER.WARMUP_ITERS": 0,
        "TEST.EVAL_PERIOD": 0,
        "VIS_PERIOD": 0,
        "SEED": 1,
        "OUTPUT_DIR": str(output),
    }
    words = [str(word) for pair in options.items() for word in pair]
    return words + [str(word) for word in more]


@contextlib.contextmanager
def own_loggers() -> Iterator[None]:
    """Loggers as in a new process, which ``setup_logger`` may change; put back at the end."""
    loggers = [logging.getLogger(n) for n in ("detectron2", "fvcore", "maskfreevis_ext")]
    before = [(list(x.handlers), x.propagate, x.level) for x in loggers]
    forget = getattr(setup_logger, "cache_clear", lambda: None)
    try:
        forget()
        for one in loggers:
            one.handlers, one.propagate = [], True
            one.setLevel(logging.NOTSET)
        yield
    finally:
        for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
        forget()
