"""What only a CUDA device can show: ``make test-gpu``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from benchmarks.jobs.criterion import run as run_criterion
from benchmarks.jobs.deform_attn import run as run_attention
from benchmarks.jobs.gpu import COMPILED_OPERATOR, roofline_of
from benchmarks.literal.step import total
from benchmarks.options import Options, parse_args
from benchmarks.predictions import embedded_start, make_predictions
from benchmarks.product import build_criterion, criterion_config, layers_of
from benchmarks.scene import make_scene
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.training import CONFIG

#: The lowest AP of the three seeds on a CPU in float32, from boxes by the box losses (README.md).
LEAST_AP = 47.6
ROOT = Path(__file__).resolve().parents[2]

if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no CUDA device on this machine", allow_module_level=True)


def _options(command: str, *words: str) -> Options:
    return parse_args([command, "--device", "cuda", *words])


@contextlib.contextmanager
def _no_synchronisation() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_criterion_waits_for_nothing_but_the_matching() -> None:
    options = _options("criterion")
    scene = make_scene(options)
    start = embedded_start(make_predictions(options, scene))
    criterion = build_criterion(criterion_config(options))
    layers = layers_of(start.outputs)
    matches = criterion.matcher(layers, scene.targets, scene.image_size)
    arguments = scene.targets, scene.frames, scene.frame_sizes, matches
    total(criterion(start.outputs, *arguments)).backward()  # kernels are compiled here
    torch.cuda.synchronize()
    with _no_synchronisation():
        total(criterion(start.outputs, *arguments)).backward()


def test_matching_waits_once() -> None:
    options = _options("criterion")
    scene = make_scene(options)
    layers = layers_of(embedded_start(make_predictions(options, scene)).outputs)
    matcher = build_criterion(criterion_config(options)).matcher
    matcher(layers, scene.targets, scene.image_size)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        matcher(layers, scene.targets, scene.image_size)
    copies = [e for e in found.events() if "Memcpy DtoH" in e.name]
    assert len(copies) == 1


def test_triton_kernels_equal_the_plain_sums() -> None:
    """The tests of the kernels, without the interpreter: compiled for this device."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    file = "tests/losses/pairwise/test_triton_kernels.py"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", file]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " skipped" not in done.stdout, done.stdout


def test_criterion_equals_the_literal_one() -> None:
    result = run_criterion(_options("criterion", "--rounds", "1"))
    assert max(result.differences.values()) < 1e-4


def test_criterion_takes_a_few_passes_over_the_logits() -> None:
    seconds = roofline_of(_options("criterion"))
    assert seconds["criterion"] < 50 * seconds["read"]


def test_deformable_attention_is_as_fast_as_the_compiled_operator() -> None:
    result = run_attention(_options("deform_attn", "--batch", "6"))
    assert max(result.differences.values()) < 1e-3
    own, base = (result.figures[name].forward_backward_s for name in ("ours", "literal"))
    assert own is not None
    assert base is not None
    assert base / own >= COMPILED_OPERATOR


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_the_quickstart_to_the_ap_of_the_cpu(
    tmp_path: Path, dtype: str
) -> None:
    make_synthetic(str(tmp_path / "data"), SyntheticConfig())
    entries = [
        [f"gpu_{dtype}_{split}", str(tmp_path / "data" / f"{split}.json"), str(folder)]
        for split in ("train", "val")
        for folder in [tmp_path / "data" / split / "JPEGImages"]
    ]
    options = {
        "INPUT.DATASETS": entries,
        "DATASETS.TRAIN": (entries[0][0],),
        "DATASETS.TEST": (entries[1][0],),
        "MODEL.DEVICE": "cuda",
        "SOLVER.AMP.ENABLED": True,
        "SOLVER.AMP.DTYPE": dtype,
        "SEED": 1,
        "OUTPUT_DIR": str(tmp_path / "output"),
    }
    words = [str(word) for pair in options.items() for word in pair]
    cfg = load_config(CONFIG, words)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer._last_eval_results is not None
    assert trainer._last_eval_results["segm"]["AP"] >= LEAST_AP
