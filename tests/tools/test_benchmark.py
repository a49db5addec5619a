"""tools/benchmark.py at sizes of milliseconds: what it writes, and the values of both sides."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "benchmark.py"
tool = runpy.run_path(str(TOOL))

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
    tool["main"]([command, "--json", str(file), *options])
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
    assert {"torch", "device", "threads", "memory_is", "variables"} <= set(report["environment"])


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


def test_default_sizes_are_those_of_the_issue() -> None:
    args = tool["parse_args"](["criterion"])
    sizes = args.batch, args.frames, args.height, args.width, args.queries, args.classes
    assert sizes == (2, 3, 360, 640, 100, 40)
    assert (args.layers, args.objects, args.points, args.pairs) == (10, 5, 20_000, "all")
    args = tool["parse_args"](["deform_attn"])
    shapes = tool["level_shapes"](args)
    assert sum(height * width for height, width in shapes) == 5040


def test_scene_depends_on_the_seed_only_and_fits_the_frame() -> None:
    args = tool["parse_args"](["criterion", "--height", "100", "--width", "150"])
    scene, again = tool["make_scene"](args), tool["make_scene"](args)
    assert torch.equal(scene.images, again.images)
    assert torch.equal(scene.masks, again.masks)
    assert scene.image_size == (128, 160)
    assert not scene.frames[..., 100:, :].any()
    for target in scene.targets:
        assert target["boxes"].amin() >= 0
        assert target["boxes"][..., 2].amax() <= 150
        assert target["boxes"][..., 3].amax() <= 100
        assert target["ids"][-1].tolist() == [4, 4, -1]
        areas = (target["boxes"][..., 2:] - target["boxes"][..., :2]).prod(-1)[:-1]
        assert areas.amin() > 0
        assert areas.amax() > 2 * areas.amin()
    rates = tool["pass_rates"](scene, [(0, 1), (0, 2), (1, 2)])
    assert 0.2 < rates["edges"] < 0.9
    assert 0.02 < rates["matches"] < 5 / 9
    other = tool["make_scene"](tool["parse_args"](["criterion", "--seed", "1"]))
    assert not torch.equal(scene.images[..., :90, :90], other.images[..., :90, :90])


def test_peak_memory_is_what_the_tensors_take() -> None:
    x = torch.randn(1_000_000)

    def forward() -> None:
        doubled = x * 2
        for _ in range(3):
            doubled = doubled + x  # the old one is freed once the new one is there

    side = tool["Side"]("one", "x", forward)
    assert tool["peak_extra_memory"](side, torch.device("cpu")) == 2 * 4_000_000


def test_too_few_channels_are_refused_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        tool["main"](["criterion", *LOSSES, "--mask-dim", "3"])
    assert stop.value.code == 2
    assert "--mask-dim" in capsys.readouterr().err


def test_unknown_frame_pairs_are_refused_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        tool["main"](["criterion", *LOSSES, "--pairs", "some"])
    assert stop.value.code == 2
    assert "PAIRS" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--frames", "0"], ["--batch", "many"]])
def test_impossible_size_is_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        tool["main"](["criterion", *words])
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_missing_literal_side_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tests.reference_impl", None)
    with pytest.raises(SystemExit, match=r"reference_impl.* is not there"):
        runpy.run_path(str(TOOL))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["default", "passive"])
def test_script_starts_again_with_its_environment(tmp_path, policy) -> None:
    file = tmp_path / "report.json"
    expected = {**tool["ENVIRONMENT"], "OMP_WAIT_POLICY": None if policy == "default" else policy}
    environment = {k: v for k, v in os.environ.items() if k not in expected}
    if policy == "default":
        environment["OMP_WAIT_POLICY"] = "active"
    arguments = [*SHORT, "--channels", "32", "--json", str(file), "--wait-policy", policy]
    done = subprocess.run(
        [sys.executable, str(TOOL), "deform_attn", *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "starting again with MALLOC_TRIM_THRESHOLD_" in done.stderr
    assert json.loads(file.read_text())["environment"]["variables"] == expected
    assert ("OMP_WAIT_POLICY=passive, for both sides" in done.stdout) == (policy == "passive")
