"""Checkpoints: round trip, resuming, weights of other sizes, files that would run code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError


def _model(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))


def test_round_trip_with_optimizer(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpointer.save("model_0000004", iteration=4)
    assert Path(checkpointer.get_checkpoint_file()).name == "model_0000004.pth"

    other = _model()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    resumed = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    rest = resumed.resume_or_load("", resume=True)
    assert rest["iteration"] == 4
    assert other_optimizer.param_groups[0]["lr"] == 0.5
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)

    fresh = _model()
    untouched = torch.optim.SGD(fresh.parameters(), lr=0.1)
    loader = DetectionCheckpointer(fresh, str(tmp_path), optimizer=untouched)
    loader.resume_or_load(str(tmp_path / "model_0000004.pth"), resume=False)
    assert untouched.param_groups[0]["lr"] == 0.1
    assert torch.equal(fresh[0].weight, model[0].weight)


def test_weights_of_another_size_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    wide = _model(5)
    torch.save(wide.state_dict(), path)
    narrow = _model(3)
    before = narrow[0].weight.clone()
    SafeCheckpointer(narrow).load(str(path))
    assert torch.equal(narrow[0].weight, before)
    assert torch.equal(narrow[1].bias, wide[1].bias)


def test_matching_by_name_ends_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"bias": torch.full((3,), 7.0)}, path)
    model = nn.Module()
    model.part = nn.Linear(2, 3)
    SafeCheckpointer(model).load(f"{path}?matching_heuristics=True")
    assert model.part.bias.tolist() == [7, 7, 7]


def test_absent_file_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no/such/file"):
        DetectionCheckpointer(_model()).load("no/such/file.pth")


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    DetectionCheckpointer(_model(), str(tmp_path), save_to_disk=False).save("model_final")
    assert list(tmp_path.iterdir()) == []


class _Malicious:
    """Makes a folder when it is unpickled by plain pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        import os

        return os.mkdir, (self.marker,)


def test_torch_file_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    torch.save({"model": {"0.weight": _Malicious(marker)}}, path)
    with pytest.raises(Exception, match=r"mkdir"):
        DetectionCheckpointer(_model()).load(str(path))
    assert not marker.exists()


def test_pickle_file_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"0.weight": _Malicious(marker)}, "__author__": "x"}))
    with pytest.raises(CheckpointError, match=r"mkdir"):
        SafeCheckpointer(_model()).load(str(path))
    assert not marker.exists()
