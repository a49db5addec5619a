"""The objects of one frame: boxes, selection, drawing, and the way to supervision."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.errors import ConfigError, NumericError
from maskfreevis_ext.inference.drawing import draw_items
from maskfreevis_ext.inference.frame_tracks import FrameTracks


def _tracks() -> FrameTracks:
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 1:3, 3:6] = True
    masks[1, 0, 0] = masks[1, 5, 7] = True
    masks[2, 4] = True
    return FrameTracks(
        5,
        np.array([7, 2, 9]),
        np.array([1, 0, 4]),
        np.array([0.9, 0.5, 0.25], np.float32),
        masks,
        {"note": 1},
    )


def _empty() -> FrameTracks:
    nothing = np.zeros(0, np.int64)
    return FrameTracks(0, nothing, nothing, np.zeros(0, np.float32), np.zeros((0, 6, 8), bool))


def test_names_of_the_objects() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert _tracks().names is None
    named = replace(_tracks(), class_names=names)
    assert named.names == ["b", "a", "e"]
    assert named.select(0.4).names == ["b", "a"]
    assert [item.label for item in named.items()] == ["e #9 0.25", "a #2 0.50", "b #7 0.90"]
    assert named.items(["z"] * 5)[0].label == "z #9 0.25"


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NumericError, match="Frame 5: expected finite scores"):
        replace(_tracks(), scores=np.array([0.9, np.nan, 0.2], np.float32))


def test_boxes_are_tight_and_end_one_past_the_last_pixel() -> None:
    boxes = _tracks().boxes
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[3, 1, 6, 3], [0, 0, 8, 6], [0, 4, 8, 5]]
    assert _empty().boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("min_score", "labels", "kept"),
    [(0.0, None, [7, 2, 9]), (0.5, None, [7, 2]), (0.0, [4, 1], [7, 9]), (1.0, None, [])],
)
def test_select_keeps_ids_masks_and_order(min_score, labels, kept) -> None:
    tracks = _tracks()
    selected = tracks.select(min_score, labels)
    assert selected.track_ids.tolist() == kept
    rows = [tracks.track_ids.tolist().index(each) for each in kept]
    assert np.array_equal(selected.masks, tracks.masks[rows])
    assert selected.scores.tolist() == tracks.scores[rows].tolist()
    assert (selected.index, selected.extras, len(selected)) == (5, {"note": 1}, len(kept))


def test_items_name_the_objects_and_the_surest_is_on_top() -> None:
    items = _tracks().items(["cat", "dog"])
    assert [item.track_id for item in items] == [9, 2, 7]
    assert [item.label for item in items] == ["class 4 #9 0.25", "cat #2 0.50", "dog #7 0.90"]
    frame = np.zeros((6, 8, 3), np.uint8)
    assert draw_items(frame, items).any()
    assert _empty().items() == []


class _StandIn:
    """Takes what ``supervision.Detections`` takes."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


@pytest.mark.parametrize("tracks", [_tracks(), _empty()], ids=["three", "none"])
def test_to_supervision_passes_every_field(monkeypatch, tracks: FrameTracks) -> None:
    module = ModuleType("supervision")
    module.Detections = _StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    _check_detections(tracks.to_supervision(), tracks)


@pytest.mark.parametrize("tracks", [_tracks(), _empty()], ids=["three", "none"])
def test_to_supervision_gives_detections_of_the_real_package(tracks: FrameTracks) -> None:
    supervision = pytest.importorskip("supervision")
    detections = tracks.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert len(detections) == len(tracks)
    _check_detections(detections, tracks)


def test_supervision_gets_the_class_names(monkeypatch) -> None:
    module = ModuleType("supervision")
    module.Detections = _StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    named = replace(_tracks(), class_names=["a", "b", "c", "d", "e"])
    assert named.to_supervision().data["class_name"].tolist() == ["b", "a", "e"]
    assert _tracks().to_supervision().data == {}


def _check_detections(detections: Any, tracks: FrameTracks) -> None:
    assert np.array_equal(detections.xyxy, tracks.boxes)
    assert np.array_equal(detections.mask, tracks.masks)
    assert np.array_equal(detections.confidence, tracks.scores)
    assert np.array_equal(detections.class_id, tracks.labels)
    assert np.array_equal(detections.tracker_id, tracks.track_ids)


def test_to_supervision_without_the_package_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"pip install 'maskfreevis_ext\[supervision\]'"):
        _tracks().to_supervision()
