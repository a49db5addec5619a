"""tools/visualize_results.py draws a results file."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.helpers.tracks import perfect_results
from tests.helpers.videos import plain_content, write_frames, write_json

TOOL = Path(__file__).parents[2] / "tools" / "visualize_results.py"
main = runpy.run_path(str(TOOL))["main"]


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    content = plain_content((2, 2), masks=True)
    results = write_json(tmp_path, perfect_results(content), "results.json")
    files = ["--gt", write_json(tmp_path, content), "--image-root", write_frames(tmp_path, content)]
    return [*files, "--results", results, "--output", str(tmp_path / "out")]


def test_pictures_are_written(arguments, tmp_path):
    main([*arguments, "--columns", "2", "--fps", "5"])

    names = sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))
    assert names == ["contact_sheet.png", "video_1.mp4", "video_2.mp4"]


@pytest.mark.parametrize("content", ["{}", "nonsense", '[{"score": 1, "video_id": 1}]'])
def test_bad_results_give_one_line_and_exit_code_2(arguments, tmp_path, content, capsys):
    (tmp_path / "results.json").write_text(content)

    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert "results.json" in capsys.readouterr().err.strip().splitlines()[-1]


def test_score_threshold_is_passed_on(arguments, tmp_path):
    path = tmp_path / "results.json"
    results = json.loads(path.read_text())
    main([*arguments, "--confidence-threshold", "0.89"])
    one = (tmp_path / "out" / "contact_sheet.png").read_bytes()

    path.write_text(json.dumps(results[:2]))
    main([*arguments, "--confidence-threshold", "0.89"])

    assert (tmp_path / "out" / "contact_sheet.png").read_bytes() == one
