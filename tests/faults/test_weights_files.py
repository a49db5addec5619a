"""Weights files that are damaged, or try to run code."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.safe_load import load_pkl, load_pth, verify_archive
from tests.helpers.payloads import Calls, as_torch_file, payloads_of

NAMES = sorted(payloads_of("x"))


@pytest.mark.parametrize("name", NAMES)
def test_malicious_pkl_runs_nothing(tmp_path: Path, name: str):
    mark = tmp_path / "ran"
    path = tmp_path / "weights.pkl"
    path.write_bytes(payloads_of(str(mark))[name])
    if name == "dtype flags that claim objects":  # the flags are not read at all
        np.testing.assert_array_equal(load_pkl(str(path)), np.arange(3.0))
        return
    with pytest.raises(CheckpointError, match=r"weights\.pkl"):
        load_pkl(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "builtins.eval", "functools.partial"]
)
def test_refused_name_is_told(tmp_path: Path, name: str):
    path = tmp_path / "weights.pkl"
    path.write_bytes(payloads_of(str(tmp_path / "ran"))[name])
    with pytest.raises(CheckpointError) as error:
        load_pkl(str(path))
    told = {"os.system": "posix.system"}.get(name, name)
    assert told in str(error.value)
    assert "never loaded" in str(error.value)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".pyth", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_torch_file_runs_nothing(tmp_path: Path, ending: str, zipped: bool, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # PyTorch's own way round the check
    mark = tmp_path / "ran"
    for name, payload in payloads_of(str(mark)).items():
        if name.startswith(("dtype", "array", "codec", "state", "persistent")):
            continue  # harmless to PyTorch, or not readable as its format
        path = tmp_path / f"weights{ending}"
        if zipped:
            as_torch_file(payload, path)
        else:
            path.write_bytes(payload)
        with pytest.raises(CheckpointError) as error:
            load_pth(str(path))
        assert not mark.exists(), name
        assert f"weights{ending}" in str(error.value)


@pytest.mark.parametrize("ending", [".pth", ".pkl", ".pyth"])
@pytest.mark.parametrize("resume", [True, False])
def test_no_way_through_the_checkpointer(tmp_path: Path, ending: str, resume: bool):
    mark = tmp_path / "ran"
    path = tmp_path / f"model_0000001{ending}"
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {mark}")))
    (tmp_path / "last_checkpoint").write_text(path.name)
    with pytest.raises(CheckpointError):
        SafeCheckpointer(torch.nn.Linear(1, 1), str(tmp_path)).resume_or_load(
            str(path), resume=resume
        )
    assert not mark.exists()


def test_plain_containers_inside_themselves_end(tmp_path: Path):
    loop: list = []
    loop.append(loop)
    path = tmp_path / "loop.pkl"
    path.write_bytes(pickle.dumps(loop))
    with pytest.raises(CheckpointError, match="inside itself"):
        load_pkl(str(path))


def test_shared_containers_do_not_blow_up(tmp_path: Path):
    node: list = []
    for _ in range(100):
        node = [node, node]
    path = tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps(node))
    loaded = load_pkl(str(path))  # 2 ** 100 lists, if they were not shared
    for _ in range(100):
        assert len(loaded) == 2
        assert loaded[0] is loaded[1]
        loaded = loaded[0]
    assert loaded == []


def test_damaged_pkl_is_an_error_whatever_the_damage(tmp_path: Path):
    whole = pickle.dumps({"model": {"w": np.arange(50.0)}, "__author__": "me"})
    path = tmp_path / "weights.pkl"
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        if rng.random() < 0.5:
            del damaged[rng.randrange(len(damaged)) :]
        for _ in range(rng.randrange(1, 5)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        # Damage inside the numbers cannot be seen; any other error than this one fails the test.
        with contextlib.suppress(CheckpointError):
            load_pkl(str(path))


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_pth_is_an_error(tmp_path: Path, keep: float):
    path = tmp_path / "model.pth"
    torch.save({"model": {"w": torch.randn(1000)}}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"model\.pth.*damaged"):
        load_pth(str(path))


def test_flipped_byte_in_the_numbers_is_found(tmp_path: Path):
    path = tmp_path / "model.pth"
    torch.save({"model": {"w": torch.zeros(1000)}}, path)
    content = bytearray(path.read_bytes())
    position = bytes(content).index(b"\0" * 3000) + 1500
    content[position] ^= 1
    path.write_bytes(bytes(content))
    load_pth(str(path))  # PyTorch does not look
    with pytest.raises(CheckpointError, match=r"model\.pth.*checksum"):
        verify_archive(str(path))
