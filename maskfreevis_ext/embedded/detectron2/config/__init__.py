"""Configs: the node class, the default tree, and classes that are built from a config."""

from detectron2.config.config import (
    CfgNode,
    configurable,
    get_cfg,
)

__all__ = ["CfgNode", "configurable", "get_cfg"]
