"""A mask for every box of an annotation file (``tools/boxes_to_masks.py``)."""

from maskfreevis_ext.inference.boxes_to_masks.evidence import ModelEvidence
from maskfreevis_ext.inference.boxes_to_masks.job import Options, boxes_to_masks

__all__ = ["ModelEvidence", "Options", "boxes_to_masks"]
