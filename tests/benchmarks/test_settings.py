"""The settings of a step side by side, and the sides in mixed precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.command_line import main
from benchmarks.jobs.infer import _plan
from benchmarks.jobs.settings import AT_ONCE, PLAIN
from benchmarks.options import parse_args
from benchmarks.phases import BACKWARD, CRITERION, OPTIMIZER, PARTS
from maskfreevis_ext.precision import why_no_amp
from tests.tools.test_benchmark import STEP


@pytest.mark.slow
def test_settings_are_compared_with_the_plain_step(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    file = tmp_path / "report.json"
    main(["settings", "--json", str(file), "--batch", "2", "--frames", "2", *STEP])
    torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    ratios = report["ratios"]
    assert set(ratios) == set(report["sides"]) - {PLAIN, AT_ONCE}
    assert ratios["SOLVER.ACCUMULATE 2"]["baseline"] == AT_ONCE
    assert ratios["SOLVER.ACCUMULATE 2"]["memory"] > 1
    assert ratios["MODEL.CHECKPOINTING backbone,pixel_decoder,decoder"]["memory"] > 1
    assert {"SOLVER.EMA", "MODEL.MEMORY_FORMAT contiguous"} <= set(ratios)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_amp("bfloat16", "cpu")), reason="no instructions for bfloat16")
def test_step_in_bfloat16_has_a_side_and_phases_of_its_own(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    file = tmp_path / "report.json"
    main(["step", "--json", str(file), "--dtype", "bfloat16", *STEP])
    torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    assert report["ratios"]["ours, bfloat16"]["baseline"] == "literal"
    phases = report["details"]["phases"]
    assert set(phases) == {"literal", "ours", "ours, bfloat16"}
    for of_side in phases.values():
        assert {*PARTS, CRITERION, OPTIMIZER, "backbone" + BACKWARD} < set(of_side["seconds"])
        assert of_side["flops"]["backbone"] > 0
    # float32 and literal count the same products of the backbone
    assert phases["ours"]["flops"]["backbone"] == phases["literal"]["flops"]["backbone"]
    assert set(report["details"]["matrix_speed"]) == {"float32", "bfloat16"}


def test_only_windows_run_in_another_type_too() -> None:
    words = ["infer", "--lengths", "8", "--long", "16", "--dtype", "bfloat16"]
    plan = _plan(parse_args(words))
    assert [entry[:2] for entry in plan if entry[2] == "bfloat16"] == [
        ("windows", 8),
        ("windows", 16),
    ]
    assert ("literal", 8, "float32") in plan
    assert ("stream", 8, "float32") in plan


def test_float16_on_a_cpu_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as stop:
        main(["step", "--dtype", "float16", *STEP])
    torch.set_num_threads(threads)
    assert stop.value.code == 2
    assert "--dtype" in capsys.readouterr().err
