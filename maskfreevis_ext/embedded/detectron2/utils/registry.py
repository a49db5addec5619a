"""``Registry``: names to classes (fvcore's)."""

from fvcore.common.registry import Registry

__all__ = ["Registry"]
