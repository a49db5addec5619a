"""Weights files from the web: encrypted, whole, and never waited for without end.

A file is kept under its whole address, so that files of two servers with the same path, or with
another query, are not taken for each other. Its SHA-256 is compared where it is known: as
``#sha256=`` at the end of the address, or in the file name, as in ``resnet50-0676ba61.pth``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from iopath.common.file_io import file_lock, get_cache_dir
from tqdm import tqdm

from maskfreevis_ext.checkpoint_manifest import file_sha256
from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.files import atomic_write, remove_unfinished
from maskfreevis_ext.weights_files import check_kind, verify_file

logger = logging.getLogger(__name__)

#: Environment variable: seconds without a byte after which a download is given up.
TIMEOUT_VARIABLE = "MASKFREEVIS_DOWNLOAD_TIMEOUT"
_DEFAULT_TIMEOUT = 30.0
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_BLOCK = 1 << 16  # bytes
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])")
_HASH_IN_ADDRESS = re.compile(r"sha256=([0-9a-fA-F]{64})")


def is_address(path: str) -> bool:
    """Whether a path is an address of the web.

    Args:
        path: A path or an address.
    """
    return re.match(r"(?i)(https?|ftp)://", path) is not None


def download_weights(address: str) -> str:
    """Download a weights file, or find it among the files of earlier downloads.

    It is given up after 30 seconds without a byte, or those of the environment variable
    MASKFREEVIS_DOWNLOAD_TIMEOUT.

    Args:
        address: Begins with ``https://``; ``http://`` is allowed for servers on this machine.

    Returns:
        The local file. It is kept only if it is whole, has the right checksum and may be weights.

    Raises:
        CheckpointError: The address is not encrypted, the server does not answer or breaks off, or
            the file is not the right one.
        ConfigError: The environment variable is no number above 0.
    """
    plain, _, fragment = address.partition("#")
    _check_encrypted(plain)
    expected = _expected_sha256(plain, fragment)
    key = hashlib.sha256(plain.encode()).hexdigest()[:16]
    path = os.path.join(get_cache_dir(), key, _file_name(plain))
    timeout = _timeout()
    try:
        with file_lock(path):
            if os.path.isfile(path) and expected and not file_sha256(path).startswith(expected):
                os.remove(path)  # of an earlier download whose checksum was not known
            if not os.path.isfile(path):
                logger.info("Downloading %s", plain)
                remove_unfinished(os.path.dirname(path))
                _download(plain, path, timeout, expected)
    except CheckpointError:
        raise
    except Exception as error:  # errors of the network are of many types
        raise CheckpointError(f"Weights {address} could not be fetched: {_text(error)}.") from error
    return path


def _download(address: str, path: str, timeout: float, expected: str) -> None:
    opener = urllib.request.build_opener(_EncryptedRedirects())
    headers = {"User-Agent": "maskfreevis_ext"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 (checked before)
    with opener.open(request, timeout=timeout) as answer, atomic_write(path) as file:
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        digest = hashlib.sha256()
        with tqdm(total=total, unit="B", unit_scale=True, desc=os.path.basename(path)) as bar:
            while block := answer.read1(_BLOCK):
                if bar.n == 0:
                    check_kind(address, block)
                file.write(block)
                digest.update(block)
                bar.update(len(block))
            received = bar.n
        if received == 0 or (total is not None and received != total):
            raise CheckpointError(
                f"Weights {address}: expected {total or 'some'} bytes, got {received}: the"
                " connection was cut. Try again."
            )
        if not digest.hexdigest().startswith(expected):
            raise CheckpointError(
                f"Weights {address}: expected a file whose SHA-256 begins with {expected}, got"
                f" {digest.hexdigest()}, {received} bytes. The file on the server is another one,"
                " or was changed on the way."
            )
        file.flush()
        try:
            verify_file(file.name)
        except CheckpointError as error:
            raise CheckpointError(
                f"Weights {address}: the file there is of no use. {error}"
            ) from error


class _EncryptedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to encrypted addresses only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_encrypted(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_encrypted(address: str) -> None:
    parts = urlsplit(address)
    is_here = parts.scheme == "http" and parts.hostname in _THIS_MACHINE
    if parts.scheme != "https" and not is_here:
        raise CheckpointError(
            f"Weights {address}: expected an address that begins with https://, as others can"
            f" change what comes over {parts.scheme}://. Download it in another way if you must,"
            " and give the file."
        )


def _expected_sha256(address: str, fragment: str) -> str:
    """Begin of the SHA-256 that the address names, in lower case; "" for any."""
    if fragment:
        given = _HASH_IN_ADDRESS.fullmatch(fragment)
        if given is None:
            raise CheckpointError(
                f"Weights {address}: expected sha256= and 64 digits behind #, got {fragment!r}."
            )
        return given[1].lower()
    in_name = _HASH_IN_NAME.search(urlsplit(address).path)
    return in_name[1] if in_name and not _DATE.fullmatch(in_name[1]) else ""


def _file_name(address: str) -> str:
    name = unquote(urlsplit(address).path).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]", "_", name)[-100:].lstrip(".") or "weights"


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, str(_DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f"{TIMEOUT_VARIABLE}: expected seconds above 0, got {text!r}.")
    return seconds


def _text(error: Exception) -> str:
    reason: Any = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"the server sent nothing for too long ({TIMEOUT_VARIABLE} sets the seconds)"
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(reason) or type(error).__name__
