"""``DetectionCheckpointer``: fvcore's checkpointer that also reads the model zoo's files, and never runs their code."""

from __future__ import annotations

import codecs
import collections
import io
import logging
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import ParseResult, parse_qs, urlparse

import numpy as np
import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):  # others decompress, or worse
        raise pickle.UnpicklingError(f"Refused to encode as {encoding!r} in a weights file.")
    return codecs.encode(text, encoding)


_reconstruct = np.zeros(1).__reduce__()[0]
_scalar = np.float32(0).__reduce__()[0]

#: All that a file of arrays or tensors needs. Storages are read by a loader that is safe itself.
_ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _load_storage,
}


class _WeightsUnpickler(pickle.Unpickler):
    """Reads containers of numbers; any other class or function in the file is an error before it is called."""

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"Refused {module}.{name}: a weights file may hold arrays, numbers, strings and containers only."
            )
        return _ALLOWED[module, name]


def _load_pickle(stream: BinaryIO) -> Any:
    return _WeightsUnpickler(stream, encoding="latin1").load()


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model and what belongs to it; rank 0 writes.

    Reads ``.pth`` files, ``.pkl`` files of the Detectron2 and Caffe2 model zoos and ``.pyth`` files of pycls, from paths
    and URLs. ``?matching_heuristics=True`` behind a ``.pth`` matches names by their ends. Pickled objects other than
    arrays and tensors are refused, whatever the file is called.

    Args:
        model: The model.
        save_dir: Folder to save to.
        save_to_disk: Write at all; by default on rank 0 only.
        **checkpointables: Further objects with a ``state_dict``.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self._url: ParseResult | None = None

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file into the model and the checkpointables; see fvcore.

        Args:
            path: Path or URL; empty or None loads nothing.
            *args: Of fvcore's method.
            **kwargs: Of fvcore's method.

        Returns:
            What else is in the file.

        Raises:
            AssertionError: There is no such file.
            pickle.UnpicklingError: The file holds something that is not weights.
        """
        logging.getLogger(__name__).info("[DetectionCheckpointer] Loading from %s ...", path)
        if not path:
            return super().load(path, *args, **kwargs)
        self._url = urlparse(path)
        try:
            plain = self._url._replace(query="").geturl()
            return super().load(self.path_manager.get_local_path(plain), *args, **kwargs)
        finally:
            self._url = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return self._load_zoo_file(filename)
        if filename.endswith(".pyth"):
            state = self._torch_load(filename)["model_state"]
            model = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
            return {"model": model, "__author__": "pycls", "matching_heuristics": True}
        loaded = self._torch_load(filename)
        if "model" not in loaded:
            loaded = {"model": loaded}
        queries = parse_qs(self._url.query) if self._url is not None else {}
        if queries.pop("matching_heuristics", None) == ["True"]:
            loaded["matching_heuristics"] = True
        if queries:
            raise ValueError(f"Unknown query {queries} behind the checkpoint's path.")
        return loaded

    def _load_zoo_file(self, filename: str) -> dict[str, Any]:
        with self.path_manager.open(filename, "rb") as stream:
            data = _load_pickle(stream)
        if "model" in data and "__author__" in data:
            self.logger.info("Reading a file from '%s'", data["__author__"])
            return data
        data = data.get("blobs", data)
        weights = {name: value for name, value in data.items() if not name.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}

    def _torch_load(self, f: str) -> Any:
        return torch.load(f, map_location=torch.device("cpu"), weights_only=True)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(),
                checkpoint["model"],
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
        incompatible = super()._load_model(checkpoint)
        own_buffers = dict(self.model.named_buffers(recurse=False))
        for name in ("pixel_mean", "pixel_std"):  # the config has them
            if name in own_buffers and name in incompatible.missing_keys:
                incompatible.missing_keys.remove(name)
        return incompatible
