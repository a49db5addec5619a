"""Keys of inference: precision, and videos of any length."""

from __future__ import annotations

from maskfreevis_ext.config.checks import integer, one_of
from maskfreevis_ext.config.keys import Key

ROWS: tuple[Key, ...] = (
    Key(
        "TEST.AMP",
        "off",
        one_of("off", "bfloat16", "float16"),
        "Mixed precision in evaluation and prediction (see docs/performance.md): `off` is float32; "
        "`bfloat16` on GPUs and on CPUs with instructions for it, `float16` on GPUs.",
    ),
    Key(
        "TEST.WINDOW.MODE",
        "offline",
        one_of("off", "offline", "online"),
        "How long videos are processed (see docs/inference.md). `off`: at once, like short ones; "
        "memory grows with the video. `offline`: in windows, and the scores of a track come from "
        "all its frames. `online`: the same, but in each frame the scores come from this frame and "
        "those before it.",
    ),
    Key(
        "TEST.WINDOW.ABOVE",
        64,
        integer(0),
        "Videos of more frames than this are processed in windows, others at once.",
    ),
    Key("TEST.WINDOW.SIZE", 16, integer(1), "Frames of a window."),
    Key(
        "TEST.WINDOW.STRIDE",
        14,
        integer(1),
        "Frames from one window to the next, at most `SIZE`. The other frames of a window are "
        "shared with the one before: their masks tell which objects are the same. 1 and `SIZE` 1: "
        "frame by frame, objects are linked by their embeddings alone.",
    ),
    Key(
        "TEST.WINDOW.GAP",
        30,
        integer(0),
        "Frames for which an object that is not seen keeps its id.",
    ),
)
