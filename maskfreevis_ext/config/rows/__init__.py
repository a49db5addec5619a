"""The rows of the project, one module per part of it."""

from __future__ import annotations

from maskfreevis_ext.config.keys import Key
from maskfreevis_ext.config.rows import (
    backbones,
    distributed,
    evaluation,
    execution,
    frame_files,
    inference,
    joint,
    mask2former,
    maskfree,
    multimask,
    solver,
    spatial_mask,
    unread,
    video_input,
)

ROWS: tuple[Key, ...] = (
    *mask2former.ROWS,
    *backbones.ROWS,
    *maskfree.ROWS,
    *multimask.ROWS,
    *video_input.ROWS,
    *frame_files.ROWS,
    *joint.ROWS,
    *spatial_mask.ROWS,
    *inference.ROWS,
    *solver.ROWS,
    *distributed.ROWS,
    *execution.ROWS,
    *evaluation.ROWS,
    *unread.ROWS,
)

__all__ = ["ROWS"]
