"""Weights files that try to run code or to break memory."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Sets:
    """Pickles as a dict whose attributes are then set to a state."""

    def __init__(self, state) -> None:
        self.state = state

    def __reduce__(self):
        return collections.OrderedDict, (), self.state


def _global(module: str, name: str, *args: bytes) -> bytes:
    """A protocol-2 pickle of ``module.name(*args)``."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR."


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def payloads_of(mark: str) -> dict[str, bytes]:
    """Pickles that would leave a file ``mark``, or break memory, if they were simply loaded."""
    command = f"touch {mark}"
    code = f"open({mark!r}, 'w')"
    array = Calls(np.ndarray, (2,), np.dtype("f4"))
    payloads = {
        "os.system": pickle.dumps(Calls(os.system, command)),
        "posix.system": _global("posix", "system", _text(command)),
        "nt.system": _global("nt", "system", _text(command)),
        "builtins.eval": pickle.dumps(Calls(eval, code)),
        "builtins.exec": pickle.dumps(Calls(exec, code)),
        "__builtin__.eval of Python 2": _global("__builtin__", "eval", _text(code)),
        "builtins.getattr": pickle.dumps(Calls(getattr, "a", "upper")),
        "functools.partial": pickle.dumps(Calls(functools.partial, os.system, command)),
        "subprocess.Popen": _global("subprocess", "Popen", _text(command)),
        "pkgutil.resolve_name": _global("pkgutil", "resolve_name", _text("os:system")),
        "runpy.run_path": _global("runpy", "run_path", _text(mark)),
        "torch.hub.load": _global("torch.hub", "load", _text("a/b"), _text("c")),
        "torch.load": _global("torch", "load", _text(mark)),
        "numpy.load": _global("numpy", "load", _text(mark)),
        "numpy runstring": _global("numpy.testing._private.utils", "runstring", _text(code)),
        "nested in a dict": pickle.dumps({"model": {"w": [Calls(os.system, command)]}}),
        "as a key": pickle.dumps({"model": {(1, Calls(len, "ab")): 1}}),
        "state of a dict": pickle.dumps(Sets({"items": Calls(os.system, command)})),
        "in an array of objects": pickle.dumps(np.array([Calls(os.system, command)], object)),
        "array of objects": pickle.dumps(np.array([None, {}], object)),
        "array over no memory": pickle.dumps(array),
        "codec": _global("_codecs", "encode", _text("aa"), _text("hex")),
        "dtype with objects": _global("numpy", "dtype", _text("O")),
        "dtype with fields": _global("numpy", "dtype", _text("f4,O")),
        "dotted name": b"\x80\x04"
        + _short("collections")
        + _short("OrderedDict.fromkeys")
        + b"\x93.",
        "persistent id": b"Pabc\n.",
        "extension": b"\x80\x02\x82\x01.",
        "own function": _global("maskfreevis_ext.safe_load", "load_pth", _text(mark)),
    }
    # numpy's own dtype would take these flags as they are, and then read floats as addresses.
    array = pickle.dumps(np.arange(3, dtype=np.float64), protocol=2)
    payloads["dtype flags that claim objects"] = array.replace(
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft",
    )
    return payloads


def _short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def as_torch_file(payload: bytes, path: Path) -> None:
    """Put a pickle where ``torch.load`` expects one."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.infolist():
            content = payload if item.filename.endswith("/data.pkl") else source.read(item)
            target.writestr(item.filename, content)
