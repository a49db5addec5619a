"""The line of the log."""

from __future__ import annotations

import logging

import pytest
from detectron2.utils.events import EventStorage

from maskfreevis_ext.engine.console import ConsoleWriter


def _storage(start: int = 0) -> EventStorage:
    """Iteration 199 of 1000, seen after 30 iterations whose values were twice as high."""
    storage = EventStorage(start)
    with storage:
        for step in range(60):
            storage.iter = 140 + step
            factor = 2.0 if step < 30 else 1.0
            storage.put_scalars(
                total_loss=10.5 * factor,
                loss_ce=0.5 * factor,
                loss_ce_0=0.75,
                loss_mask_proj=10.0 * factor,
                loss_mask_proj_0=0.0,
                loss_mask=0.0,
                time=0.25 * factor,
                data_time=0.01,
            )
            storage.put_scalar("raw/ce", 0.25)
            storage.put_scalar("lr", 1e-4, smoothing_hint=False)
    return storage


def _line(storage: EventStorage, caplog: pytest.LogCaptureFixture, **options: bool) -> str:
    with caplog.at_level(logging.INFO), storage:
        ConsoleWriter(1000, **options).write()
    lines = [r.message for r in caplog.records if r.name == "maskfreevis_ext.engine.console"]
    assert len(lines) == 1
    return lines[0].split("  max_mem")[0]


def test_line_has_progress_times_rate_and_main_losses(caplog):
    storage = _storage()
    # the ETA is a median over all iterations, between 0.25 and 0.5 s, times the 800 that are left
    assert _line(storage, caplog) == (
        "iter: 200/1000  eta: 0:05:00  0.25 s/it (data: 0.01)  lr: 0.0001  "
        "total_loss: 10.5  loss_ce: 0.5  loss_mask_proj: 10"
    )
    assert storage.latest()["eta_seconds"][0] == pytest.approx(300.0)


def test_all_losses_come_back(caplog):
    line = _line(_storage(), caplog, all_losses=True)
    for part in ("loss_ce_0: 0.75", "loss_mask_proj_0: 0", "loss_mask: 0", "loss_ce: 0.5"):
        assert part in line
    assert "raw" not in line


def test_first_iterations_have_no_time_yet(caplog):
    storage = EventStorage(0)
    with storage:
        storage.put_scalars(total_loss=1.0, loss_ce=1.0)
    assert _line(storage, caplog) == "iter: 1/1000  total_loss: 1  loss_ce: 1"


def test_nothing_is_logged_after_the_end(caplog):
    storage = _storage()
    storage.iter = 1000
    with caplog.at_level(logging.INFO), storage:
        ConsoleWriter(1000).write()
    assert not caplog.records
