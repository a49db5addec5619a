"""Finished videos are kept, and taken up by the same run only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.boxes_to_masks.masking import TrackMasks
from maskfreevis_ext.inference.boxes_to_masks.partial import Partial
from maskfreevis_ext.inference.boxes_to_masks.pictures import Picture


def _result() -> TrackMasks:
    result = TrackMasks.empty(3)
    result.put(1, np.eye(4, dtype=bool), 0.123456, "grabcut")
    result.pictures.spread[1] = Picture(1, 0.1, b"\xff\xd8abc")
    return result


def test_results_come_back_as_they_were(tmp_path) -> None:
    partial = Partial(tmp_path / "out.json", {"seed": 1}, False)
    assert partial.load(4) is None
    partial.save(4, [7], [_result()])
    again = Partial(tmp_path / "out.json", {"seed": 1}, False).load(4)
    assert again == {7: _result()}
    partial.remove()
    assert not partial.folder.exists()


def test_another_run_is_told_or_restarted(tmp_path) -> None:
    Partial(tmp_path / "out.json", {"seed": 1}, False).save(4, [7], [_result()])
    with pytest.raises(DataError, match=r"out.json.partial: has finished videos of a run with"):
        Partial(tmp_path / "out.json", {"seed": 2}, False)
    assert Partial(tmp_path / "out.json", {"seed": 2}, True).load(4) is None


def test_files_of_others_are_not_touched(tmp_path) -> None:
    folder = Path(tmp_path / "out.json.partial")
    folder.mkdir()
    (folder / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="has other files"):
        Partial(tmp_path / "out.json", {}, True)
    assert (folder / "mine.txt").read_text() == "x"


def test_damaged_file_is_told(tmp_path) -> None:
    partial = Partial(tmp_path / "out.json", {}, False)
    (partial.folder / "video_4.json").write_text('{"7": {}}')
    with pytest.raises(DataError, match=r"video_4.json: is damaged"):
        partial.load(4)
