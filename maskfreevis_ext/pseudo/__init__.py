"""Masks of given boxes without a trained model: a small network fitted to one clip."""

from maskfreevis_ext.pseudo.clip import ClipMasks, segment_clip
from maskfreevis_ext.pseudo.pixel_head import PixelHeadSettings, fit_pixel_head
from maskfreevis_ext.pseudo.windows import ObjectWindows

__all__ = ["ClipMasks", "ObjectWindows", "PixelHeadSettings", "fit_pixel_head", "segment_clip"]
