"""Reading of honest weights files."""

from __future__ import annotations

import collections
import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.safe_load import check_torch, load_pkl, load_pth, verify_archive
from maskfreevis_ext.safetensors_files import write_safetensors
from maskfreevis_ext.weights_files import read_weights_file

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float64, transposed": np.arange(6.0).reshape(2, 3).T,
    "float16": np.ones((1, 2, 3), np.float16),
    "int64": np.array([1, -2]),
    "bool": np.array([True, False]),
    "big endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 4), np.float32),
    "no dimension": np.array(2.5),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_kind_come_back(tmp_path, protocol):
    data = collections.OrderedDict(
        model=dict(ARRAYS),
        __author__="someone",
        numbers=[1, 2.5, None, True, "text", b"bytes", (1, 2)],
        scalar=np.float32(1.5),
    )
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    loaded = load_pkl(str(path))
    assert list(loaded["model"]) == list(ARRAYS)
    for name, array in ARRAYS.items():
        got = loaded["model"][name]
        np.testing.assert_array_equal(got, array, err_msg=name)
        assert np.asarray(got).dtype == array.dtype.newbyteorder("="), name
        assert np.asarray(got).flags.writeable or not np.ndim(got)
    assert loaded["numbers"] == data["numbers"]
    assert loaded["scalar"] == 1.5
    assert loaded["__author__"] == "someone"


def _python2_pickle() -> bytes:
    """What Python 2 wrote for {"w": np.array([1, 2], "<f4")}: byte strings, numpy.core."""
    raw = np.array([1, 2], "<f4").tobytes()
    out = io.BytesIO()
    out.write(b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\n")
    out.write(b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R")  # _reconstruct(ndarray, (0,), "b")
    out.write(
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
    )  # (1, (2,), dtype("f4", 0, 1)
    out.write(b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
    out.write(b"\x89U" + bytes([len(raw)]) + raw + b"tbs.")
    return out.getvalue()


def test_pickle_of_python_2_comes_back(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(_python2_pickle())
    expected = pickle.loads(_python2_pickle(), encoding="latin1")
    np.testing.assert_array_equal(load_pkl(str(path))["w"], expected["w"])


def test_shared_array_is_read_once(tmp_path):
    array = np.zeros(3)
    path = tmp_path / "shared.pkl"
    path.write_bytes(pickle.dumps({"a": array, "b": array}))
    loaded = load_pkl(str(path))
    assert loaded["a"] is loaded["b"]


def test_pth_with_training_state_comes_back(tmp_path):
    path = tmp_path / "model.pth"
    data = {"model": {"w": torch.ones(2)}, "trainer": {"iteration": 3, "hooks": {"a": [1.0]}}}
    torch.save(data, path)
    loaded = load_pth(str(path))
    assert torch.equal(loaded["model"]["w"], torch.ones(2))
    assert loaded["trainer"] == data["trainer"]
    verify_archive(str(path))


@pytest.mark.parametrize("load", [load_pth, load_pkl])
def test_missing_file(tmp_path, load):
    with pytest.raises(CheckpointError, match=r"gone\.p.*does not exist"):
        load(str(tmp_path / ("gone.pth" if load is load_pth else "gone.pkl")))


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1", "2.9.1+cu126", "2.10.0a0+git1"])
def test_old_torch_takes_no_file_of_torch_save(tmp_path, version, monkeypatch):
    with pytest.raises(CheckpointError, match=rf"a\.pth.*{re.escape(version)}.*\.safetensors"):
        check_torch("a.pth", version)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": torch.ones(1)}))
    write_safetensors({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(check_torch, "__defaults__", (version,))
    for name in ("a.pth", "a.pkl"):
        with pytest.raises(CheckpointError, match=r"torch >= 2\.10"):
            read_weights_file(str(tmp_path / name))
    assert read_weights_file(str(tmp_path / "a.safetensors"))["a"].item() == 1


@pytest.mark.parametrize("version", ["2.10", "2.10.0+cpu", "2.13.0", "3.0"])
def test_new_torch_passes(version):
    check_torch("a.pth", version)


def test_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
    with pytest.raises(CheckpointError, match="archive/data/0 is compressed"):
        verify_archive(str(tmp_path / "a.pth"))
