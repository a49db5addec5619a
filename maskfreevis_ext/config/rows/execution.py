"""Keys of how the network runs and how its weights are updated, for time, memory, accuracy."""

from __future__ import annotations

from maskfreevis_ext.config.checks import DROP_RATE, Check, integer, list_of, one_of
from maskfreevis_ext.config.keys import Key

#: Parts of the network that can be compiled or checkpointed.
PARTS = ("backbone", "pixel_decoder", "decoder")

_SOME_PARTS: Check = list_of(one_of(*PARTS), f"names of {', '.join(PARTS)}")

ROWS: tuple[Key, ...] = (
    Key(
        "MODEL.MEMORY_FORMAT",
        "auto",
        one_of("auto", "contiguous", "channels_last"),
        "Order of the maps of backbone and pixel decoder in memory. `channels_last` suits mixed "
        "precision on a GPU. `auto`: maps with their channels last on a CPU, where it is faster, "
        "contiguous elsewhere. Results differ by rounding only.",
    ),
    Key(
        "MODEL.COMPILE",
        [],
        _SOME_PARTS,
        "Parts that `torch.compile` turns into compiled code at their first use, which takes "
        "minutes, and again for other sizes of frames: some of `backbone`, `pixel_decoder` and "
        "`decoder`. Needs a C++ compiler (CPU) or Triton (GPU); without it there is one warning, "
        "and the parts run as they are.",
    ),
    Key(
        "MODEL.CHECKPOINTING",
        [],
        _SOME_PARTS,
        "Parts that keep only the inputs of their layers in training, and compute the rest again "
        "in the backward pass (activation checkpointing): less memory, more time, equal "
        "gradients. Some of `backbone`, `pixel_decoder` and `decoder`.",
    ),
    Key(
        "SOLVER.ACCUMULATE",
        1,
        integer(1),
        "Batches of `SOLVER.IMS_PER_BATCH` clips whose gradients are averaged for one update of "
        "the weights. Iterations, and with them schedules, warm-ups and periods, count updates. "
        "Equal to one larger batch as far as each batch has the same number of objects, by which "
        "the losses are divided.",
    ),
    Key(
        "SOLVER.EMA",
        0.0,
        DROP_RATE,
        "Decay per iteration of a moving average of the weights, such as 0.999; lower in the first "
        "iterations, min(decay, (1 + i) / (10 + i)). The average is what is evaluated, drawn and "
        "saved as `model` in every checkpoint; the weights in training stand beside it for "
        "`--resume`. 0: no average.",
    ),
)
