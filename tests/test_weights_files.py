"""Weights files are told apart by their content."""

from __future__ import annotations

import collections
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.safe_load import load_pkl
from maskfreevis_ext.weights_files import read_weights_file


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"<!DOCTYPE html><html>Virus scan warning</html>\n", "a web page"),
        (b"\xef\xbb\xbf \n<HTML lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", "Git LFS"),
        (b"/annex/objects/SHA256E-s1--a.pth\n", "git-annex"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
        (b'{"message": "Not Found"}', "a JSON text"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a picture"),
        (b"\xff\xd8\xff\xe0\0\0", "a picture"),
        (b"\x1f\x8b\x08\0", "a compressed archive"),
        (b"MODEL:\n  WEIGHTS: x\n", "a config file"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("ending", [".pth", ".pkl", ".safetensors"])
def test_what_is_no_weights_file_is_named(tmp_path, content, name, ending):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as error:
        read_weights_file(str(path))
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)


def test_absent_file_and_folder(tmp_path):
    for path in (tmp_path / "a.pth", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_weights_file(str(path))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a"])
def test_files_of_torch_save_may_have_any_name(tmp_path, name, is_zip):
    path = tmp_path / name
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=is_zip)
    assert read_weights_file(str(path))["a"].tolist() == [1, 1]


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.pth").write_bytes(content)
    for name in ("a.safetensors", "b.pth"):
        read = read_weights_file(str(tmp_path / name))
        assert read["a"].dtype == torch.bfloat16
    (tmp_path / "a.safetensors").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights_file(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("protocol", range(6))
def test_tensors_in_a_plain_pickle(tmp_path, protocol):
    values = torch.arange(6.0).reshape(2, 3)
    content = {
        "transposed": values.t(),
        "parameter": torch.nn.Parameter(values[1:]),
        "half": values.bfloat16(),
        "whole": torch.tensor(3),
        "array": values.numpy(),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": collections.OrderedDict(content)}, protocol))
    read = load_pkl(str(path))["model"]
    assert isinstance(read["array"], np.ndarray)
    for name, value in content.items():
        assert torch.equal(torch.as_tensor(read[name]), torch.as_tensor(value)), name
    assert read["parameter"].untyped_storage().nbytes() == 12


class _Reduces:
    def __init__(self, *value) -> None:
        self.value = value

    def __reduce__(self):
        return self.value


def _storage_bytes(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def _bad_tensors(mark: Path) -> dict[str, object]:
    command = _Reduces(os.system, (f"touch {mark}",))
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(2).untyped_storage(), dtype=torch.float32, _internal=True
    )
    load, build = torch.storage._load_from_bytes, torch._utils._rebuild_tensor_v2
    return {
        "code in the storage": _Reduces(load, (_storage_bytes(command),)),
        "no storage": _Reduces(load, (_storage_bytes({"a": 1}),)),
        "no bytes": _Reduces(load, (b"abc",)),
        "beyond the storage": _Reduces(build, (storage, 1, (5,), (1,), False, {})),
        "negative offset": _Reduces(build, (storage, -4, (1,), (1,), False, {})),
        "array as storage": _Reduces(build, (np.ones(3), 0, (1,), (1,), False, {})),
        "state of a storage": _Reduces(load, (_storage_bytes(storage),), {"dtype": 3}),
        "hooks": _Reduces(build, (storage, 0, (1,), (1,), False, command)),
    }


@pytest.mark.parametrize("name", sorted(_bad_tensors(Path("x"))))
def test_bad_tensors_in_a_pickle_run_nothing(tmp_path, name):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": _bad_tensors(tmp_path / "ran")[name]}))
    with pytest.raises(CheckpointError, match=r"a\.pkl"):
        load_pkl(str(path))
    assert not (tmp_path / "ran").exists()
