"""Tables, plots and pages from runs that are finished."""

from __future__ import annotations

import csv
import doctest
import re
import sys

import pytest

from experiments import plots, report, tables
from experiments.collect import collect_rows
from experiments.command_line import main
from experiments.plots import loss_names
from experiments.report import load_experiment, write_report
from maskfreevis_ext.errors import DataError


@pytest.fixture
def _no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it fails


def test_examples():
    assert doctest.testmod(tables).failed == 0


@pytest.mark.usefixtures("_no_matplotlib")
def test_tables_have_means_deviations_and_numbers_of_seeds(finished, caplog):
    experiment, runs, folder = finished
    said = write_report(experiment, runs, folder)

    lines = said.splitlines()
    assert lines[0].startswith("|  | seeds | AP | AP / all \\| masks | AP50 |")
    numbers = "65.0 ± 7.1 | 100 % | 75.0 ± 7.1 | – | – |"
    assert lines[2].startswith(f"| all \\| masks | 2 of 3 | {numbers}")
    assert lines[3].startswith("| boxes | 2 of 3 | 52.0 ± 2.8 | 80 % |")
    assert lines[3].endswith("| 50.0 ± 0.0 | 50.0 ± 0.0 | 2.0 ± 0.0 |")  # boundary, IoU, minutes
    assert lines[-1] == f"report: {folder / 'report.html'}"
    assert "\n".join(lines[:4]) in (folder / "report.md").read_text()
    assert not list(folder.glob("*.png"))
    assert "matplotlib is missing" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("_no_matplotlib")
def test_csv_files_have_all_numbers(finished):
    experiment, runs, folder = finished
    write_report(experiment, runs, folder)
    summary = list(csv.DictReader((folder / "summary.csv").open()))
    assert [line["variant"] for line in summary] == ["masks", "boxes"]
    assert float(summary[1]["AP mean"]) == 52
    assert float(summary[1]["AP sd"]) == pytest.approx(8**0.5, rel=1e-5)
    assert summary[1]["AP seeds"] == "2"
    assert summary[1]["AR10 mean"] == ""
    runs_table = list(csv.DictReader((folder / "runs.csv").open()))
    assert [(line["variant"], line["seed"], line["AP"]) for line in runs_table] == [
        *(("masks", "1", "60"), ("masks", "2", "70")),
        *(("boxes", "1", "50"), ("boxes", "2", "54")),
    ]
    assert {line["supervision"] for line in runs_table} == {"mask", "box"}


@pytest.mark.usefixtures("_no_matplotlib")
def test_page_is_one_file_that_loads_nothing(finished):
    experiment, runs, folder = finished
    write_report(experiment, runs, folder)
    page = (folder / "report.html").read_text()
    assert "<h1>By &lt;hand&gt;</h1>" in page
    assert "<td>52.0 ± 2.8</td>" in page
    assert "<script" not in page
    assert "http" not in page
    assert "<img" not in page


def test_plots_are_inside_the_page(finished):
    pytest.importorskip("matplotlib")
    experiment, runs, folder = finished
    write_report(experiment, runs, folder)
    names = {path.stem for path in folder.glob("*.png")}
    assert names == set(report.CAPTIONS)
    page = (folder / "report.html").read_text()
    sources = re.findall(r'src="([^"]{22})', page)
    assert sources == ["data:image/png;base64,"] * 4
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}.png)" in (folder / "report.md").read_text()


def test_losses_are_those_of_the_last_output_that_are_not_zero(finished):
    experiment, runs, _ = finished
    assert loss_names(collect_rows(experiment, runs)) == ["total_loss", "loss_ce"]


def test_nothing_finished_gives_empty_rows(finished, tmp_path):
    experiment, runs, _ = finished
    for run in runs:
        (run.folder / "run.json").unlink(missing_ok=True)
    rows = collect_rows(experiment, runs)
    assert [len(row.results) for row in rows] == [0, 0]
    assert tables.summary_table(experiment, rows)[1][2:5] == ["–", "–", "–"]
    assert plots.draw_plots(rows) == {}


@pytest.mark.usefixtures("_no_matplotlib")
def test_report_needs_the_folder_alone(finished, capsys):
    experiment, _, folder = finished
    assert load_experiment(folder) == (experiment, [40, 40])
    assert main(["report", str(folder)]) == 0
    assert "52.0 ± 2.8" in capsys.readouterr().out


def test_other_folders_are_refused(tmp_path, capsys):
    with pytest.raises(DataError, match=r"experiment\.json: expected the file"):
        load_experiment(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 2
    assert "DataError" in capsys.readouterr().err


def test_boundary_scores_are_computed_once(finished, monkeypatch):
    experiment, runs, _ = finished
    first = collect_rows(experiment, runs)
    monkeypatch.setattr("experiments.collect.score_boundaries", None)
    again = collect_rows(experiment, runs)
    assert [r.figures["boundary F"] for row in again for r in row.results] == [
        r.figures["boundary F"] for row in first for r in row.results
    ]
