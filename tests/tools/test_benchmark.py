"""tools/benchmark.py at sizes of milliseconds: what it writes, and the values of both sides."""

from __future__ import annotations

import json
import math
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.command_line import MALLOC_SETTINGS, main
from benchmarks.options import EXAMPLES, parse_args

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "benchmark.py"

SHORT = ["--height", "32", "--width", "64", "--rounds", "1", "--threads", "1"]
LOSSES = [*SHORT, "--queries", "6", "--layers", "2", "--objects", "3", "--classes", "4"]
LOSSES += ["--mask-dim", "16", "--points", "300"]
TINY_MODEL = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 24,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 8,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
}
OPTS = [str(word) for pair in TINY_MODEL.items() for word in pair]
STEP = [*SHORT, "--objects", "2", "--opts", *OPTS]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The tool sets the threads of PyTorch."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _report(folder: Path, command: str, *options: str) -> dict:
    file = folder / "report.json"
    main([command, "--json", str(file), *options])
    return json.loads(file.read_text())


def _check(report: dict, sides: set[str], with_backward: bool) -> None:
    assert set(report["sides"]) == sides
    for side in report["sides"].values():
        assert side["starts_from"]
        assert side["forward_s"] > 0
        assert side["peak_extra_bytes"] > 0
        if with_backward:
            assert side["forward_backward_s"] > side["forward_s"]
        else:
            assert side["forward_backward_s"] is None
    assert {name for name in sides if "our" in name} == set(report["ratios"])
    kinds = ("forward", "forward_backward", "memory") if with_backward else ("forward", "memory")
    for ratio in report["ratios"].values():
        assert ratio["baseline"] in sides
        for kind in kinds:
            assert ratio[kind] > 0
            assert math.isfinite(ratio[kind])
    assert report["settings"]["rounds"] == 1
    environment = {"torch", "device", "processor", "threads", "memory_is", "variables"}
    assert environment <= set(report["environment"])


@pytest.mark.slow
def test_similarity_reports_growth_and_one_call_per_step(tmp_path, capsys) -> None:
    report = _report(tmp_path, "similarity", *LOSSES)
    _check(report, {"literal", "ours"}, with_backward=False)
    assert report["largest_difference"] < 1e-4
    assert {"loss_bound", "loss_bound_neighbor"} <= set(report["differences"])
    assert [row["frames"] for row in report["details"]["growth"]] == [3, 5, 8]
    assert [row["calls"] for row in report["details"]["in_criterion"]] == [1, 1]
    assert 0 < report["details"]["pass_rates"]["edges"] < 1
    assert "pass the thresholds" in capsys.readouterr().out


def test_matcher_reports_agreement_and_standard_errors(tmp_path) -> None:
    report = _report(tmp_path, "matcher", *LOSSES, "--points", "3000")
    _check(report, {"literal", "ours"}, with_backward=False)
    assert report["largest_difference"] is None
    # the sampled costs of few points are noisy, and some queries are alike
    assert report["details"]["agreement"] >= 0.5
    errors = report["details"]["standard_errors"]
    assert errors["share_within_3"] > 0.97
    assert errors["rms"] == pytest.approx(1, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("frames", ["2", "4"])
def test_criterion_values_and_gradients_agree(tmp_path, capsys, frames: str) -> None:
    report = _report(tmp_path, "criterion", *LOSSES, "--frames", frames, "--with-product")
    sides = {"literal", "ours", "ours, dense", "literal with product", "ours with product"}
    _check(report, sides, with_backward=True)
    assert report["settings"]["pairs"] == ("all" if frames == "2" else "cycle")
    assert report["ratios"]["ours with product"]["baseline"] == "literal with product"
    assert len(report["differences"]) == 4 * 2
    assert report["largest_difference"] < 1e-4
    gradients = report["details"]["gradient_differences"]
    assert set(gradients) == {"logits", "masks", "features"}
    assert max(gradients.values()) < 1e-4
    printed = capsys.readouterr().out
    assert "ours, dense starts from class logits and dense mask logits" in printed
    assert "MALLOC_TRIM_THRESHOLD_" in printed


@pytest.mark.slow
def test_step_values_agree_and_shares_are_reported(tmp_path) -> None:
    report = _report(tmp_path, "step", *STEP)
    _check(report, {"literal", "ours", "literal criterion", "our criterion"}, with_backward=True)
    assert report["largest_difference"] < 1e-4
    assert len(report["differences"]) == 4 * TINY_MODEL["MODEL.MASK_FORMER.DEC_LAYERS"]
    assert set(report["details"]["criterion_share"]) == {"literal", "ours"}
    assert report["details"]["parameter_bytes"] > 0
    assert 0 < report["details"]["memory_share_with_parameters"] < 1


def test_deform_attn_values_and_gradients_agree(tmp_path) -> None:
    report = _report(tmp_path, "deform_attn", *SHORT, "--channels", "32", "--heads", "4")
    _check(report, {"literal", "ours"}, with_backward=True)
    assert report["details"]["tokens"] == 2 + 8 + 32
    assert {"output", "gradient of value"} < set(report["differences"])
    assert report["largest_difference"] < 1e-4


def test_default_sizes_are_those_of_the_readme() -> None:
    args = parse_args(["criterion"])
    sizes = args.batch, args.frames, args.height, args.width, args.queries, args.classes
    assert sizes == (2, 3, 360, 640, 100, 40)
    assert (args.layers, args.objects, args.points, args.pairs) == (10, 5, 20_000, "all")


def test_examples_of_the_help_are_valid_commands() -> None:
    lines = [line.strip() for line in EXAMPLES.splitlines() if "benchmark.py" in line]
    assert lines
    for line in lines:
        python, script, *words = shlex.split(line)
        assert (python, ROOT / script) == ("python", TOOL)
        parse_args(words)


def test_too_few_channels_are_refused_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["criterion", *LOSSES, "--mask-dim", "3"])
    assert stop.value.code == 2
    assert "--mask-dim" in capsys.readouterr().err


def test_unknown_frame_pairs_are_refused_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["criterion", *LOSSES, "--pairs", "some"])
    assert stop.value.code == 2
    assert "PAIRS" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--frames", "0"], ["--batch", "many"]])
def test_impossible_size_is_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["criterion", *words])
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_missing_benchmarks_folder_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.command_line", None)
    with pytest.raises(SystemExit, match=r"benchmarks is missing .* checkout"):
        runpy.run_path(str(TOOL))


def test_impossible_option_ends_the_script_before_the_measurement(tmp_path) -> None:
    done = _script(tmp_path, [str(TOOL)], "criterion", "--frames", "0")
    assert done.returncode == 2
    assert "--frames" in done.stderr
    assert "child process" not in done.stderr


def _script(folder: Path, script: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tool in another folder, under another OMP_WAIT_POLICY than the default."""
    environment = {k: v for k, v in os.environ.items() if k not in MALLOC_SETTINGS}
    environment.update(OMP_WAIT_POLICY="active", PYTHONPATH=str(ROOT))
    return subprocess.run(
        [sys.executable, *script, *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "policy"), [([str(TOOL)], "default"), (["-m", "benchmarks"], "passive")]
)
def test_child_process_measures_with_its_environment(tmp_path, script, policy) -> None:
    words = [*SHORT, "--channels", "32", "--json", "report.json", "--wait-policy", policy]
    done = _script(tmp_path, script, "deform_attn", *words)
    assert done.returncode == 0, done.stderr
    assert "starting a child process with MALLOC_TRIM_THRESHOLD_" in done.stderr
    expected = {**MALLOC_SETTINGS, "OMP_WAIT_POLICY": None if policy == "default" else policy}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["environment"]["variables"] == expected
    assert ("OMP_WAIT_POLICY=passive, for both sides" in done.stdout) == (policy == "passive")
    assert "1 threads" in done.stdout
    assert "machine: " in done.stdout


@pytest.mark.slow
def test_exit_code_of_the_child_process_is_that_of_the_script(tmp_path) -> None:
    done = _script(tmp_path, [str(TOOL)], "criterion", *LOSSES, "--mask-dim", "3")
    assert done.returncode == 2
    assert "child process" in done.stderr
    assert "--mask-dim" in done.stderr
