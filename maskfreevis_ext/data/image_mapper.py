"""Maps an image to a training clip that is made from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from maskfreevis_ext.data.frame_instances import FrameInstances
from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.lazy_frames import to_tensor
from maskfreevis_ext.data.mappers import (
    add_teacher,
    boxes_of_frames,
    build_tracks,
    clip_supervision,
    valid_area,
)
from maskfreevis_ext.data.pseudo_clips import PseudoClipAugmentation


class CocoClipDatasetMapper:
    """Makes T frames from an image (``PseudoClipAugmentation``), and adds the objects.

    Called with a dataset dict of ``images_of_content``, it returns what ``YTVISDatasetMapper``
    returns for a clip of a video in training. ``video_id`` is the id of the image, ``length`` that
    of the imagined video, and ``frame_indices`` are the frames of it, in the order of time.

    Random numbers come from numpy's global state.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentation: PseudoClipAugmentation,
        image_format: str,
        supervision: str = "data",
        num_frames: int = 4,
        frame_range: int = 20,
        marks_area: bool = False,
        has_motion_masks: bool = False,
    ) -> None:
        """Set up the mapper.

        Args:
            augmentation: Makes the clips.
            image_format: "RGB" or "BGR".
            supervision: "box", "mask", "teacher" or "data"; see ``clip_supervision``.
            num_frames: T, >= 1.
            frame_range: The frames are drawn from an imagined video of ``2 * frame_range + 1``,
                over whose whole length the motion goes; 0: all frames are equal.
            marks_area: Add ``valid_area`` to the samples.
            has_motion_masks: Add ``motion_masks``, None, as for a video without any.
        """
        self.augmentation = augmentation
        self.image_format = image_format
        self.supervision = supervision
        self.num_frames = num_frames
        self.frame_range = frame_range
        self.marks_area = marks_area
        self.has_motion_masks = has_motion_masks

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Keyword arguments of ``__init__`` from a config.

        Raises:
            ConfigError: A key of INPUT.PSEUDO has a value that is not known.
        """
        node = cfg.INPUT.PSEUDO
        return {
            "augmentation": PseudoClipAugmentation(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "supervision": node.SUPERVISION,
            "num_frames": node.SAMPLING_FRAME_NUM,
            "frame_range": node.SAMPLING_FRAME_RANGE,
            "marks_area": cfg.MODEL.SPATIAL_MASK.ENABLED,
            "has_motion_masks": cfg.MODEL.SPATIAL_MASK.ENABLED and bool(cfg.INPUT.MOTION_MASK_ROOT),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Make one sample.

        Args:
            dataset_dict: An image; it is not changed.

        Raises:
            DataError: The image is missing, cannot be read, or has another size than the JSON says;
                or an object has only a box and the supervision is "mask".
        """
        count, length = self.num_frames, 2 * self.frame_range + 1
        numbers = np.sort(np.random.choice(length, count, replace=count > length))
        supervision = clip_supervision(self.supervision, dataset_dict)
        boxes = None if supervision == "mask" else boxes_of_frames(dataset_dict, [0])
        image = read_video_frame(dataset_dict, 0, self.image_format)
        times = (numbers / max(length - 1, 1)).tolist()
        frames, transforms = self.augmentation(image, times, boxes)
        size = frames[0].shape[0], frames[0].shape[1]
        indices = [0] * count
        tracks = build_tracks(dataset_dict, indices, transforms, size, supervision == "mask")
        if supervision == "teacher":
            add_teacher(tracks, dataset_dict, indices, transforms, size)
        sample: dict[str, Any] = {
            "image": [to_tensor(frame) for frame in frames],
            "supervision": supervision,
            "height": dataset_dict["height"],
            "width": dataset_dict["width"],
            "video_id": dataset_dict["video_id"],
            "length": length,
            "file_names": dataset_dict["file_names"] * count,
            "frame_indices": numbers.tolist(),
            "tracks": tracks,
            "instances": FrameInstances(tracks, size),
        }
        if self.has_motion_masks:
            sample["motion_masks"] = None
        if self.marks_area:
            areas = [valid_area(dataset_dict, one) for one in transforms]
            sample["valid_area"] = torch.stack(areas).all(dim=0)
        return sample
