"""fvcore's checkpointer with URLs, and with weights whose names are matched by their ends."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import ParseResult, urlparse

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model and what belongs to it; rank 0 writes.

    Reads the ``.pth`` files that it wrote, from paths and URLs; PyTorch refuses files that would
    run code. A subclass whose ``_load_file`` reads other layouts sets ``matching_heuristics`` in
    what it returns to have the names matched by their ends, and ``__author__`` to "Caffe2" to have
    them translated first.

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
