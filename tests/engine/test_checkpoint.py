"""Saving, loading and resuming."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.engine.checkpoint import (
    MAX_SAVE_FAILURES,
    SafeCheckpointer,
)
from maskfreevis_ext.engine.weights_report import describe_incompatible
from maskfreevis_ext.errors import CheckpointError, NumericError


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


class TestMustFit:
    """Evaluation and demo refuse weights that fit in part."""

    def load(self, tmp_path, weights: dict, *, must_fit: bool = True) -> _Model:
        torch.save({"model": weights}, tmp_path / "a.pth")
        model = _Model()
        SafeCheckpointer(model, must_fit=must_fit).load(str(tmp_path / "a.pth"))
        return model

    def test_whole_weights_pass(self, tmp_path):
        weights = _Model().state_dict()
        model = self.load(tmp_path, {**weights, "criterion._iter": torch.ones(1)})
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name]), name

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


class TestManifest:
    """``checkpoints.json`` says what was saved, and finds every damage."""

    def manifest(self, folder: Path) -> dict:
        return json.loads((folder / "checkpoints.json").read_text())

    def test_it_has_checksum_config_versions_iteration_and_class_names(self, tmp_path):
        checkpointer = SafeCheckpointer(
            _filled(1.0), str(tmp_path), class_names=["cat", "dog", "emu"], config="A: 1\n"
        )
        checkpointer.save("model_0000003", iteration=3)
        content = self.manifest(tmp_path)
        entry = content["checkpoints"]["model_0000003.pth"]
        whole = (tmp_path / "model_0000003.pth").read_bytes()
        assert entry["sha256"] == hashlib.sha256(whole).hexdigest()
        assert entry["iteration"] == 3
        run = content["runs"][entry["run"]]
        assert (run["config"], run["class_names"]) == ("A: 1\n", ["cat", "dog", "emu"])
        assert run["versions"]["torch"] == torch.__version__
        assert content["format"] == 1

    @pytest.mark.parametrize("is_listed", [True, False])
    def test_every_flipped_bit_is_found(self, tmp_path, is_listed):
        """Without the manifest, bits that torch.load does not look at may pass: nothing else."""
        _save(tmp_path, "model_final", 2.0)
        path = tmp_path / "model_final.pth"
        if not is_listed:
            (tmp_path / "checkpoints.json").unlink()
        whole, rng, found = path.read_bytes(), random.Random(0), 0
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(damaged))
            model = _Model()
            try:
                SafeCheckpointer(model).load(str(path))
            except CheckpointError:
                found += 1
            else:
                assert _value(model) == 2.0
        assert found == 100 if is_listed else found > 50

    def test_damaged_manifest_is_not_used(self, tmp_path, caplog):
        _save(tmp_path, "model_final", 2.0)
        for content in ("{", "[]", '{"format": 2}', '{"format": 1, "runs": 1, "checkpoints": {}}'):
            (tmp_path / "checkpoints.json").write_text(content)
            model = _Model()
            SafeCheckpointer(model).load(str(tmp_path / "model_final.pth"))
            assert _value(model) == 2.0
            assert "checkpoints.json" in caplog.text
            caplog.clear()
        _save(tmp_path, "model_final", 3.0)
        assert list(self.manifest(tmp_path)["checkpoints"]) == ["model_final.pth"]

    @pytest.mark.parametrize("is_first", [True, False])
    def test_kill_before_the_new_name_leaves_a_file_that_is_known(
        self, tmp_path, monkeypatch, is_first
    ):
        _save(tmp_path, "model_final", 2.0)
        if is_first:  # a folder of a version without manifests
            (tmp_path / "checkpoints.json").unlink()

        def killed(source: str, target: str) -> None:
            if target.endswith(".pth"):
                raise KeyboardInterrupt
            replace(source, target)

        replace = os.replace
        with monkeypatch.context() as patch:
            patch.setattr("maskfreevis_ext.files.os.replace", killed)
            with pytest.raises(KeyboardInterrupt):
                SafeCheckpointer(_filled(3.0), str(tmp_path)).save("model_final")
        model = _Model()
        SafeCheckpointer(model, str(tmp_path)).resume_or_load("")
        assert _value(model) == 2.0

    def test_replaced_file_is_told(self, tmp_path):
        _save(tmp_path, "model_final", 2.0)
        torch.save({"model": _filled(5.0).state_dict()}, tmp_path / "model_final.pth")
        with pytest.raises(CheckpointError, match=r"model_final\.pth is damaged.*another name"):
            SafeCheckpointer(_Model()).load(str(tmp_path / "model_final.pth"))


class TestMaxToKeep:
    """SOLVER.CHECKPOINT_MAX_TO_KEEP."""

    def names(self, folder: Path) -> list[str]:
        return sorted(p.name.removeprefix("model_") for p in folder.glob("*.pth"))

    def save(self, folder: Path, *numbers: int, keep: int = 2, resume: bool = False) -> None:
        checkpointer = SafeCheckpointer(_filled(1.0), str(folder), max_to_keep=keep)
        if resume:
            checkpointer.resume_or_load("")
        for number in numbers:
            checkpointer.save(f"model_{number:07d}", iteration=number)

    def test_newest_stay_and_those_that_it_did_not_number(self, tmp_path):
        for name in ("model_final", "model_best", "model_0000000", "model_mine"):
            torch.save({}, tmp_path / f"{name}.pth")
        self.save(tmp_path, 1, 2, 3, 4)
        left = ["0000000.pth", "0000003.pth", "0000004.pth", "best.pth", "final.pth", "mine.pth"]
        assert self.names(tmp_path) == left
        manifest = json.loads((tmp_path / "checkpoints.json").read_text())
        assert list(manifest["checkpoints"]) == ["model_0000003.pth", "model_0000004.pth"]

    def test_zero_keeps_all(self, tmp_path):
        self.save(tmp_path, 1, 2, 3, keep=0)
        assert len(self.names(tmp_path)) == 3

    def test_resumed_training_goes_on_counting(self, tmp_path):
        self.save(tmp_path, 1, 2)
        self.save(tmp_path, 3, resume=True)
        assert self.names(tmp_path) == ["0000002.pth", "0000003.pth"]

    def test_another_training_in_the_same_folder_does_not_remove_the_first(self, tmp_path):
        self.save(tmp_path, 5, 6)
        self.save(tmp_path, 1, 2, 3)
        assert self.names(tmp_path) == ["0000002.pth", "0000003.pth", "0000005.pth", "0000006.pth"]

    def test_file_that_cannot_be_removed_is_told(self, tmp_path, monkeypatch, caplog):
        self.save(tmp_path, 1, 2)

        def refuse(path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr("maskfreevis_ext.engine.training_record.os.remove", refuse)
        self.save(tmp_path, 3, resume=True)
        assert len(self.names(tmp_path)) == 3
        assert "could not be removed" in caplog.text


class TestBest:
    """``model_best.pth``."""

    def test_value_survives_a_restart_but_not_a_new_training(self, tmp_path):
        first = SafeCheckpointer(_filled(1.0), str(tmp_path), trainer=_State())
        first.save("model_0000001", iteration=1)
        first.save_best("segm/AP", 12.5, 1)
        assert first.record.best("segm/AP") == 12.5
        assert first.record.best("segm/AP50") is None
        second = SafeCheckpointer(_Model(), str(tmp_path), trainer=_State())
        assert second.record.best("segm/AP") is None
        second.resume_or_load("")
        assert second.record.best("segm/AP") == 12.5
        (tmp_path / "model_best.pth").unlink()
        assert second.record.best("segm/AP") is None

    def test_it_is_weights_only_and_not_resumed_from(self, tmp_path):
        checkpointer = SafeCheckpointer(_filled(3.0), str(tmp_path), trainer=_State())
        checkpointer.save("model_0000001", iteration=1)
        checkpointer.save_best("segm/AP", 1.0, 2)
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
        assert [os.path.basename(p) for p in checkpointer.resume_candidates()] == [
            "model_0000001.pth"
        ]
        data = torch.load(tmp_path / "model_best.pth", weights_only=True)
        assert data["iteration"] == 2
        assert "trainer" not in data
        model = _Model()
        SafeCheckpointer(model).load(str(tmp_path / "model_best.pth"))
        assert _value(model) == 3.0


class TestClassNames:
    """Names travel with the weights, which are matched by them."""

    NAMES = ("cat", "dog", "emu")

    def saved(self, folder: Path, names: tuple[str, ...] | None = NAMES) -> str:
        model = _Model(len(names or self.NAMES))
        rows = torch.arange(len(model.class_embed.bias), dtype=torch.float32)
        model.class_embed.bias.data.copy_(rows)
        model.class_embed.weight.data.copy_(rows[:, None].expand(-1, 4))
        SafeCheckpointer(model, str(folder), class_names=names, trainer=_State()).save(
            "model_final"
        )
        return str(folder / "model_final.pth")

    def test_evaluation_takes_the_names_of_the_file(self, tmp_path):
        model = _Model()
        SafeCheckpointer(model).load(self.saved(tmp_path))
        assert class_names_of(model) == list(self.NAMES)
        SafeCheckpointer(model).load(self.saved(tmp_path / "other", None))
        assert class_names_of(model) is None

    def test_file_without_names_gives_one_warning(self, tmp_path, caplog):
        for names in (None, self.NAMES):
            caplog.clear()
            SafeCheckpointer(_Model(), class_names=names).load(self.saved(tmp_path, None))
            lines = [r for r in caplog.records if "no class names" in r.getMessage()]
            assert len(lines) == 1
        caplog.clear()
        torch.save({"body.weight": torch.ones(4, 2)}, tmp_path / "backbone.pth")
        SafeCheckpointer(_Model()).load(str(tmp_path / "backbone.pth"))
        SafeCheckpointer(_Model(classes=5)).load(self.saved(tmp_path, None))  # of another size
        assert "no class names" not in caplog.text

    def test_names_of_another_number_of_classes_are_not_taken(self, tmp_path):
        model = _Model(classes=5)
        SafeCheckpointer(model).load(self.saved(tmp_path))
        assert class_names_of(model) is None

    @pytest.mark.parametrize(
        ("wanted", "rows"),
        [
            (("cat", "dog", "emu"), [0, 1, 2, 3]),
            (("Cat", "d-o-g", "EMU"), [0, 1, 2, 3]),
            (("emu", "cat", "dog"), [2, 0, 1, 3]),
            (("emu", "cow", "cat"), [2, 9, 0, 3]),
            (("emu", "cow", "cat", "dog"), [2, 9, 0, 1, 3]),
            (("dog",), [1, 3]),
            (("x", "y", "z"), [9, 9, 9, 3]),
        ],
    )
    def test_training_matches_the_classifier_by_name(self, tmp_path, wanted, rows):
        model = _Model(len(wanted))
        model.class_embed.bias.data.fill_(9.0)
        model.class_embed.weight.data.fill_(9.0)
        SafeCheckpointer(model, class_names=wanted).load(self.saved(tmp_path))
        assert model.class_embed.bias.tolist() == rows
        assert model.class_embed.weight[:, 2].tolist() == rows
        assert class_names_of(model) == list(wanted)

    def test_resume_with_other_classes_is_refused(self, tmp_path):
        self.saved(tmp_path)
        checkpointer = SafeCheckpointer(
            _Model(), str(tmp_path), class_names=("emu", "cat", "dog"), trainer=_State()
        )
        with pytest.raises(
            CheckpointError, match=r"\['cat', 'dog', 'emu'\].*\['emu', 'cat', 'dog'\]"
        ):
            checkpointer.resume_or_load("")

    @pytest.mark.parametrize("value", ["cat", ["a", "a", "b"], ["a", "b", ""], ["a", 1, "c"], {},
                                       ["a", "b", "\x1b[2J"], []])  # fmt: skip
    def test_what_are_no_names_counts_as_none(self, tmp_path, value):
        torch.save({"model": _filled(1.0).state_dict(), "class_names": value}, tmp_path / "a.pth")
        model = _Model()
        SafeCheckpointer(model).load(str(tmp_path / "a.pth"))
        assert class_names_of(model) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    model = _filled(1.0)
    model.class_embed.bias.data[1] = bad
    torch.save({"model": model.state_dict(), "trainer": {"value": 1}}, tmp_path / "model_1.pth")
    with pytest.raises(NumericError, match=r"model_1\.pth.*1 of 4 weights: class_embed\.bias"):
        SafeCheckpointer(_Model()).load(str(tmp_path / "model_1.pth"))
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints.*NaN or Inf"):
        SafeCheckpointer(_Model(), str(tmp_path), trainer=_State()).resume_or_load("")
