"""Saving, loading and resuming."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskfreevis_ext.engine.checkpoint import (
    MAX_SAVE_FAILURES,
    SafeCheckpointer,
    remove_unfinished,
)
from maskfreevis_ext.engine.weights_report import describe_incompatible
from maskfreevis_ext.errors import CheckpointError


class _Model(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(2, 4)
        self.class_embed = nn.Linear(4, classes + 1)


class _State:
    """Something to save beside a model."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


def _filled(value: float, classes: int = 3) -> _Model:
    model = _Model(classes)
    for parameter in model.parameters():
        parameter.data.fill_(value)
    return model


def _value(model: _Model) -> float:
    return model.body.weight[0, 0].item()


def _save(folder: Path, name: str, value: float) -> None:
    SafeCheckpointer(_filled(value), str(folder), trainer=_State(int(value))).save(name)


def _damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _mend_time(folder: Path) -> None:
    """Give files saved within the same tick the order of their names."""
    for i, path in enumerate(sorted(folder.glob("model_*.pth"))):
        os.utime(path, (1000 + i, 1000 + i))


def test_save_writes_a_plain_checkpoint_and_then_its_name(tmp_path):
    _save(tmp_path, "model_0000004", 2.0)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoints.json", "last_checkpoint", "model_0000004.pth"]
    data = torch.load(tmp_path / "model_0000004.pth", weights_only=True)
    assert data["trainer"] == {"value": 2}
    assert data["model"]["body.weight"][0, 0] == 2.0


def test_other_processes_do_not_save(tmp_path):
    SafeCheckpointer(_Model(), str(tmp_path), save_to_disk=False).save("model_0000001")
    assert list(tmp_path.iterdir()) == []


def test_load_takes_weights_only(tmp_path):
    _save(tmp_path, "model_final", 2.0)
    model, state = _Model(), _State(7)
    checkpointer = SafeCheckpointer(model, str(tmp_path), trainer=state)
    path = str(tmp_path / "model_final.pth")
    checkpointer.resume_or_load(path, resume=False)
    assert (_value(model), state.value) == (2.0, 7)
    assert checkpointer.loaded_file == path
    assert not checkpointer.resumed


def test_resume_takes_the_newest(tmp_path):
    _save(tmp_path, "model_0000001", 1.0)
    _save(tmp_path, "model_0000003", 3.0)
    model, state = _Model(), _State()
    checkpointer = SafeCheckpointer(model, str(tmp_path), trainer=state)
    checkpointer.resume_or_load("", resume=True)
    assert (_value(model), state.value) == (3.0, 3)
    assert checkpointer.resumed
    assert checkpointer.loaded_file.endswith("model_0000003.pth")


def test_resume_without_a_checkpoint_loads_the_weights(tmp_path, caplog):
    _save(tmp_path / "other", "model_final", 2.0)
    model = _Model()
    checkpointer = SafeCheckpointer(model, str(tmp_path / "out"))
    with caplog.at_level(logging.INFO):
        checkpointer.resume_or_load(str(tmp_path / "other" / "model_final.pth"), resume=True)
    assert _value(model) == 2.0
    assert not checkpointer.resumed
    assert "no checkpoint in" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a\0b", b"gone.pth", b"../gone.pth"])
def test_resume_without_a_usable_last_checkpoint_takes_the_newest_file(tmp_path, content):
    _save(tmp_path, "model_0000001", 1.0)
    (tmp_path / "last_checkpoint").write_bytes(content)
    model = _Model()
    SafeCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert _value(model) == 1.0


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "gone", "another", "name only"])
def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path, caplog, damage):
    for i in (1, 3, 5):
        _save(tmp_path, f"model_000000{i}", float(i))
    _mend_time(tmp_path)
    newest = tmp_path / "model_0000005.pth"
    if damage == "cut":
        _damage(newest)
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "flipped":
        content = bytearray(newest.read_bytes())
        position = bytes(content).index(np.full(4, 5, np.float32).tobytes())
        content[position] ^= 1
        newest.write_bytes(bytes(content))
    elif damage == "gone":
        newest.unlink()
    elif damage == "another":
        torch.save([1, 2], newest)
    else:
        newest.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    model, state = _Model(), _State()
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(model, str(tmp_path), trainer=state).resume_or_load("", resume=True)
    assert (_value(model), state.value) == (3.0, 3)
    lines = [r.getMessage() for r in caplog.records if "skipping a" in r.getMessage()]
    assert len(lines) == (damage != "gone")
    assert all("model_0000005.pth" in line for line in lines)


def test_resume_with_damaged_checkpoints_only_does_not_start_anew(tmp_path):
    _save(tmp_path / "weights", "model_final", 9.0)
    _save(tmp_path, "model_0000001", 1.0)
    _save(tmp_path, "model_0000003", 3.0)
    for path in tmp_path.glob("*.pth"):
        _damage(path)
    model = _Model()
    before = _value(model)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints") as error:
        checkpointer.resume_or_load(str(tmp_path / "weights" / "model_final.pth"), resume=True)
    assert "model_0000001.pth" in str(error.value)
    assert "model_0000003.pth" in str(error.value)
    assert _value(model) == before


def test_checkpoint_can_be_loaded_after_a_damaged_one(tmp_path):
    """Detectron2's own checkpointer cannot be used again after an error."""
    _save(tmp_path, "model_final", 2.0)
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"bad")
    model = _Model()
    checkpointer = SafeCheckpointer(model)
    with pytest.raises(CheckpointError):
        checkpointer.load(str(bad))
    checkpointer.load(str(tmp_path / "model_final.pth"))
    assert _value(model) == 2.0


def test_missing_weights_file_is_named():
    with pytest.raises(CheckpointError, match=r"no/such\.pkl.*MODEL\.WEIGHTS"):
        SafeCheckpointer(_Model()).load("no/such.pkl")


def test_head_of_another_size_is_skipped_and_named(tmp_path, caplog):
    path = tmp_path / "coco.pth"
    torch.save({"model": _filled(2.0, classes=80).state_dict()}, path)
    model = _filled(1.0, classes=3)
    with caplog.at_level(logging.INFO):
        SafeCheckpointer(model).load(str(path))
    assert _value(model) == 2.0
    assert model.class_embed.weight[0, 0] == 1.0
    for part in (
        "class_embed.weight",
        "(81, 4)",
        "(4, 4)",
        "class_embed.bias",
        "2 of the model's 4",
    ):
        assert part in caplog.text


def test_missing_and_unexpected_keys_are_summarised(tmp_path, caplog):
    state = _filled(2.0).state_dict()
    state["old.weight"] = state.pop("class_embed.weight")
    state["old.bias"] = state.pop("class_embed.bias")
    path = tmp_path / "a.pth"
    torch.save(state, path)  # a bare state dict
    model = _filled(1.0)
    with caplog.at_level(logging.INFO):
        SafeCheckpointer(model).load(str(path))
    assert _value(model) == 2.0
    assert "not in the file, keep their initial values: class_embed.{bias, weight}" in caplog.text
    assert "in the file, not used by the model: old.{bias, weight}" in caplog.text


def test_weights_of_another_model_are_an_error(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": nn.Conv2d(1, 1, 1).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"another model.*0 of the model's 4"):
        SafeCheckpointer(_Model()).load(str(path))


def test_resume_refuses_weights_without_training_state(tmp_path):
    torch.save({"model": _filled(2.0).state_dict()}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(CheckpointError, match=r"model_final\.pth.*without trainer"):
        SafeCheckpointer(_Model(), str(tmp_path), trainer=_State()).resume_or_load("")
    model = _Model()
    SafeCheckpointer(model, str(tmp_path)).resume_or_load("")  # evaluation needs the weights only
    assert _value(model) == 2.0


def test_resume_refuses_the_checkpoint_of_another_model(tmp_path):
    _save(tmp_path, "model_0000001", 1.0)
    with pytest.raises(CheckpointError, match=r"another model.*class_embed\.weight"):
        SafeCheckpointer(_Model(classes=5), str(tmp_path), trainer=_State()).resume_or_load("")


def test_resume_refuses_a_training_state_that_does_not_fit(tmp_path):
    class _Other(_State):
        def load_state_dict(self, state: dict) -> None:
            raise ValueError("loaded state dict has a different number of parameter groups")

    _save(tmp_path, "model_0000001", 1.0)
    with pytest.raises(CheckpointError, match=r"model_0000001\.pth.*parameter groups"):
        SafeCheckpointer(_Model(), str(tmp_path), trainer=_Other()).resume_or_load("")


def test_summary_of_a_perfect_fit_is_one_line():
    class _Nothing:
        missing_keys: tuple = ()
        unexpected_keys: tuple = ()
        incorrect_shapes: tuple = ()

    assert describe_incompatible(_Nothing(), 4) == "Loaded 4 of the model's 4 weights."


@pytest.mark.parametrize("prefix", ["", "module."])
def test_model_zoo_pickle(tmp_path, prefix):
    weights = {prefix + k: v.numpy() for k, v in _filled(2.0).state_dict().items()}
    path = tmp_path / "model_final_abc.pkl"
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "Somebody"}))
    model = _Model()
    SafeCheckpointer(model).load(str(path))
    assert _value(model) == 2.0


def test_checkpoint_of_a_distributed_training(tmp_path):
    weights = {f"module.{k}": v for k, v in _filled(2.0).state_dict().items()}
    path = tmp_path / "a.pth"
    torch.save({"model": weights, "iteration": 3}, path)
    model = _Model()
    assert SafeCheckpointer(model).load(str(path))["iteration"] == 3
    assert _value(model) == 2.0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model": [1]}, "expected a dict under 'model', got list"),
        ({"model": {"w": 1}}, "got int under 'w'"),
        ([1], "got list"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "pkl"])
def test_file_without_weights_is_named(tmp_path, content, told, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError) as error:
        SafeCheckpointer(_Model()).load(str(path))
    assert f"a.{ending}" in str(error.value)
    assert told in str(error.value) or ending == "pkl"


def test_failed_save_keeps_the_previous_checkpoint(tmp_path, monkeypatch, caplog):
    checkpointer = SafeCheckpointer(_filled(1.0), str(tmp_path))
    checkpointer.save("model_0000001")

    def full(data: object, f: object) -> None:
        f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for _ in range(MAX_SAVE_FAILURES - 1):
        checkpointer.save("model_0000001")
    assert "No space left" in caplog.text
    with pytest.raises(CheckpointError, match=r"No space left.*--resume"):
        checkpointer.save("model_0000001")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoints.json", "last_checkpoint", "model_0000001.pth"]
    torch.load(tmp_path / "model_0000001.pth", weights_only=True)


def test_failed_final_save_is_an_error_at_once(tmp_path, monkeypatch):
    def full(data: object, f: object) -> None:
        raise RuntimeError("unexpected pos 64 vs 0")  # how torch reports a full disk

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="unexpected pos"):
        SafeCheckpointer(_Model(), str(tmp_path)).save("model_final")


def test_success_forgets_earlier_failures(tmp_path, monkeypatch):
    checkpointer = SafeCheckpointer(_Model(), str(tmp_path))
    real = torch.save
    for _ in range(2 * MAX_SAVE_FAILURES):
        monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("no")))
        checkpointer.save("model_0000001")
        monkeypatch.setattr(torch, "save", real)
        checkpointer.save("model_0000001")


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path):
    for name in ("model_0000001.pth.tmp", "last_checkpoint.tmp", "mine.tmp", "model_0000001.pth"):
        (tmp_path / name).write_bytes(b"x")
    remove_unfinished(str(tmp_path))
    remove_unfinished(str(tmp_path / "gone"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.tmp", "model_0000001.pth"]


class TestMustFit:
    """Evaluation and demo refuse weights that fit in part."""

    def load(self, tmp_path, weights: dict, *, must_fit: bool = True) -> None:
        torch.save({"model": weights}, tmp_path / "a.pth")
        SafeCheckpointer(_Model(), must_fit=must_fit).load(str(tmp_path / "a.pth"))

    def test_whole_weights_pass(self, tmp_path):
        weights = {**_Model().state_dict(), "criterion._iter": torch.ones(1)}
        self.load(tmp_path, weights)

    @pytest.mark.parametrize("change", ["missing", "size", "unexpected"])
    def test_part_is_refused_with_a_list(self, tmp_path, change):
        weights = dict(_Model().state_dict())
        if change == "missing":
            del weights["body.weight"]
            text = r"not in the file.*: body\.weight"
        elif change == "size":
            weights["class_embed.bias"] = torch.ones(41)
            text = r"skipped class_embed\.bias: size \(41,\) in the file, \(4,\) in the model"
        else:
            weights["layers.7.weight"] = torch.ones(2)
            text = r"not used by the model: layers\.7\.weight"
        self.load(tmp_path, weights, must_fit=False)
        with pytest.raises(CheckpointError, match=text) as error:
            self.load(tmp_path, weights)
        assert "fit the model only in part" in str(error.value)
        assert "TEST.PARTIAL_WEIGHTS" in str(error.value)


def test_files_of_two_servers_with_one_path_are_not_mixed(tmp_path, monkeypatch):
    """The key of the cache is the whole address, with host and query."""
    fetched = []

    def download(address: str, path: str, timeout: float, expected: str) -> None:
        fetched.append(address)
        torch.save({"model": _filled(float(len(fetched))).state_dict()}, path)

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("maskfreevis_ext.downloads._download", download)
    addresses = [
        "https://one.example/m/a.pth",
        "https://two.example/m/a.pth",
        "https://two.example/m/a.pth?version=2",
    ]
    for number, address in enumerate([*addresses, addresses[0]]):
        model = _Model()
        checkpointer = SafeCheckpointer(model)
        checkpointer.load(address)
        assert _value(model) == number % 3 + 1
        assert checkpointer.loaded_file == address
    assert fetched == addresses
