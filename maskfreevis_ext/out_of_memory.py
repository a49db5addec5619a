"""Out of memory: one message that names what to lower, and about what each saves."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

from maskfreevis_ext.errors import MaskFreeError, first_line

if TYPE_CHECKING:
    from detectron2.config import CfgNode

P = ParamSpec("P")
T = TypeVar("T")

_TEXTS = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|out of memory|Insufficient memory|Cannot allocate",
    re.IGNORECASE,
)


class OutOfMemoryError(MaskFreeError, MemoryError):
    """The memory of this machine or of its GPU does not suffice; names the keys to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy, PyTorch or OpenCV says that there is no memory left.

    Args:
        error: The error.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    is_of_library = isinstance(error, RuntimeError) or type(error).__module__.startswith("cv2")
    return is_of_library and _TEXTS.search(str(error)) is not None


def once_more(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that it is called again, with an emptied cache, after want of memory.

    For the last steps of a prediction, whose inputs are small and are there already.

    Args:
        function: What to call; calling it twice must do no harm.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        gc.collect()  # outside of the block above, which keeps the tensors of the first call alive
        torch.cuda.empty_cache()
        return function(*args, **kwargs)

    return called


@contextlib.contextmanager
def explain_out_of_memory(hints: Sequence[str]) -> Iterator[None]:
    """Turn errors of memory in the block into one that says what to lower.

    Args:
        hints: What to lower, each with its value and about what less of it saves, such as those of
            ``training_hints`` and ``prediction_hints``.

    Raises:
        OutOfMemoryError: There was not enough memory.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(describe(error, f"Lower: {'; '.join(hints)}.")) from error


def describe(error: BaseException, advice: str) -> str:
    """The message for an error of memory.

    Args:
        error: Of ``is_out_of_memory``.
        advice: A sentence that says what to do.
    """
    return f"Out of memory ({first_line(error)[:200]}). {advice}"


def training_hints(cfg: CfgNode) -> list[str]:
    """What makes a training step smaller.

    Args:
        cfg: The config of the run.
    """
    clips, frames = cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.SAMPLING_FRAME_NUM
    hints = []
    if clips > 1:
        hints.append(f"SOLVER.IMS_PER_BATCH ({clips}; with {clips // 2} about half the memory)")
    if frames > 2:
        saved = round(100 / frames)
        hints.append(f"INPUT.SAMPLING_FRAME_NUM ({frames}; one less saves about {saved} %)")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    largest = sizes if isinstance(sizes, int) else max(sizes)
    hints.append(
        f"INPUT.MIN_SIZE_TRAIN and INPUT.MAX_SIZE_TRAIN ({largest} and {cfg.INPUT.MAX_SIZE_TRAIN};"
        " sides of 3/4 save about 44 %)"
    )
    points = cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS
    hints.append(f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS ({points}; a small part)")
    return hints


def prediction_hints(cfg: CfgNode) -> list[str]:
    """What makes the prediction of a video smaller.

    Args:
        cfg: The config of the run.
    """
    window, size = cfg.TEST.WINDOW.SIZE, cfg.INPUT.MIN_SIZE_TEST
    hints = []
    if window > 1:
        hints.append(f"TEST.WINDOW.SIZE ({window} frames; {max(window // 2, 1)} need about half)")
    hints.append(f"TEST.WINDOW.ABOVE ({cfg.TEST.WINDOW.ABOVE}; longer videos pass in windows)")
    hints.append(
        f"INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST ({size} and {cfg.INPUT.MAX_SIZE_TEST}; sides"
        " of 3/4 save about 44 %)"
    )
    return hints
