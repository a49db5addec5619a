"""metrics.json over kills, on a full disk, and with NaN."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage, TensorboardXWriter

from maskfreevis_ext.engine.metric_writers import (
    MetricsWriter,
    TensorBoardWriter,
    restore_storage,
    storage_state,
)


def _train(writer: MetricsWriter, storage: EventStorage, first: int, last: int) -> None:
    """Steps with a row after every fifth, and an evaluation in step 12."""
    with storage:
        for storage.iter in range(first, last):
            storage.put_scalar("total_loss", float(storage.iter**2 % 37))
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
            if storage.iter == 12:
                storage.put_scalar("segm/AP", 50.0, smoothing_hint=False)
            if storage.iter % 5 == 4:
                writer.write()


def _text(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("step", [1, 10, 13, 20, 23])
@pytest.mark.parametrize("end", ["", '{"iteration": 24, "lr"', "\n"])
def test_rows_after_a_kill_are_those_without_it(tmp_path, step, end):
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    _train(MetricsWriter(whole), EventStorage(), 0, 40)

    before = EventStorage()
    writer = MetricsWriter(killed)
    _train(writer, before, 0, step)  # the checkpoint
    state = json.loads(json.dumps(storage_state(before)))
    _train(writer, before, step, step + 9)  # lost
    with open(killed, "a") as file:
        file.write(end)

    again, storage = MetricsWriter(killed), EventStorage(step)
    again.go_on_from(step)
    restore_storage(storage, state)
    _train(again, storage, step, 40)
    assert _text(killed) == _text(whole)


def test_rows_of_an_earlier_training_stay(tmp_path):
    path = tmp_path / "metrics.json"
    _train(MetricsWriter(path), EventStorage(), 0, 20)
    first = _text(path)
    _train(MetricsWriter(path), EventStorage(), 0, 10)
    writer = MetricsWriter(path)
    assert [row["iteration"] for row in writer.rows()] == [4, 9]
    writer.go_on_from(7)
    assert _text(path)[:-1] == first
    assert [row["iteration"] for row in writer.rows()] == [4]


def test_last_evaluation_of_a_finished_training_stays_when_it_is_trained_on(tmp_path):
    path = tmp_path / "metrics.json"
    rows = [{"iteration": 4, "total_loss": 1.0}, {"iteration": 5, "segm/AP": 2.0}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {**rows[0], "iteration": 6}]))
    MetricsWriter(path).go_on_from(5, keep_last_evaluation=True)
    assert MetricsWriter(path).rows() == rows
    MetricsWriter(path).go_on_from(5)
    assert MetricsWriter(path).rows() == rows[:1]


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        storage.put_scalars(apm=math.nan, apl=math.inf, ap=1.5)
        MetricsWriter(path).write()
    assert _text(path) == ['{"ap": 1.5, "apl": null, "apm": null, "iteration": 0}']


def test_full_disk_is_a_warning_and_the_rows_are_written_later(tmp_path, caplog, monkeypatch):
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.json"
    writer, storage = MetricsWriter(path), EventStorage()
    _train(writer, storage, 0, 5)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("os.fsync", full)
        _train(writer, storage, 5, 15)
    assert len(caplog.records) == 1
    assert "could not be written (No space left on device). Training goes on" in caplog.text
    assert len(_text(path)) == 1  # nothing half written
    _train(writer, storage, 15, 20)
    assert [row["iteration"] for row in writer.rows()] == [4, 9, 12, 14, 19]


def test_tensorboard_on_a_full_disk_is_a_warning(tmp_path, caplog, monkeypatch):
    def full(self) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorboardXWriter, "write", full)
    monkeypatch.setattr(TensorboardXWriter, "close", full)
    writer = TensorBoardWriter(str(tmp_path))
    with caplog.at_level(logging.WARNING), EventStorage() as storage:
        for _ in range(3):
            storage.put_image("picture", [[[0]]])
            writer.write()
            assert not storage._vis_data
        writer.close()
    assert len(caplog.records) == 1
    assert "TensorBoard could not be written (No space left on device)" in caplog.text
