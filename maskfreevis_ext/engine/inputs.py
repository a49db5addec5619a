"""The files and folders that a config makes a command read."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskfreevis_ext.config.yaml_check import check_yaml_file
from maskfreevis_ext.data.builtin import register_from_config


def config_inputs(
    cfg: CfgNode,
    config_file: str | None = "",
    *,
    weights: str | None = None,
    datasets: Iterable[str] = (),
) -> list[str]:
    """Everything that a config names, for ``check_outputs``: no output may be one of these.

    Args:
        cfg: The config.
        config_file: The YAML file that it was read from; "" or None for none.
        weights: The weights that are loaded, a path or an address; None: MODEL.WEIGHTS.
        datasets: Registered names of further data sets.

    Returns:
        The config file and its ``_BASE_`` files, the weights unless they are downloaded, and of
        each data set of the config the annotation file and the image root; files need not exist.

    Raises:
        ConfigError: A ``_BASE_`` file is missing, or an entry of INPUT.DATASETS cannot be used.
    """
    register_from_config(cfg)
    paths = [config_file, *check_yaml_file(config_file)[1:]] if config_file else []
    loaded = (cfg.MODEL.WEIGHTS if weights is None else weights).partition("?")[0]
    paths += [loaded] if "://" not in loaded else []
    paths += [cfg.INPUT.MOTION_MASK_ROOT, *(pair[-1] for pair in cfg.DATASETS.CLASS_MAPS)]
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *datasets}
    names.update(entry[0] for entry in cfg.INPUT.DATASETS)
    for name in sorted(names.intersection(DatasetCatalog.list())):
        metadata = MetadataCatalog.get(name)
        paths += [metadata.get("json_file"), metadata.get("image_root")]
    return [str(path) for path in paths if path]
