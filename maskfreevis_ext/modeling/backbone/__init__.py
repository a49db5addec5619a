"""Backbones that are not part of Detectron2."""
