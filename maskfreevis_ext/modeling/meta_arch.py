"""The whole network: from clips to losses (training) or to tracks with masks (evaluation).

B clips, T frames, (Hp, Wp) the padded size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from torch import Tensor, nn

from maskfreevis_ext.config import validate
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.modeling.backbone.folding import fold_frozen_batch_norm
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from maskfreevis_ext.modeling.encoded_frames import EncodedFrames
from maskfreevis_ext.modeling.execution import map_format, set_execution
from maskfreevis_ext.modeling.heads import AuxHead, rate_queries
from maskfreevis_ext.modeling.mask_former_head import MaskFormerHead
from maskfreevis_ext.modeling.targets import build_targets
from maskfreevis_ext.ops.clip import FrameSizes, clip_result
from maskfreevis_ext.precision import amp_dtype_of

_FRAMES_DECODED = 2  #: Frames that pass the pixel decoder together in evaluation on a CPU.


@META_ARCH_REGISTRY.register()
class VideoMaskFormer(nn.Module):
    """Mask2Former for video (arXiv 2112.10764), trained from boxes or masks."""

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: MaskFormerHead,
        criterion: VideoSetCriterion,
        pixel_mean: list[float],
        pixel_std: list[float],
        size_divisibility: int,
        num_tracks: int,
        frames_per_chunk: int,
        deep_supervision: bool,
        test_amp: torch.dtype | None = None,
        map_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Make the model.

        Args:
            backbone: Frames (N, 3, Hp, Wp) → name → map.
            sem_seg_head: See ``MaskFormerHead``.
            criterion: Outputs and targets → weighted losses; see ``VideoSetCriterion``.
            pixel_mean: Mean of each channel, in the order of ``INPUT.FORMAT``, 0..255.
            pixel_std: Standard deviation of each channel.
            size_divisibility: Frames are padded to a multiple of this.
            num_tracks: Tracks kept per video.
            frames_per_chunk: Frames that backbone and pixel decoder process together in evaluation.
            deep_supervision: Train the predictions of all decoder layers.
            test_amp: Type of mixed precision of ``encode`` and ``decode``; None: none.
            map_format: Memory format of the images.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.size_divisibility = size_divisibility
        self.num_tracks = num_tracks
        self.frames_per_chunk = max(frames_per_chunk, 1)
        self.deep_supervision = deep_supervision
        self.test_amp = test_amp
        self.map_format = map_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, object]:
        """Build the parts and read the other arguments of ``__init__``.

        Raises:
            ConfigError: A value of the config cannot work (``config.validate``), the padded size
                is not a multiple of the stride of the masks, or the device cannot use TEST.AMP.
        """
        validate(cfg)
        amp = cfg.TEST.AMP
        test_amp = None if amp == "off" else amp_dtype_of("TEST.AMP", amp, cfg.MODEL.DEVICE)
        backbone = build_backbone(cfg)
        fold_frozen_batch_norm(backbone)
        size_divisibility = cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
        if size_divisibility < 1:
            size_divisibility = max(spec.stride or 1 for spec in backbone.output_shape().values())
        if size_divisibility % cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE:
            raise ConfigError(
                "MODEL.MASK_FORMER.SIZE_DIVISIBILITY must be a multiple of "
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE ({cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}), or -1 "
                f"for the largest stride of the backbone, got {size_divisibility}."
            )
        sem_seg_head = build_sem_seg_head(cfg, backbone.output_shape())
        set_execution(cfg, backbone, sem_seg_head)
        return {
            "backbone": backbone,
            "sem_seg_head": sem_seg_head,
            "criterion": VideoSetCriterion(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": size_divisibility,
            "num_tracks": cfg.MODEL.MASKFREE.TEST.NUM_TRACKS,
            "frames_per_chunk": cfg.MODEL.MASKFREE.TEST.FRAMES_PER_CHUNK,
            "deep_supervision": cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION,
            "test_amp": test_amp,
            "map_format": map_format(cfg),
        }

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return self.pixel_mean.device

    @property
    def heads(self) -> dict[str, AuxHead]:
        """The auxiliary heads by name."""
        return self.sem_seg_head.heads

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, object]]:
        """Losses of a batch of clips in training, the tracks of each video in evaluation.

        Args:
            batched_inputs: B dicts of the data mappers. In training all clips have the same T;
                their sizes may differ. In evaluation each dict is a whole video; the videos are
                processed one by one.

        Returns:
            In training: name → weighted scalar. In evaluation: one dict per video, see
            ``clip_result``.

        Raises:
            DataError: A clip has no frames, or frames of different sizes; or, in training, the
                clips differ in T.
        """
        if self.training:
            return self._losses(batched_inputs)
        return [self._tracks(video) for video in batched_inputs]

    def _losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        clips = [_stack_frames(clip).to(self.device) for clip in batched_inputs]
        lengths = [clip.shape[0] for clip in clips]
        if len(set(lengths)) > 1:
            raise DataError(
                "The clips of a training batch must have the same number of frames, got "
                f"{lengths} for videos {[clip.get('video_id') for clip in batched_inputs]}. Set "
                "the same frame count (INPUT.SAMPLING_FRAME_NUM, INPUT.PSEUDO.SAMPLING_FRAME_NUM) "
                "for all data sets, or let each batch come from one of them."
            )
        sizes = [(clip.shape[2], clip.shape[3]) for clip in clips]
        height, width = self._padded_size(sizes)
        raw = self.pixel_mean.new_zeros(len(clips), lengths[0], 3, height, width)
        images = torch.zeros_like(raw)
        for b, (clip, (h, w)) in enumerate(zip(clips, sizes, strict=True)):
            raw[b, ..., :h, :w] = clip
            images[b, ..., :h, :w] = self._normalize(clip)
        num_views = _common_views(batched_inputs)
        features = self.backbone(images.flatten(0, 1).contiguous(memory_format=self.map_format))
        outputs = self.sem_seg_head(
            features, lengths[0], return_aux=self.deep_supervision, num_views=num_views
        )
        targets = build_targets(batched_inputs, image_size=(height, width), device=self.device)
        # Colours and sums over pixels need float32, also if the network ran in half precision.
        with torch.autocast(self.device.type, enabled=False):
            return self.criterion(
                outputs,
                targets,
                frames=raw,
                frame_sizes=sizes,
                heads=self.heads.values(),
                batch=batched_inputs,
            )

    def _tracks(self, video: dict) -> dict[str, object]:
        outputs, sizes = self.predict(video)

        def rate(kept: Tensor) -> tuple[Tensor, Tensor]:
            return self.rate(outputs, kept)

        result = clip_result(
            outputs,
            num_tracks=self.num_tracks,
            rate=rate,
            **sizes._asdict(),
        )
        return result | self.head_results(outputs, sizes)

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of the kept queries, and what the heads think of them.

        Args:
            outputs: Outputs of ``decode``.
            kept: Indices of queries, (N,), int64.

        Returns:
            Mask logits (N, T, h, w) and the factors on the scores (N,), float32.
        """
        rating = rate_queries(self.heads.values(), outputs, kept)
        return rating.masks, rating.factor

    def head_results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        """Entries of the auxiliary heads for the result of a clip, see ``AuxHead.results``.

        Args:
            outputs: Outputs of ``decode``.
            sizes: Sizes of the frames.
        """
        results: dict[str, Any] = {}
        for head in self.heads.values():
            results |= head.results(outputs, sizes)
        return results

    def predict(self, video: dict) -> tuple[dict[str, Tensor], FrameSizes]:
        """Outputs of the decoder for one video, before tracks are selected.

        Args:
            video: A dict of the test mapper.

        Returns:
            The outputs without their batch axis, and the sizes of the frames.
        """
        frames = _stack_frames(video)
        frame_size = frames.shape[2], frames.shape[3]
        output_size = video.get("height", frame_size[0]), video.get("width", frame_size[1])
        outputs = self.decode(self.encode(frames), video.get("num_views"))
        return outputs, self.frame_sizes(frame_size, output_size)

    def frame_sizes(self, frame_size: tuple[int, int], output_size: tuple[int, int]) -> FrameSizes:
        """The sizes of the frames of a video, with that of the padded input.

        Args:
            frame_size: (height, width) of the frames that the network is given.
            output_size: (height, width) of the masks to give back.
        """
        return FrameSizes(self._padded_size([frame_size]), frame_size, output_size)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> EncodedFrames:
        """Backbone and pixel decoder, which treat each frame by itself, a few frames at a time.

        Args:
            frames: (N, 3, H, W) uint8, on any device.

        Returns:
            The maps of all frames, on the device of the model.
        """
        padded_size = self._padded_size([(frames.shape[-2], frames.shape[-1])])
        chunks = frames.split(self.frames_per_chunk)
        parts = (part for chunk in chunks for part in self._encode_chunk(chunk, padded_size))
        return EncodedFrames.join(parts, len(frames))

    @torch.no_grad()
    def decode(self, encoded: EncodedFrames, num_views: int | None = None) -> dict[str, Tensor]:
        """Outputs of the decoder for the frames of one clip.

        Args:
            encoded: The clip.
            num_views: Number of cameras of the clip; see the decoder.

        Returns:
            The outputs without their batch axis.
        """
        with self._test_precision():
            outputs = self.sem_seg_head.predictor(
                encoded.maps, encoded.mask_features, encoded.num_frames, num_views=num_views
            )
        return {name: value[0] for name, value in outputs.items() if isinstance(value, Tensor)}

    def _encode_chunk(
        self, frames: Tensor, padded_size: tuple[int, int]
    ) -> Iterator[EncodedFrames]:
        """Maps of the frames of a chunk, of a few frames at a time."""
        frames = frames.to(self.device)
        height, width = frames.shape[-2:]
        images = self.pixel_mean.new_zeros(*frames.shape[:2], *padded_size)
        images[..., :height, :width] = self._normalize(frames)
        images = images.contiguous(memory_format=self.map_format)
        with self._test_precision():
            features = self.backbone(images)
        del images
        # A CPU decodes a few frames as fast as many, and with less memory.
        count = _FRAMES_DECODED if self.device.type == "cpu" else len(frames)
        for start in range(0, len(frames), count):
            few = {name: level[start : start + count] for name, level in features.items()}
            with self._test_precision():
                mask_features, maps = self.sem_seg_head.pixel_decoder(few)
            yield EncodedFrames(mask_features, list(maps))

    def _test_precision(self) -> contextlib.AbstractContextManager[object]:
        """Autocast in ``test_amp``; without it the caller's precision."""
        if self.test_amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.test_amp)

    def _normalize(self, frames: Tensor) -> Tensor:
        return (frames - self.pixel_mean) / self.pixel_std

    def _padded_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        """The least size that holds all frames and is a multiple of ``size_divisibility``."""
        step = self.size_divisibility
        height = max(h for h, _ in sizes)
        width = max(w for _, w in sizes)
        return -(-height // step) * step, -(-width // step) * step


def _common_views(batched_inputs: list[dict]) -> int | None:
    """``num_views`` of the clips of a batch, which must be equal; None: there is no view axis."""
    views = {clip.get("num_views") for clip in batched_inputs}
    if len(views) > 1:
        raise DataError(
            "The clips of a training batch must have the same number of views, got "
            f"{[clip.get('num_views') for clip in batched_inputs]} for videos "
            f"{[clip.get('video_id') for clip in batched_inputs]}."
        )
    return views.pop()


def _stack_frames(clip: dict) -> Tensor:
    """The frames of a clip as one tensor, (T, 3, H, W) uint8."""
    frames = list(clip["image"])
    sizes = sorted({tuple(frame.shape[-2:]) for frame in frames})
    if len(sizes) != 1:
        found = f"sizes {sizes}" if sizes else "no frames"
        raise DataError(
            f"Video {clip.get('video_id')}: the frames of a video must have one size, got {found} "
            f"({clip.get('file_names')}). Resize all frames of a video alike."
        )
    return torch.stack(frames)
