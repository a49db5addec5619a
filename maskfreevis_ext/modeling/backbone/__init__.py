"""Backbones that Detectron2 does not have."""
