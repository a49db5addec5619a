"""The config: every key as one row, files and overrides, and the one validator.

``keys``: type and registry of the rows. ``rows``: the rows. ``checks``: checks of single values.
``validate``: checks of keys against each other. ``io``: from a YAML file to a checked config.
``yaml_check``: safety of YAML files. ``reference``: docs/config.md, written by
``python -m maskfreevis_ext.config``.
"""

from __future__ import annotations

from maskfreevis_ext.config.io import default_config, load_config
from maskfreevis_ext.config.keys import (
    Key,
    add_maskfreevis_config,
    lookup,
    register_keys,
    registered_keys,
)
from maskfreevis_ext.config.rows import ROWS
from maskfreevis_ext.config.validate import validate

__all__ = [
    "Key",
    "add_maskfreevis_config",
    "default_config",
    "load_config",
    "lookup",
    "register_keys",
    "registered_keys",
    "validate",
]

register_keys(ROWS)
