"""tools/evaluate.py scores a submission, or says in one line why it cannot."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tracks import golden_case

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "evaluate.py"
main = runpy.run_path(str(TOOL))["main"]


@pytest.fixture
def case(tmp_path, request) -> dict:
    """A golden case, with its files gt.json and results.json in the folder."""
    case = golden_case(getattr(request, "param", "s0"))
    (tmp_path / "gt.json").write_text(json.dumps(case["gt"]))
    (tmp_path / "results.json").write_text(json.dumps(case["results"]))
    return case


def arguments(folder: Path) -> list[str]:
    return ["--gt", str(folder / "gt.json"), "--results", str(folder / "results.json")]


@pytest.mark.parametrize("case", ["s0", "s1_crowd"], indirect=True)
def test_numbers_equal_the_official_evaluators(case, tmp_path, capsys):
    main([*arguments(tmp_path), "--json", str(tmp_path / "out.json")])

    written = json.loads((tmp_path / "out.json").read_text())
    per_category = written.pop("per_category")
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"]
    assert list(written) == names
    for name in names:
        expected = case["expected"][name]
        assert written[name] == (None if expected == -1 else pytest.approx(100 * expected))
    expected = {name: 100 * value for name, value in case["expected_per_category"].items()}
    assert per_category == pytest.approx(expected)
    printed = capsys.readouterr().out
    assert f"{written['AP']:.3f}" in printed
    assert all(name in printed for name in (*names, *per_category))


def test_it_runs_as_a_script(case, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, str(TOOL), *arguments(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr
    assert "44.108" in done.stdout


FAULTS = {
    "no ground truth": (lambda folder: (folder / "gt.json").unlink(), "gt.json"),
    "no results": (
        lambda folder: (folder / "results.json").unlink(),
        "results.json: cannot be read",
    ),
    "ground truth is no JSON": (lambda folder: (folder / "gt.json").write_text("{"), "gt.json"),
    "results are no list": (
        lambda folder: (folder / "results.json").write_text("{}"),
        "results.json: expected a list",
    ),
    "files exchanged": (
        lambda folder: (folder / "gt.json").write_text((folder / "results.json").read_text()),
        "gt.json",
    ),
    "binary results": (
        lambda folder: (folder / "results.json").write_bytes(b"\x80\x81"),
        "results.json: expected valid JSON",
    ),
    "result of an unknown video": (
        lambda folder: (folder / "results.json").write_text(
            '[{"video_id": 77, "category_id": 1, "score": 1, "segmentations": []}]'
        ),
        "results[0].video_id must be one of",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_file_gives_one_line_and_exit_code_2(fault, case, tmp_path, capsys):
    damage, message = FAULTS[fault]
    damage(tmp_path)

    with pytest.raises(SystemExit) as stop:
        main([*arguments(tmp_path), "--json", str(tmp_path / "out.json")])

    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out.json").exists()


def test_output_that_cannot_be_written_is_told(case, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*arguments(tmp_path), "--json", str(tmp_path / "gt.json" / "out.json")])

    assert stop.value.code == 2
    assert "out.json: cannot be written" in capsys.readouterr().err


def test_missing_argument_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--gt", "gt.json"])

    assert stop.value.code == 2
    assert "--results" in capsys.readouterr().err


def test_other_metrics_are_printed_and_written(case, tmp_path, capsys):
    main([*arguments(tmp_path), "--metrics", "jf", "hota", "--json", str(tmp_path / "out.json")])

    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == ["davis_jf", "hota"]
    assert 0 < written["hota"]["HOTA"] < 100
    assert "AssA" in capsys.readouterr().out


def test_objects_are_scored_one_by_one(case, tmp_path, capsys):
    made = tmp_path / "made.json"
    made.write_text(json.dumps(case["gt"]))
    words = ["--gt", str(tmp_path / "gt.json"), "--results", str(made), "--per-object"]
    table, numbers = str(tmp_path / "table.csv"), str(tmp_path / "out.json")

    main([*words, "--table", table, "--json", numbers])

    count = json.loads(Path(numbers).read_text())["all objects"]["objects"]
    assert json.loads(Path(numbers).read_text())["all objects"]["IoU"] == 1
    assert len(Path(table).read_text().splitlines()) == count + 1
    printed = capsys.readouterr().out
    assert f"Masks of {count} objects by annotation id, of 0 by box, of 0 none" in printed


@pytest.mark.parametrize("option", ["--json", "--table"])
def test_input_is_not_written_over(case, tmp_path, capsys, option):
    words = [*arguments(tmp_path), *(["--per-object"] if option == "--table" else [])]
    before = (tmp_path / "gt.json").read_bytes()
    os.symlink(tmp_path / "gt.json", tmp_path / "link.json")

    with pytest.raises(SystemExit) as stop:
        main([*words, option, str(tmp_path / "link.json")])

    assert stop.value.code == 2
    assert "is an input" in capsys.readouterr().err
    assert (tmp_path / "gt.json").read_bytes() == before


@pytest.mark.parametrize("words", [["--per-object", "--metrics", "ap"], ["--table", "x.md"]])
def test_options_that_do_not_go_together_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--gt", "gt.json", "--results", "results.json", *words])

    assert stop.value.code == 2
    assert "--per-object" in capsys.readouterr().err
