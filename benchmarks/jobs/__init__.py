"""The jobs, one module each; ``run`` of each takes the options and returns what it found."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.jobs import (
    criterion,
    data,
    deform_attn,
    gpu,
    infer,
    matcher,
    settings,
    similarity,
    step,
)
from benchmarks.options import Options
from benchmarks.report import Result

#: Subcommand → its function.
JOBS: dict[str, Callable[[Options], Result]] = {
    "similarity": similarity.run,
    "matcher": matcher.run,
    "criterion": criterion.run,
    "step": step.run,
    "settings": settings.run,
    "infer": infer.run,
    "data": data.run,
    "gpu": gpu.run,
    "deform_attn": deform_attn.run,
}
