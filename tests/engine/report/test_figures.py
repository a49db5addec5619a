"""Reading metrics.json."""

from __future__ import annotations

import json
import math

from maskfreevis_ext.engine.report.figures import curve, last_iteration, read_metrics


def _write(path, *entries: object) -> None:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines))


def test_later_lines_count_and_lines_that_were_cut_do_not(tmp_path):
    path = tmp_path / "metrics.json"
    _write(
        path,
        {"iteration": 19, "total_loss": 5.0},
        {"iteration": 39, "total_loss": 4.0},
        '{"iteration": 59, "tot{"iteration": 59, "total_loss": 9.0}',  # killed, then went on
        {"iteration": 39, "total_loss": 3.0},
        {"iteration": 40, "segm/AP": 12.5, "segm/APl": math.nan},
        "[1]",
        '{"iteration": 59, "to',
    )
    found = read_metrics(path)
    assert list(found) == [19, 39, 40]
    assert curve(found, "total_loss") == [(19, 5.0), (39, 3.0)]
    assert curve(found, "segm/AP") == [(40, 12.5)]
    assert curve(found, "segm/APl") == []
    assert last_iteration(path) == 41


def test_no_file_is_no_iteration(tmp_path):
    assert read_metrics(tmp_path / "none.json") == {}
    assert last_iteration(tmp_path / "none.json") == 0
    (tmp_path / "empty.json").touch()
    assert last_iteration(tmp_path / "empty.json") == 0
