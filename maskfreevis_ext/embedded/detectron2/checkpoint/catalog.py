"""``catalog://ImageNetPretrained/NAME``: ImageNet weights of the Detectron model zoo."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.utils.file_io import PathHandler, PathManager

_ROOT = "https://dl.fbaipublicfiles.com/detectron/"
_IMAGENET_PREFIX = "ImageNetPretrained/"
_IMAGENET_MODELS = {
    "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
    "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
    "FAIR/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
    "FAIR/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
    "FAIR/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
    "FAIR/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
    "FAIR/X-152-32x8d-IN5k": "ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl",
}


class ModelCatalogHandler(PathHandler):
    """Maps ``catalog://`` names to addresses."""

    PREFIX = "catalog://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        name = path.removeprefix(self.PREFIX)
        model = name.removeprefix(_IMAGENET_PREFIX)
        if not name.startswith(_IMAGENET_PREFIX) or model not in _IMAGENET_MODELS:
            known = ", ".join(_IMAGENET_PREFIX + entry for entry in _IMAGENET_MODELS)
            raise RuntimeError(f"{path} is not in the catalog, which has {known}.")
        url = _ROOT + _IMAGENET_MODELS[model]
        logging.getLogger(__name__).info("Catalog entry %s points to %s", path, url)
        return PathManager.get_local_path(url, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(ModelCatalogHandler())
