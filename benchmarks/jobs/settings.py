"""Settings that trade time and memory of a training step, each beside the plain step."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.jobs.step import (  # first: importing it chooses Detectron2
    as_batch,
    step_losses,
    step_side,
)

# isort: split
from detectron2.modeling import build_model
from torch import Tensor, nn

from benchmarks.literal.step import total
from benchmarks.measure import Side, measure
from benchmarks.options import Options
from benchmarks.product import model_config
from benchmarks.report import Result
from benchmarks.scene import make_scene
from maskfreevis_ext.config.rows.execution import PARTS
from maskfreevis_ext.engine.ema import copy_for_average, follow_weights
from maskfreevis_ext.precision import why_no_amp

PLAIN, AT_ONCE = "plain", "batch at once"


def run(options: Options) -> Result:
    """Measure the settings.

    Raises:
        ConfigError: An option or a config key does not fit.
    """
    config = partial(model_config, options)
    cfg = config()
    scene = make_scene(options.replace(classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES))
    batch = as_batch(scene)
    plain = build_model(cfg).train()
    start = f"{len(batch)} clips"
    sides = [step_side(PLAIN, start, plain, batch)]

    def add(name: str, *more: str, dtype: str = "float32") -> None:
        model = build_model(config(*more)).train()
        model.load_state_dict(plain.state_dict())
        sides.append(step_side(name, start, model, batch, PLAIN, dtype))

    # the one that "auto" does not choose
    name = "contiguous" if options.device == "cpu" else "channels_last"
    other_format = "MODEL.MEMORY_FORMAT", name
    add(" ".join(other_format), *other_format)
    if not why_no_amp("bfloat16", options.device):
        add("bfloat16", dtype="bfloat16")
        add(f"bfloat16, {' '.join(other_format)}", *other_format, dtype="bfloat16")
    for parts in (*([part] for part in PARTS), list(PARTS)):
        add(f"MODEL.CHECKPOINTING {','.join(parts)}", "MODEL.CHECKPOINTING", str(parts))
    if options.compile:
        add("MODEL.COMPILE backbone", "MODEL.COMPILE", "['backbone']")
        add(f"MODEL.COMPILE {','.join(PARTS)}", "MODEL.COMPILE", str(list(PARTS)))
    sides.append(_averaged(plain, batch))
    if options.batch > 1:
        sides.append(step_side(AT_ONCE, start, plain, batch))  # plain under another name
        sides.append(_accumulated(plain, batch))
    return Result(sides, measure(sides, options))


def _averaged(model: nn.Module, batch: list[dict[str, Any]]) -> Side:
    """The plain step and an update of the average."""
    average = copy_for_average(model)

    def forward() -> Tensor:
        follow_weights(average, model, 0.999)
        return total(step_losses(model, batch, "float32"))

    return Side("SOLVER.EMA", f"{len(batch)} clips", forward, list(model.parameters()), PLAIN)


def _accumulated(model: nn.Module, batch: list[dict[str, Any]]) -> Side:
    """The clips of the batch one by one, and one gradient."""

    def forward() -> Tensor:
        for clip in batch[:-1]:
            (total(step_losses(model, [clip], "float32")) / len(batch)).backward()
        return total(step_losses(model, batch[-1:], "float32")) / len(batch)

    name = f"SOLVER.ACCUMULATE {len(batch)}"
    return Side(name, "the clips one by one", forward, list(model.parameters()), AT_ONCE)
