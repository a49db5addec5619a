"""fvcore's checkpointer that also reads the model zoo's files, and never runs their code."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import ParseResult, parse_qs, urlparse

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model and what belongs to it; rank 0 writes.

    Reads ``.pth`` files, ``.pkl`` files of the Detectron2 and Caffe2 model zoos and ``.pyth`` files
    of pycls, from paths and URLs. ``?matching_heuristics=True`` behind a ``.pth`` matches names by
    their ends. Pickled objects other than arrays and tensors are refused, whatever the file is
    called.

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
        self._parsed_url_during_load: ParseResult | None = None

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
            maskfreevis_ext.errors.CheckpointError: The file holds something that is not weights.
        """
        logging.getLogger(__name__).info("[DetectionCheckpointer] Loading from %s ...", path)
        if not path:
            return super().load(path, *args, **kwargs)
        self._parsed_url_during_load = urlparse(path)
        try:
            plain = self._parsed_url_during_load._replace(query="").geturl()
            return super().load(self.path_manager.get_local_path(plain), *args, **kwargs)
        finally:
            self._parsed_url_during_load = None

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
        queries = (
            parse_qs(self._parsed_url_during_load.query)
            if self._parsed_url_during_load is not None
            else {}
        )
        if queries.pop("matching_heuristics", None) == ["True"]:
            loaded["matching_heuristics"] = True
        if queries:
            raise ValueError(f"Unknown query {queries} behind the checkpoint's path.")
        return loaded

    def _load_zoo_file(self, filename: str) -> dict[str, Any]:
        # The one place that reads pickles. Late, as it belongs to the package around this one.
        from maskfreevis_ext.engine.safe_load import load_pkl

        data = load_pkl(filename)
        if "model" in data and "__author__" in data:
            self.logger.info("Reading a file from '%s'", data["__author__"])
            return data
        data = data.get("blobs", data)
        weights = {name: value for name, value in data.items() if not name.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}

    def _torch_load(self, f: str) -> Any:
        from maskfreevis_ext.engine.safe_load import load_pth

        return load_pth(f)

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
