"""``.safetensors`` files, with class names and a checksum in their metadata.

The format has no checksum of its own. Files that this project writes have one, over the header
without that entry and over all numbers, and it is compared when they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from maskfreevis_ext.class_names import CLASS_NAMES
from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.files import atomic_write

_METADATA = "__metadata__"
_CHECKSUM = "maskfreevis_ext.sha256"
_ALIGNMENT = 8  # bytes


def is_safetensors(path: str, head: bytes) -> bool:
    """Whether a file begins like a ``.safetensors`` file: length of a JSON object, and "{".

    Args:
        path: The file.
        head: Its first bytes.
    """
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= os.path.getsize(path) - 8


def read_safetensors(path: str) -> dict[str, Any]:
    """Read a ``.safetensors`` file.

    Args:
        path: The file.

    Returns:
        The tensors by name; where the metadata have class names, a dict with these
        (``class_names``) and the tensors (``model``).

    Raises:
        CheckpointError: The package is absent, or the file is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f"Weights file {path}: .safetensors files need a package: pip install safetensors."
        ) from None
    try:
        tensors = load_file(path, device="cpu")
        metadata = _checked_metadata(path)
        names = json.loads(metadata.get(CLASS_NAMES, "null"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"Weights file {path} cannot be read, it looks damaged: {error}."
        ) from None
    return tensors if names is None else {"model": tensors, CLASS_NAMES: names}


def write_safetensors(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
) -> None:
    """Write a ``.safetensors`` file; it replaces ``path`` when it is complete.

    Args:
        tensors: Tensors by name.
        path: The file.
        class_names: Names of the classes of the weights.

    Raises:
        ConfigError: The package is absent.
        OSError: The file cannot be written.
    """
    check_package(path)
    from safetensors.torch import save

    metadata = {"format": "pt"}
    if class_names is not None:
        metadata[CLASS_NAMES] = json.dumps(list(class_names))
    raw = memoryview(save({k: v.contiguous() for k, v in tensors.items()}, metadata))
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(bytes(raw[8:start]))
    header[_METADATA][_CHECKSUM] = _checksum(header, [raw[start:]])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(raw[start:])


def check_package(path: str | os.PathLike[str]) -> None:
    """Check that ``.safetensors`` files can be written.

    Args:
        path: The file, for the message.

    Raises:
        ConfigError: The package is absent.
    """
    try:
        import safetensors.torch  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{path}: .safetensors files need a package: pip install safetensors."
        ) from None


def _checked_metadata(path: str) -> dict[str, str]:
    """The metadata of a file that the package could read; the checksum is compared.

    Raises:
        ValueError: The checksum is another.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata = header.get(_METADATA) or {}
        expected = metadata.pop(_CHECKSUM, None)
        if expected not in (None, _checksum(header, iter(lambda: file.read(1 << 20), b""))):
            raise ValueError("its checksum does not match")
    return metadata


def _checksum(header: Mapping[str, Any], blocks: Any) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
