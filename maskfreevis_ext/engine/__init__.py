"""Training: config, optimizer, checkpoints, trainer."""

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.config_io import default_config, load_config, setup_config
from maskfreevis_ext.engine.trainer import Trainer

__all__ = ["SafeCheckpointer", "Trainer", "default_config", "load_config", "setup_config"]
