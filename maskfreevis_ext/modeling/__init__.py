"""Network, targets, matching and criterion; importing this registers them with Detectron2."""

from maskfreevis_ext.modeling.backbone.efficientnet_lite import (
    EfficientNetLite0,
    build_efficientnet_lite_backbone,
)
from maskfreevis_ext.modeling.backbone.swin import D2SwinTransformer, SwinTransformer
from maskfreevis_ext.modeling.backbone.timm import TimmBackbone, build_timm_backbone
from maskfreevis_ext.modeling.mask_former_head import MaskFormerHead
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from maskfreevis_ext.modeling.pixel_decoder import (
    PIXEL_DECODER_REGISTRY,
    MSDeformAttnPixelDecoder,
)
from maskfreevis_ext.modeling.transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
    VideoMultiScaleMaskedTransformerDecoder,
)

__all__ = [
    "PIXEL_DECODER_REGISTRY",
    "TRANSFORMER_DECODER_REGISTRY",
    "D2SwinTransformer",
    "EfficientNetLite0",
    "MSDeformAttnPixelDecoder",
    "MaskFormerHead",
    "SwinTransformer",
    "TimmBackbone",
    "VideoMaskFormer",
    "VideoMultiScaleMaskedTransformerDecoder",
    "build_efficientnet_lite_backbone",
    "build_timm_backbone",
]
