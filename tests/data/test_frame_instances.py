"""Detectron2's form of the objects of a clip."""

from __future__ import annotations

import pickle

import pytest
import torch

from maskfreevis_ext.data.frame_instances import FrameInstances
from maskfreevis_ext.modeling.targets import build_targets


def _tracks(with_masks: bool) -> dict[str, torch.Tensor]:
    tracks = {
        "labels": torch.tensor([3, 1]),
        "ids": torch.tensor([[10, 10, -1], [-1, 11, 11]]),
        "boxes": torch.arange(24.0).view(2, 3, 4),
    }
    if with_masks:
        tracks["masks"] = torch.rand(2, 3, 5, 6) > 0.5
    return tracks


@pytest.mark.parametrize("with_masks", [False, True])
def test_every_frame_has_the_rows_of_the_tracks(with_masks: bool) -> None:
    tracks = _tracks(with_masks)
    frames = FrameInstances(tracks, (5, 6))
    assert len(frames) == len(list(frames)) == 3
    for t, frame in enumerate(frames):
        assert frame.image_size == (5, 6)
        assert frame.gt_classes.tolist() == [3, 1]
        assert torch.equal(frame.gt_ids, tracks["ids"][:, t])
        assert torch.equal(frame.gt_boxes.tensor, tracks["boxes"][:, t])
        assert frame.has("gt_masks") is with_masks
        if with_masks:
            assert torch.equal(frame.gt_masks.tensor, tracks["masks"][:, t])


def test_indices_and_slices_are_those_of_a_list() -> None:
    frames = FrameInstances(_tracks(False), (5, 6))
    assert frames[-1].gt_ids.tolist() == [-1, 11]
    assert [frame.gt_ids.tolist() for frame in frames[::2]] == [[10, -1], [-1, 11]]
    with pytest.raises(IndexError):
        frames[3]


def test_pickled_sample_holds_its_tracks_once() -> None:
    tracks = _tracks(True)
    sample = {"tracks": tracks, "instances": FrameInstances(tracks, (5, 6))}
    again = pickle.loads(pickle.dumps(sample))
    assert again["instances"].tracks is again["tracks"]
    assert torch.equal(again["instances"][1].gt_masks.tensor, tracks["masks"][:, 1])


def test_clip_without_objects() -> None:
    tracks = {
        "labels": torch.zeros(0, dtype=torch.int64),
        "ids": torch.zeros(0, 2, dtype=torch.int64),
        "boxes": torch.zeros(0, 2, 4),
    }
    assert [len(frame) for frame in FrameInstances(tracks, (5, 6))] == [0, 0]


@pytest.mark.parametrize("with_masks", [False, True])
def test_model_gets_the_same_targets_from_tracks_and_from_instances(with_masks: bool) -> None:
    tracks = _tracks(with_masks)
    if with_masks:
        tracks["masks"][tracks["ids"] < 0] = False
    tracks["boxes"][tracks["ids"] < 0] = 0
    supervision = {"supervision": "mask" if with_masks else "box"}
    forms = {"tracks": tracks}, {"instances": FrameInstances(tracks, (5, 6))}
    first, second = (
        build_targets([form | supervision], (8, 8), torch.device("cpu"))[0] for form in forms
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
