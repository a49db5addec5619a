"""Notes of worker processes."""

from __future__ import annotations

import multiprocessing

import pytest

from maskfreevis_ext.data.worker_notes import Noted, WorkerNotes, note


def _write(notes, text):
    notes.write(1, text)


@pytest.mark.parametrize("text", ["a.png (video 3, frame 2)", "犬/00001.png", "", "x" * 5000])
def test_other_processes_read_what_a_worker_wrote(text):
    notes = WorkerNotes(2)
    assert (notes.read(1), notes.is_busy(1)) == ("", False)
    process = multiprocessing.get_context("fork").Process(target=_write, args=(notes, text))
    process.start()
    process.join()
    assert notes.read(1) == text[:1021]
    assert notes.is_busy(1)
    assert notes.read(0) == ""
    notes.finish(1)
    assert not notes.is_busy(1)
    assert notes.read(1) == text[:1021]


def test_cut_within_a_character_and_lone_surrogates_can_be_read():
    notes = WorkerNotes(1)
    notes.write(0, "é" * 900 + "\udc80")
    assert notes.read(0).startswith("é" * 510)


def test_main_process_writes_no_notes():
    notes = WorkerNotes(1)
    note("outside of a worker")
    mapper = Noted(lambda entry: entry["video_id"], notes)
    assert mapper({"video_id": 5, "file_names": ["a.png"]}) == 5
    assert notes.read(0) == ""
