"""Video decoder: object queries attend to all frames of a clip and predict classes and masks.

B clips, T frames, Q queries, C classes, D channels, S = T * h * w tokens of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from maskfreevis_ext.modeling.heads import AuxHead, build_heads
from maskfreevis_ext.modeling.heads.base import LayerBias
from maskfreevis_ext.modeling.mlp import MLP
from maskfreevis_ext.modeling.position_encoding import sine_position_3d

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_DECODER")
TRANSFORMER_DECODER_REGISTRY.__doc__ = (
    "Video decoders, by the name in MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME."
)


#: Class logits (B, Q, C + 1), mask embeddings (B, Q, mask_dim), normalised queries (B, Q, D).
Prediction = tuple[Tensor, Tensor, Tensor]


def _check_arguments(hidden_dim: int, num_heads: int, is_contradictory: bool) -> None:
    if is_contradictory:
        raise ConfigError(
            "A head computes masks from the embeddings of matched queries, which excludes "
            "MODEL.MASKFREE.DENSE_MASK_GRADIENTS; set it to False."
        )
    if hidden_dim % num_heads or hidden_dim % 2:
        raise ConfigError(
            "MODEL.MASK_FORMER.HIDDEN_DIM must be even and a multiple of "
            f"MODEL.MASK_FORMER.NHEADS ({num_heads}), got {hidden_dim}."
        )


def _repeat(count: int, make: Callable[..., nn.Module], *arguments: object) -> nn.ModuleList:
    """``count`` modules made by the same call."""
    return nn.ModuleList(make(*arguments) for _ in range(count))


def _projection(in_channels: int, hidden_dim: int) -> nn.Conv2d:
    """1 x 1 convolution from the maps of the pixel decoder to the width of the queries."""
    layer = nn.Conv2d(in_channels, hidden_dim, 1)
    weight_init.c2_xavier_fill(layer)
    return layer


def _sum_of_biases(biases: Sequence[LayerBias], layer: int, level: int) -> Tensor | None:
    """Attention bias of a layer, summed over all heads, (B, S); None if no head gives one."""
    total = None
    for bias in biases:
        of_layer = bias.of_layer(layer, level)
        if of_layer is not None:
            total = of_layer if total is None else total + of_layer
    return total


@TRANSFORMER_DECODER_REGISTRY.register()
class VideoMultiScaleMaskedTransformerDecoder(nn.Module):
    """Masked-attention decoder over clips (Cheng et al., Mask2Former for video, arXiv 2112.10764).

    It holds the learned queries. Each layer attends to one level (from coarse to fine, repeated),
    and a query only to the cells inside the mask that it predicted after the previous layer.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        hidden_dim: int,
        mask_dim: int,
        num_queries: int,
        num_heads: int,
        dim_feedforward: int,
        num_layers: int,
        pre_norm: bool,
        enforce_input_proj: bool,
        num_levels: int = 3,
        dense_mask_gradients: bool = False,
        heads: Mapping[str, AuxHead] | None = None,
    ) -> None:
        """Make the decoder.

        Args:
            in_channels: Channels of the maps of the pixel decoder.
            num_classes: C, without "no object".
            hidden_dim: D, channels of the queries; even, and a multiple of ``num_heads``.
            mask_dim: Channels of the mask features.
            num_queries: Q.
            num_heads: Attention heads.
            dim_feedforward: Width of the feed-forward blocks.
            num_layers: Decoder layers.
            pre_norm: LayerNorm before each block instead of after it.
            enforce_input_proj: Project the maps even if ``in_channels`` equals D.
            num_levels: Number of maps of the pixel decoder.
            dense_mask_gradients: Keep the graph of the masks of all queries in training. False:
                output mask embeddings and mask features, from which the criterion computes the
                masks of the matched queries again; some heads need this.
            heads: Auxiliary heads by name. The decoder keeps them as attributes of these names.

        Raises:
            ConfigError: The sizes do not fit, or a head excludes ``dense_mask_gradients``.
        """
        super().__init__()
        heads = heads or {}
        self.keep_embeddings = any(head.needs_embeddings for head in heads.values())
        _check_arguments(hidden_dim, num_heads, self.keep_embeddings and dense_mask_gradients)
        self.num_levels = num_levels
        self.dense_mask_gradients = dense_mask_gradients
        sizes = hidden_dim, num_heads, pre_norm
        self.transformer_self_attention_layers = _repeat(num_layers, SelfAttentionLayer, *sizes)
        self.transformer_cross_attention_layers = _repeat(num_layers, CrossAttentionLayer, *sizes)
        sizes = hidden_dim, dim_feedforward, pre_norm
        self.transformer_ffn_layers = _repeat(num_layers, FFNLayer, *sizes)
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(num_levels, hidden_dim)
        is_projected = in_channels != hidden_dim or enforce_input_proj
        make = _projection if is_projected else nn.Identity
        self.input_proj = _repeat(num_levels, make, in_channels, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self._add_heads(heads)

    def _add_heads(self, heads: Mapping[str, AuxHead]) -> None:
        self._head_names = tuple(heads)
        for name, head in heads.items():
            self.add_module(name, head)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, object]:
        """Read the arguments of ``__init__`` from the config.

        Raises:
            ConfigError: MODEL.MASK_FORMER.DEC_LAYERS is below 1.
        """
        mask_former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
        if mask_former.DEC_LAYERS < 1:
            raise ConfigError(
                "MODEL.MASK_FORMER.DEC_LAYERS counts the prediction from the learned queries too, "
                f"so it must be at least 1, got {mask_former.DEC_LAYERS}."
            )
        return {
            "in_channels": in_channels,
            "num_classes": head.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "mask_dim": head.MASK_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "num_heads": mask_former.NHEADS,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "num_layers": mask_former.DEC_LAYERS - 1,
            "pre_norm": mask_former.PRE_NORM,
            "enforce_input_proj": mask_former.ENFORCE_INPUT_PROJ,
            "num_levels": len(head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES),
            "dense_mask_gradients": cfg.MODEL.MASKFREE.DENSE_MASK_GRADIENTS,
            "heads": build_heads(cfg, in_channels),
        }

    @property
    def heads(self) -> dict[str, AuxHead]:
        """The auxiliary heads by name."""
        return {name: cast(AuxHead, self.get_submodule(name)) for name in self._head_names}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Accept the name that old Mask2Former checkpoints have for the queries."""
        old, new = prefix + "static_query.weight", prefix + "query_feat.weight"
        if old in state_dict:
            state_dict.setdefault(new, state_dict.pop(old))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self,
        maps: Sequence[Tensor],
        mask_features: Tensor,
        num_frames: int,
        return_aux: bool = False,
        num_views: int | None = None,
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Predict the objects of B clips.

        Args:
            maps: Encoded maps, coarse first, (B * T, channels, h_k, w_k).
            mask_features: (B * T, mask_dim, h, w).
            num_frames: T, frames of each clip.
            return_aux: Also return the predictions of the learned queries and of every layer but
                the last.
            num_views: V, number of cameras whose frames a clip holds, time first; for the heads.

        Returns:
            ``pred_logits`` (B, Q, C + 1) and ``pred_masks`` (B, Q, T, h, w), logits; with
            ``return_aux`` also ``aux_outputs``, a list of dicts with the same keys. In training,
            without ``dense_mask_gradients``, the masks have no graph; each dict then also has
            ``mask_embed`` (B, Q, mask_dim), and the first one ``mask_features`` (B, mask_dim, T,
            h, w), whose product is ``pred_masks``. If a head needs embeddings, each dict has
            ``mask_embed`` and the normalised ``queries`` (B, Q, D), and the first one
            ``mask_features``, in evaluation too. In evaluation the first dict always has
            ``queries``, by which windows of a video are linked. It also has the outputs of the
            heads.

        Raises:
            ValueError: The frames do not make whole clips.
        """
        batch = mask_features.shape[0] // num_frames
        if mask_features.shape[0] != batch * num_frames:
            raise ValueError(
                f"{mask_features.shape[0]} frames do not make whole clips of {num_frames}."
            )
        resized = self._resized_mask_features(mask_features, maps, num_frames)
        is_last = mask_features.is_contiguous(memory_format=torch.channels_last)
        # (B * T, channels, h, w) -> (B, channels, T, h, w), for one product over all frames.
        mask_features = mask_features.unflatten(0, (batch, num_frames)).transpose(1, 2)
        if not is_last or torch.compiler.is_compiling():
            # always a copy: "only if T > 1" would bind an exported graph to the T of its example
            mask_features = mask_features.clone(memory_format=torch.contiguous_format)
        found = [head(maps, num_frames, num_views) for head in self.heads.values()]
        biases = [outputs.bias for outputs in found if outputs.bias is not None]
        predictions = self._predictions(maps, resized, num_frames, biases)
        outputs = self._outputs(predictions if return_aux else predictions[-1:], mask_features)
        final: dict[str, Tensor | list[dict[str, Tensor]]] = dict(outputs.pop())
        for of_head in found:
            final.update(of_head.outputs)
        if return_aux:
            final["aux_outputs"] = outputs
        return final

    def _predictions(
        self,
        maps: Sequence[Tensor],
        resized: Sequence[Tensor],
        num_frames: int,
        biases: Sequence[LayerBias],
    ) -> list[Prediction]:
        """Predictions of the learned queries and of every layer.

        ``resized`` are the mask features at the size of each level.
        """
        batch = resized[0].shape[0]
        values, keys = self._memory(maps, num_frames)
        query_position = self.query_embed.weight
        queries = self.query_feat.weight.expand(batch, -1, -1)
        predictions = [self._predict(queries)]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross_attention, self_attention, ffn) in enumerate(layers):
            level = i % self.num_levels
            allowed = self._allowed(predictions[-1][1], resized[level])
            key_bias = _sum_of_biases(biases, i, level)
            queries = cross_attention(
                queries, query_position, keys[level], values[level], allowed, key_bias
            )
            queries = self_attention(queries, query_position)
            queries = ffn(queries)
            predictions.append(self._predict(queries))
        return predictions

    def _outputs(
        self, predictions: Sequence[Prediction], mask_features: Tensor
    ) -> list[dict[str, Tensor]]:
        """Output dicts of all predictions; that of the last layer may also have mask features."""
        is_lean = self.training and not self.dense_mask_gradients
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_lean):
            outputs = self._masks(predictions, mask_features)
        if is_lean or self.keep_embeddings:
            for output, prediction in zip(outputs, predictions, strict=True):
                output["mask_embed"] = prediction[1]
                if self.keep_embeddings:
                    output["queries"] = prediction[2]
            outputs[-1]["mask_features"] = mask_features
        if not self.training:
            outputs[-1]["queries"] = predictions[-1][2]
        return outputs

    def _memory(self, maps: Sequence[Tensor], num_frames: int) -> tuple[list[Tensor], list[Tensor]]:
        """Values and keys (values with position) of each level, (B, T * h * w, D)."""
        values, keys = [], []
        for projection, level, level_map in zip(
            self.input_proj, self.level_embed.weight, maps, strict=True
        ):
            height, width = level_map.shape[-2:]
            tokens = projection(level_map).flatten(2).transpose(1, 2) + level
            tokens = tokens.reshape(-1, num_frames * height * width, tokens.shape[2])
            position = sine_position_3d(num_frames, height, width, tokens.shape[2], tokens.device)
            values.append(tokens)
            keys.append(tokens + position.to(tokens.dtype))
        return values, keys

    def _predict(self, queries: Tensor) -> Prediction:
        """Predictions of the queries (B, Q, D)."""
        normed = self.decoder_norm(queries)
        return self.class_embed(normed), self.mask_embed(normed), normed

    @staticmethod
    @torch.no_grad()
    def _resized_mask_features(
        mask_features: Tensor, maps: Sequence[Tensor], num_frames: int
    ) -> list[Tensor]:
        """Mask features at the size of each level, (B, mask_dim, T * h_k * w_k).

        Masks are linear in the features, and so is resizing: resizing the features once per level
        gives the same result as resizing the masks in every layer.
        """
        resized = [
            F.interpolate(mask_features, m.shape[-2:], mode="bilinear", align_corners=False)
            for m in maps
        ]
        # (B * T, mask_dim, h_k, w_k) -> (B, mask_dim, T * h_k * w_k), channels last in memory
        return [
            level.permute(0, 2, 3, 1).unflatten(0, (-1, num_frames)).flatten(1, 3).transpose(1, 2)
            for level in resized
        ]

    @staticmethod
    @torch.no_grad()
    def _allowed(mask_embedding: Tensor, resized_features: Tensor) -> Tensor:
        """Cells that a query attends to: its mask (probability >= 0.5), or all if that is empty.

        Returns:
            Bool (B, Q, T * h_k * w_k).
        """
        allowed = torch.bmm(mask_embedding, resized_features) >= 0
        return allowed | ~allowed.any(dim=2, keepdim=True)

    @staticmethod
    def _masks(predictions: Sequence[Prediction], mask_features: Tensor) -> list[dict[str, Tensor]]:
        """Class and mask logits of L predictions; one matrix product gives all masks."""
        embeddings = torch.cat([embedding for _, embedding, _ in predictions], dim=1)
        masks = torch.bmm(embeddings, mask_features.flatten(2))
        masks = masks.unflatten(2, mask_features.shape[2:]).chunk(len(predictions), dim=1)
        return [
            {"pred_logits": logits, "pred_masks": mask}
            for (logits, _, _), mask in zip(predictions, masks, strict=True)
        ]
