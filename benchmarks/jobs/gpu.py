"""All measurements of a device in one command: the other jobs, the roofline, batch and profile."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.jobs.step import as_batch, step_losses  # first: importing it chooses Detectron2

# isort: split
from detectron2.modeling import build_model
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.jobs import criterion, deform_attn, infer, step
from benchmarks.literal.step import total
from benchmarks.measure import Figures, Side, format_seconds, median_seconds, progress
from benchmarks.options import Options, parse_args
from benchmarks.predictions import embedded_start, make_predictions
from benchmarks.product import build_criterion, criterion_config, layers_of, model_config
from benchmarks.report import Result
from benchmarks.scene import make_scene

#: Job → options beside the device.
PLAN: dict[str, list[str]] = {
    "criterion": ["--with-product"],
    "deform_attn": ["--batch", "6"],
    "step": ["--dtype", "bfloat16"],
    "infer": ["--dtype", "bfloat16", "--lengths", "8", "32", "--long", "256"],
}
JOBS: dict[str, Callable[[Options], Result]] = {
    "criterion": criterion.run,
    "deform_attn": deform_attn.run,
    "step": step.run,
    "infer": infer.run,
}
#: Speed of Deformable DETR's CUDA operator beside ``grid_sample``, which counts as 1.
COMPILED_OPERATOR = 3.0
MOST_CLIPS = 256
PROFILE_ROWS = 15


def run(options: Options) -> Result:
    """Run all jobs one after the other.

    Raises:
        ConfigError: An option or a config key does not fit.
        DataError: A loss is missing or not finite.
    """
    sides: list[Side] = []
    figures: dict[str, Figures] = {}
    differences: dict[str, float] = {}
    details: dict[str, object] = {}
    notes: list[str] = []
    of_jobs = {}
    for name in PLAN:
        progress(f"job: {name}")
        of_jobs[name] = sub_options(name, options)
        result = JOBS[name](of_jobs[name])
        for side in result.sides:
            baseline = f"{name}: {side.baseline}" if side.baseline else ""
            renamed = Side(f"{name}: {side.name}", side.start, side.forward, (), baseline)
            sides.append(renamed)
            figures[renamed.name] = result.figures[side.name]
        differences |= {f"{name}: {key}": value for key, value in result.differences.items()}
        details[name] = result.details
        notes += [f"{name}: {note}" for note in result.notes]
    roofline = roofline_of(of_jobs["criterion"])
    ratio = _attention_ratio(figures)
    clips = largest_batch_of_step(of_jobs["step"])
    details |= {"roofline": roofline, "attention_ratio": ratio, "largest_batch": clips}
    notes += [
        f"criterion, forward: {roofline['criterion'] / roofline['read']:.1f} times reading the "
        f"mask logits of all outputs once ({format_seconds(roofline['read'])})",
        f"deformable attention: {ratio:.2f} times as fast as grid_sample, forward and backward; "
        f"the compiled operator counts as {COMPILED_OPERATOR:.0f} times",
        f"largest batch of a step: {clips} clips (at most {MOST_CLIPS} were tried)",
        f"profile of a step:\n{profile_of_step(of_jobs['step'])}",
    ]
    return Result(sides, figures, differences, details, notes)


def sub_options(name: str, options: Options) -> Options:
    """Options of a job of the plan, with the common ones of this command."""
    common = ("rounds", "threads", "warmup", "device", "seed", "clock")
    words = [word for key in common for word in (f"--{key}", str(getattr(options, key)))]
    return parse_args([name, *words, *PLAN[name]])


def _attention_ratio(figures: dict[str, Figures]) -> float:
    """How many times faster deformable attention is than the literal one."""
    own, base = figures["deform_attn: ours"], figures["deform_attn: literal"]
    return (base.forward_backward_s or 0.0) / (own.forward_backward_s or 1.0)


def roofline_of(options: Options) -> dict[str, float]:
    """Seconds of the criterion without matching, and of one pass over the mask logits.

    Args:
        options: Of the job ``criterion``.

    Returns:
        ``criterion`` and ``read``.
    """
    scene = make_scene(options)
    start = embedded_start(make_predictions(options, scene))
    own = build_criterion(criterion_config(options))
    matches = own.matcher(layers_of(start.outputs), scene.targets, scene.image_size)
    masks = [layer["pred_masks"] for layer in layers_of(start.outputs)]

    def losses() -> object:
        return own(start.outputs, scene.targets, scene.frames, scene.frame_sizes, matches)

    return {
        "criterion": median_seconds(losses, options),
        "read": median_seconds(lambda: [mask.sum() for mask in masks], options),
    }


def largest_batch(run_step: Callable[[int], object], most: int) -> int:
    """The largest number of clips with which a step fits into the memory of the device.

    Args:
        run_step: Runs a step of a number of clips; raises ``torch.OutOfMemoryError``.
        most: Largest number to try, >= 1.

    Returns:
        0 if not even one clip fits.

    Example:
        >>> def five(clips):
        ...     if clips > 5:
        ...         raise torch.OutOfMemoryError
        >>> largest_batch(five, 64)
        5
    """
    fits, fails = 0, most + 1
    clips = 1
    while fits + 1 < fails:
        try:
            run_step(clips)
            fits = clips
        except torch.OutOfMemoryError:
            fails = clips
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        clips = min(2 * clips, most) if fails > most else (fits + fails) // 2
    return fits


def _step(options: Options) -> tuple[nn.Module, Callable[[int], None]]:
    """A model, and a function that runs a step of a number of clips."""
    cfg = model_config(options)
    model = build_model(cfg).train()
    scene = make_scene(options.replace(batch=1, classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES))
    clip = as_batch(scene)[0]

    def run_step(clips: int) -> None:
        model.zero_grad()
        total(step_losses(model, [clip] * clips, options.dtype)).backward()

    return model, run_step


def largest_batch_of_step(options: Options) -> int:
    """``largest_batch`` of a training step, without the state of an optimizer.

    Args:
        options: Of the job ``step``. On the CPU two clips are the most.
    """
    _, run_step = _step(options)
    is_cuda = torch.device(options.device).type == "cuda"
    return largest_batch(run_step, MOST_CLIPS if is_cuda else 2)


def profile_of_step(options: Options) -> str:
    """The operators of a training step that take the most time, as a table.

    Args:
        options: Of the job ``step``.
    """
    _, run_step = _step(options)
    run_step(1)
    is_cuda = torch.device(options.device).type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as found:
        run_step(1)
    key = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
    return found.key_averages().table(sort_by=key, row_limit=PROFILE_ROWS)
