"""Reading weights files without running what is inside.

``.pth`` files are read by ``torch.load(weights_only=True)``. ``.pkl`` files of the Detectron2 model
zoo are read by an unpickler that accepts a few names only and replaces all of them by the classes
and functions below, so that a file cannot call code of NumPy or of any other package. There is no
option to load a file in another way.
"""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable

import numpy as np
import torch
from torch.torch_version import TorchVersion

from maskfreevis_ext.errors import CheckpointError, first_line

_REMEDY = (
    "Such files are never loaded. Convert it to a plain dict of tensors with torch.save, on a "
    "machine where you trust it."
)

_LEAST_TORCH = "2.10"
_STORED = zipfile.ZIP_STORED
#: What zip archives begin with.
ZIP_HEAD = b"PK\x03\x04"

_TENSOR_NAMES = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w+Storage"
)


def check_torch(path: str, version: str = torch.__version__) -> None:
    """Refuse files of ``torch.save`` where PyTorch's own check can be passed (CVE-2026-24747).

    Args:
        path: The file, for the message.
        version: Of PyTorch.

    Raises:
        CheckpointError: PyTorch is older than 2.10.
    """
    if TorchVersion(version) < _LEAST_TORCH:
        raise CheckpointError(
            f"Weights file {path}: PyTorch {version} can be made to run code by such a file."
            f" Install torch >= {_LEAST_TORCH}, or give the weights as .safetensors."
        )


def load_pth(path: str) -> object:
    """Load a file of ``torch.save`` that holds tensors and plain Python values.

    Args:
        path: A local file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        CheckpointError: The file is damaged, or holds anything but tensors and plain values, which
            the message names; or PyTorch is older than 2.10.
    """
    check_torch(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"Weights file {path} does not exist.") from None
    except pickle.UnpicklingError as e:
        raise CheckpointError(_refusal(path, str(e))) from None
    except Exception as e:  # torch.load raises many types of errors for a damaged file
        raise CheckpointError(
            f"Weights file {path} cannot be read, it looks damaged: {first_line(e)}"
        ) from None


def verify_archive(path: str) -> None:
    """Compare the stored checksums of a ``.pth`` archive with its data (``torch.load`` does not).

    Args:
        path: A local file. One that is not a zip archive is not checked.

    Raises:
        CheckpointError: A record does not match its checksum, the archive is truncated, or a
            record is compressed.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(len(ZIP_HEAD)) == ZIP_HEAD
        if not is_archive and not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            compressed = [r.filename for r in archive.infolist() if r.compress_type != _STORED]
            bad = archive.testzip() if not compressed else None
    except Exception as e:  # zipfile raises many types of errors for a damaged file
        raise CheckpointError(f"Weights file {path} is damaged: {first_line(e)}") from None
    if compressed:  # a few bytes of it could fill the memory
        raise CheckpointError(
            f"Weights file {path} is damaged, or not of torch.save, which compresses nothing: its"
            f" part {compressed[0]} is compressed."
        )
    if bad is not None:
        raise CheckpointError(
            f"Weights file {path} is damaged: the checksum of its part {bad} does not match."
        )


def load_pkl(path: str) -> object:
    """Load a pickle of the model zoo: dicts, lists, strings, numbers, arrays of numbers, tensors.

    Args:
        path: A local file.

    Returns:
        Its content, NumPy arrays in native byte order, tensors on the CPU.

    Raises:
        CheckpointError: The file is damaged, or holds anything else, which the message names.
    """
    try:
        with open(path, "rb") as f:
            return _resolve(_AllowListUnpickler(f, encoding="latin1").load(), {})
    except CheckpointError as e:
        raise CheckpointError(f"Weights file {path}: {e} {_REMEDY}") from None
    except FileNotFoundError:
        raise CheckpointError(f"Weights file {path} does not exist.") from None
    except Exception as e:  # damaged pickles raise nearly every type of error
        raise CheckpointError(
            f"Weights file {path} cannot be read, it looks damaged: {first_line(e)}"
        ) from None


def _refusal(path: str, message: str) -> str:
    names = _foreign_names(path)
    if not names:
        return f"Weights file {path} cannot be read, it looks damaged: {first_line(message)}"
    return (
        f"Weights file {path}: expected tensors and plain values, got {', '.join(names)}. {_REMEDY}"
    )


def _foreign_names(path: str) -> list[str]:
    """Names in a refused ``.pth`` file other than PyTorch's names for tensors; runs no code."""
    names = []
    with contextlib.suppress(Exception):  # damaged files: keep the names found before the damage
        texts: list[str] = []
        for opcode, argument, _ in pickletools.genops(_pickle_of(path)):
            if opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str) and opcode.name == "GLOBAL":
                names.append(argument.replace(" ", "."))
            elif isinstance(argument, str):
                texts.append(argument)
    return sorted({name for name in names if not _TENSOR_NAMES.fullmatch(name)})


def _pickle_of(path: str) -> bytes:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as f:
            return f.read()
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(record)


class _Dtype:
    """Replaces ``numpy.dtype`` while unpickling; accepts numbers and booleans only."""

    def __init__(self, spec: object, *_: object) -> None:
        if isinstance(spec, bytes):
            spec = spec.decode("latin1")
        if not isinstance(spec, str) or not re.fullmatch(r"[<>|=]?[biufc]\d{0,2}|bool", spec):
            raise CheckpointError(f"expected arrays of numbers, got the type {spec!r}.")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if isinstance(order, bytes):
            order = order.decode("latin1")
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


class _Array:
    """Replaces ``numpy.ndarray`` while unpickling; takes the state that NumPy pickles."""

    value: np.ndarray | torch.Tensor | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        if isinstance(raw, str):  # a pickle of Python 2
            raw = raw.encode("latin1")
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if (
        not isinstance(dtype, _Dtype)
        or not isinstance(raw, (bytes, bytearray))
        or order not in ("C", "F")
    ):
        raise CheckpointError("expected an array of numbers, got something else in its place.")
    values = np.frombuffer(bytes(raw), dtype.value)
    values = values.reshape(shape, order="F" if order == "F" else "C")
    return values.astype(dtype.value.newbyteorder("="), order="C")


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _Array:
        raise CheckpointError(f"expected an array, got {kind!r}.")
    return _Array()


def _from_buffer(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.value = _array(raw, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, raw: bytes | str) -> _Array:
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    return _from_buffer(raw, dtype, (), "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise CheckpointError(f"expected text in latin1, got the encoding {encoding!r}.")
    return text.encode(encoding)


class _Storage:
    """The memory of a tensor in a plain pickle, which holds a file of ``torch.save`` for it."""

    __slots__ = ("value",)

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, bytes):
            raise CheckpointError("expected the bytes of a tensor, got something else.")
        check_torch("a tensor in a pickle")
        self.value = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        if not isinstance(self.value, torch.storage.TypedStorage):
            raise CheckpointError("expected the storage of a tensor, got something else.")

    def __setstate__(self, state: object) -> None:
        raise CheckpointError("expected arrays and plain values, got a change of a storage.")


def _tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_: object) -> _Array:
    if not isinstance(storage, _Storage):
        raise CheckpointError("expected the storage of a tensor, got something else in its place.")
    memory = storage.value._untyped_storage  # .untyped() gives a warning
    empty = torch.empty(0, dtype=storage.value.dtype)
    numbers = [offset, *size, *stride]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise CheckpointError("expected sizes of a tensor, got something else in their place.")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * empty.element_size() > memory.nbytes():
        raise CheckpointError("expected a tensor inside its storage.")  # set_ would enlarge it
    tensor = _Array()
    tensor.value = empty.set_(memory, offset, size, stride)
    return tensor


def _parameter(data: _Array, *_: object) -> _Array:
    if not isinstance(data, _Array):
        raise CheckpointError("expected a tensor, got something else in its place.")
    return data


def _no_bytes() -> bytes:
    return b""  # protocols 0 to 2 write the content of an empty array as this call


class _Function:
    """A function that a pickle may call, but whose state it cannot set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise CheckpointError("expected arrays and plain values, got a change of a function.")


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _Function(_encode),
    ("__builtin__", "bytes"): _Function(_no_bytes),
    ("builtins", "bytes"): _Function(_no_bytes),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
    ("torch.storage", "_load_from_bytes"): _Function(_Storage),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Function(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Function(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _Function(_scalar),
    ("numpy._core.multiarray", "scalar"): _Function(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Function(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Function(_from_buffer),
}


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise CheckpointError(
                f"expected arrays and plain values, got {module}.{name}."
            ) from None


_OPEN = object()


def _resolve(node: object, done: dict[int, object]) -> object:
    """Replace ``_Array`` objects by NumPy arrays, in nested containers.

    Args:
        node: The unpickled object.
        done: Replacements of visited containers by id, so that shared ones are visited once; empty
            in the first call.
    """
    if isinstance(node, _Array):
        if node.value is None:
            raise CheckpointError("expected an array, got one without content.")
        if isinstance(node.value, torch.Tensor):
            return node.value.clone()  # without the rest of its storage
        return node.value if node.value.ndim else node.value[()]
    if isinstance(node, (dict, list, tuple)):
        if id(node) not in done:
            done[id(node)] = _OPEN
            if isinstance(node, dict):
                done[id(node)] = {k: _resolve(v, done) for k, v in node.items()}
            else:
                done[id(node)] = type(node)(_resolve(v, done) for v in node)
        if done[id(node)] is _OPEN:
            raise CheckpointError(
                "expected arrays and plain values, got a container inside itself."
            )
        return done[id(node)]
    if node is None or isinstance(node, (str, bytes, bytearray, bool, int, float, complex)):
        return node
    raise CheckpointError(f"expected arrays and plain values, got {type(node).__name__}.")
