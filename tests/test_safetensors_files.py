"""``.safetensors`` files with class names and a checksum."""

from __future__ import annotations

import builtins
import random
import sys

import pytest
import torch

from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.safetensors_files import write_safetensors
from maskfreevis_ext.weights_files import read_weights_file

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).t(),
    "b": torch.ones(3, dtype=torch.bfloat16),
    "n": torch.tensor(7),
}


@pytest.mark.parametrize("names", [None, ["cat", "Hündin"]])
def test_round_trip(tmp_path, names):
    path = str(tmp_path / "w.safetensors")
    write_safetensors(TENSORS, path, names)
    content = read_weights_file(path)
    if names is not None:
        assert content["class_names"] == names
        content = content["model"]
    assert content.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(content[name], value)
        assert content[name].dtype == value.dtype


def test_other_readers_read_it(tmp_path):
    write_safetensors(TENSORS, tmp_path / "w.safetensors", ["cat"])
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "w.safetensors")["a"], TENSORS["a"])


def test_every_flipped_bit_is_found(tmp_path):
    path, rng = tmp_path / "w.safetensors", random.Random(0)
    write_safetensors(TENSORS, path, ["cat", "dog"])
    whole = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            content = read_weights_file(str(path))
        except CheckpointError:
            continue
        # A blank that is another blank in the JSON text, or the name of the checksum itself.
        assert content["class_names"] == ["cat", "dog"]
        assert all(torch.equal(content["model"][name], value) for name, value in TENSORS.items())


def test_absent_package_is_told_in_one_line(tmp_path, monkeypatch):
    write_safetensors(TENSORS, tmp_path / "w.safetensors")
    for name in [name for name in sys.modules if name.startswith("safetensors")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_weights_file(str(tmp_path / "w.safetensors"))
    with pytest.raises(ConfigError, match="pip install safetensors"):
        write_safetensors(TENSORS, tmp_path / "other.safetensors")
