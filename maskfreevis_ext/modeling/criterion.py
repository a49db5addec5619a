"""The criterion: a list of loss terms, normalized over all processes, weighted and named.

Shape letters: K decoder outputs (the last one first), B clips, Q queries, C classes, N objects of
several clips in one list, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor, nn

from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.matched_masks import clip_of_object
from maskfreevis_ext.losses.scene import BoxObjects, Scene
from maskfreevis_ext.losses.teacher_masks import join_teachers
from maskfreevis_ext.losses.term import (
    LossTerm,
    build_terms,
    replace_terms,
    shared_normalizers,
    weighted_losses,
)
from maskfreevis_ext.modeling.heads import AuxHead, terms_of_heads
from maskfreevis_ext.modeling.matcher import Match, VideoHungarianMatcher, query_of_object
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.reduce import send


class VideoSetCriterion(nn.Module):
    """Matches queries with objects and computes the loss terms at every decoder output.

    A batch may hold clips supervised by boxes and clips supervised by masks; each term selects the
    clips that it applies to. The buffer ``_iter`` counts training steps for the warm-ups; its name
    and that of ``empty_weight`` are those of MaskFreeVIS checkpoints.
    """

    empty_weight: Tensor
    _iter: Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        matcher: VideoHungarianMatcher,
        terms: Sequence[LossTerm],
        no_object_weight: float,
        affinity_settings: AffinitySettings,
    ) -> None:
        """Keep the parts.

        Args:
            num_classes: C, without "no object".
            matcher: Assigns queries to objects.
            terms: The loss terms.
            no_object_weight: Weight of the class "no object" in the cross-entropy.
            affinity_settings: Settings of the colour similarity in clips supervised by boxes.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.terms = list(terms)
        self.affinity_settings = affinity_settings
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)
        self.register_buffer("_iter", torch.zeros(1))

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``, with the registered terms and the terms of the heads."""
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "matcher": VideoHungarianMatcher(**VideoHungarianMatcher.from_config(cfg)),
            "terms": replace_terms(build_terms(cfg), terms_of_heads(cfg)),
            "no_object_weight": cfg.MODEL.MASK_FORMER.NO_OBJECT_WEIGHT,
            "affinity_settings": AffinitySettings(**AffinitySettings.from_config(cfg)),
        }

    @property
    def weights(self) -> dict[str, float]:
        """Weights of all terms by name."""
        return {term.name: term.weight for term in self.terms}

    def reset_schedule(self, step: int) -> None:
        """Set the step counter of the warm-ups."""
        self._iter.fill_(step)

    def forward(
        self,
        outputs: dict[str, Any],
        targets: list[dict[str, Tensor]],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
        matches: list[list[Match]] | None = None,
        heads: Iterable[AuxHead] = (),
        batch: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Tensor]:
        """Compute the weighted losses of all decoder outputs.

        Args:
            outputs: ``pred_logits`` (B, Q, C+1), ``pred_masks`` (B, Q, T, h, w) and, with deep
                supervision, ``aux_outputs``, a list of dicts with the same keys. If each dict has
                ``mask_embed`` (B, Q, D) and the first one ``mask_features`` (B, D, T, h, w),
                ``pred_masks`` needs no graph: the masks of the matched queries get their
                gradient through these two.
            targets: B dicts (``targets.build_targets``); they are not changed.
            frames: Pixel values in [0, 255] in the order of INPUT.FORMAT, zeros as padding,
                (B, T, 3, H, W), float32.
            frame_sizes: (height, width) of the frames of each clip without padding.
            matches: Assignment to use instead of the matcher's, for tests and analysis.
            heads: The auxiliary heads of the model; their terms are part of the criterion.
            batch: The B dicts of the mapper, for heads that read more than the targets.

        Returns:
            Losses by name: ``name`` for the last output, ``{name}_{i}`` for auxiliary output i. All
            keys are present in every step; a term without objects is a zero with a gradient path.
            Their sum is the training loss.

        Raises:
            NumericError: A matching cost is not finite.
        """
        layers = [outputs, *outputs.get("aux_outputs", [])]
        image_size = (frames.shape[-2], frames.shape[-1])
        if matches is None:
            matches = self.matcher(layers, targets, image_size)
        if self.training:
            self._iter += 1
        queries = query_of_object(matches, targets)
        scene = Scene(
            layers=layers,
            targets=targets,
            queries=send(queries, frames.device),
            all_matched=bool((queries >= 0).all()),
            class_weights=self.empty_weight,
            iteration=self._iter,
            image_size=image_size,
            batch=batch,
        )
        scene.boxes = self._box_objects(scene, frames, frame_sizes)
        heads = list(heads)
        for head in heads:
            head.prepare(scene)
        normalizers = shared_normalizers(self.terms, scene)
        for head in heads:
            head.choose(scene, self.terms, normalizers)
        return weighted_losses(self.terms, scene, normalizers)

    def _box_objects(
        self, scene: Scene, frames: Tensor, frame_sizes: Sequence[tuple[int, int]]
    ) -> BoxObjects | None:
        """The objects of the clips supervised by boxes; None if there are none."""
        targets = scene.targets
        clips = [clip for clip in scene.with_boxes if len(targets[clip]["labels"])]
        if not clips:
            return None
        masks = scene.layers[0]["pred_masks"]
        map_size = (masks.shape[-2], masks.shape[-1])
        stride = frames.shape[-2] // map_size[0]
        if len(clips) < len(frames):  # do not copy the batch if all clips have boxes
            frames = frames[send(torch.tensor(clips), frames.device)]
        sizes = [frame_sizes[clip] for clip in clips]
        affinities = compute_affinities(frames, sizes, stride, self.affinity_settings)
        dtype = at_least_float32(masks[:0]).dtype
        of_clips = [targets[clip] for clip in clips]
        return BoxObjects(
            boxes=torch.cat([target["boxes"] for target in of_clips]).to(dtype),
            clips=send(clip_of_object(of_clips), frames.device),
            affinities=affinities,
            map_size=map_size,
            stride=stride,
            all_matched=scene.all_matched,
            teacher=join_teachers(of_clips, map_size, dtype),
            frame_sizes=sizes,
        )
