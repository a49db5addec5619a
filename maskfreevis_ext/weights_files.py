"""Weights files of every kind, told apart by their content and read without running code."""

from __future__ import annotations

import re
from typing import Any

from maskfreevis_ext.checkpoint_manifest import is_listed
from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.safe_load import ZIP_HEAD, load_pkl, load_pth, verify_archive
from maskfreevis_ext.safetensors_files import is_safetensors, read_safetensors

#: The number that files of ``torch.save`` before PyTorch 1.6 begin with, as a pickle.
_OLD_TORCH = bytes.fromhex("6cfc9c46f9206aa85019")
_HEAD = 512  # bytes that are looked at

#: What is taken for weights by mistake: pattern of the first bytes, name, what to do.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"(?is)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)\b",
        "a web page",
        "The address shows a page instead of the file: download it by its direct link, in a"
        " browser if the server asks for a login or a confirmation.",
    ),
    (
        rb"version https://git-lfs\.github\.com/",
        "a pointer of Git LFS",
        "Fetch the file itself by git lfs pull.",
    ),
    (rb"(\.\./)*\.git/annex/objects/|/annex/objects/", "a pointer of git-annex", "Fetch the file."),
    (rb"(?is)\s*<\?xml", "an XML text (the error of a server?)", "Download the file again."),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "a JSON text", "Give the weights, not their description."),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM......\0\0", "a picture", "Give the weights."),
    (rb"%PDF", "a PDF", "Give the weights."),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!",
        "a compressed archive",
        "Unpack it and give the weights that are in it.",
    ),
    (rb"\x89HDF", "an HDF5 file", "Weights of Keras cannot be used."),
    (rb"(MODEL|_BASE_|INPUT)\b[^\0]*:", "a config file", "It belongs to --config-file."),
)


def read_weights_file(path: str) -> object:
    """Read the content of a weights file: ``.pth``, ``.pkl`` or ``.safetensors``.

    Args:
        path: A local file. Its content decides how it is read; its ending does only where the
            content does not tell.

    Returns:
        The content; of a ``.safetensors`` file a dict of tensors, see ``read_safetensors``.

    Raises:
        CheckpointError: The file is missing, damaged, would run code, or is something else, such as
            a web page, which the message names.
    """
    head = verify_file(path)
    if is_safetensors(path, head):
        return read_safetensors(path)
    if head.startswith(ZIP_HEAD) or _OLD_TORCH in head[:20]:
        return load_pth(path)
    return load_pkl(path) if path.endswith(".pkl") else load_pth(path)


def verify_file(path: str) -> bytes:
    """Check that a file may hold weights and is whole, as far as a checksum tells.

    Compared are the SHA-256 in the manifest of its folder, or else the checksums of the parts of a
    ``.pth`` archive. ``.safetensors`` files of this project are compared when they are read.

    Args:
        path: A local file.

    Returns:
        Its first bytes.

    Raises:
        CheckpointError: The file is missing, damaged, or something else than weights.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if not head.startswith(ZIP_HEAD) and not is_safetensors(path, head):
            check_kind(path, head)
        is_verified = is_listed(path)
    except OSError as error:
        raise CheckpointError(
            f"Weights file {path} cannot be read: {error.strerror or error}."
        ) from None
    if not is_verified:
        verify_archive(path)
    return head


def check_kind(path: str, head: bytes) -> None:
    """Refuse a file that is taken for weights by mistake.

    Args:
        path: The file, for the message.
        head: Its first bytes.

    Raises:
        CheckpointError: The file is empty, or begins like a web page, a picture, an archive, ...
    """
    if not head:
        raise CheckpointError(f"Weights file {path} is empty. Download or copy it again.")
    for pattern, name, remedy in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            raise CheckpointError(
                f"Weights file {path}: expected weights, but this is {name}. {remedy}"
            )


def without_prefix(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights without the ``module.`` that data-parallel training puts before all names.

    Args:
        weights: Weights by name.
    """
    prefix = "module."
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}
