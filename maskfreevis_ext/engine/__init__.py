"""Training: set-up, optimizer, checkpoints, trainer."""

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.setup import setup_config
from maskfreevis_ext.engine.trainer import Trainer

__all__ = ["SafeCheckpointer", "Trainer", "setup_config"]
