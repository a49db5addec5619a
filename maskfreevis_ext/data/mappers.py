"""Maps a dataset dict to a sample of the batch: a clip in training, a whole video in testing.

Shape letters: T frames of the clip, N tracks that appear in it, (H, W) size after augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from maskfreevis_ext.data.augmentation import ClipAugmentation, build_clip_augmentation
from maskfreevis_ext.data.boxes import tight_box
from maskfreevis_ext.data.frame_instances import FrameInstances
from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.lazy_frames import LazyFrames, to_tensor
from maskfreevis_ext.data.motion_masks import find_motion_mask, read_motion_mask
from maskfreevis_ext.data.sampling import sample_clip
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.rle import decode_rle

SUPERVISIONS = ("box", "mask", "teacher", "data")

#: A box with a side shorter than this many pixels counts as absent from the frame.
_MIN_SIDE = 1e-3


def clip_supervision(setting: str, video: dict[str, Any]) -> str:
    """Supervision of the clips of a video: "box", "mask" or "teacher".

    Args:
        setting: INPUT.SUPERVISION: "box", "mask", "teacher", or "data", which means "teacher" for a
            video whose masks have confidences, else "mask" where all objects have masks, and "box"
            for any other video.
        video: Dataset dict.
    """
    if setting != "data":
        return setting
    if video.get("has_confidences"):
        return "teacher"
    return "mask" if video["has_masks"] else "box"


class YTVISDatasetMapper:
    """Reads the frames of a clip, applies the same transforms to all, and adds the objects.

    Called with a dataset dict, it returns a dict with

    * ``image``: list of T uint8 tensors (3, H, W) in the channel order of INPUT.FORMAT; of a long
      test video, which is processed in windows, ``LazyFrames``;
    * ``supervision``: "box", "mask" or "teacher";
    * ``height`` and ``width`` of the original frames, pixels; ``video_id``; ``length`` of the
      video in frames; ``file_names`` and ``frame_indices`` of the clip.

    In training also the objects: ``tracks``, a dict of tensors of N tracks that all appear in the
    clip,

    * ``labels`` int64 (N,): class;
    * ``ids`` int64 (N, T): id of the annotation; -1 where the object is absent from the frame;
    * ``boxes`` float32 (N, T, 4): xyxy pixels, transformed and clipped to the frame; zeros where
      absent. With masks, the tight box of the mask;
    * ``masks`` bool (N, T, H, W), only where ``supervision`` is "mask": False where absent;
    * ``teacher_masks`` bool (N, T, H, W) and ``teacher_confidence`` float32 (N, T), in [0, 1], only
      where ``supervision`` is "teacher": False and 0 where absent and where there is no mask;

    and ``instances``, the same objects as a sequence of T ``Instances``, each of which is created
    when it is accessed (``FrameInstances``).

    In training with INPUT.MOTION_MASK_ROOT, ``motion_masks``: list of T bool tensors (H, W), None
    for a frame without a file; None instead of the list for a video without any file. In training
    with the spatial mask head, ``valid_area``: bool (H, W), False for pixels outside the original
    frame, which a rotation fills in.

    Random numbers come from numpy's global state, which Detectron2 seeds in every worker.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: dict[str, ClipAugmentation],
        image_format: str,
        supervision: str = "box",
        num_frames: int = 3,
        frame_range: int = 5,
        shuffle: bool = False,
        motion_mask_root: str = "",
        marks_area: bool = False,
        longest_whole: int | None = None,
        reduced_decoding: bool = False,
    ) -> None:
        """Set up the mapper.

        Args:
            is_train: True: random clips with their objects; False: whole videos without them.
            augmentations: For each supervision of a sample, "box", "mask" and "teacher", its
                augmentations.
            image_format: "RGB" or "BGR".
            supervision: INPUT.SUPERVISION.
            num_frames: T, >= 1.
            frame_range: Frames of the sampling window on each side of the reference frame.
            shuffle: Frames in random order instead of sorted in time.
            motion_mask_root: Folder of motion masks; empty: no motion masks.
            marks_area: Add ``valid_area`` to training samples.
            longest_whole: The frames of a test video with more frames than this are read when they
                are needed; None: those of no video.
            reduced_decoding: INPUT.REDUCED_DECODING.

        Raises:
            ConfigError: A value is out of range; names its config key.
        """
        checks = (
            ("INPUT.SUPERVISION", supervision in SUPERVISIONS, supervision, SUPERVISIONS),
            ("INPUT.SAMPLING_FRAME_NUM", num_frames >= 1, num_frames, ">= 1"),
            ("INPUT.SAMPLING_FRAME_RANGE", frame_range >= 0, frame_range, ">= 0"),
            ("INPUT.FORMAT", image_format in ("RGB", "BGR"), image_format, "RGB or BGR"),
        )
        for key, is_good, got, expected in checks:
            if not is_good:
                raise ConfigError(f"{key} must be {expected}, got {got!r}.")
        self.is_train = is_train
        self.augmentations = augmentations
        self.image_format = image_format
        self.supervision = supervision
        self.num_frames = num_frames
        self.frame_range = frame_range
        self.shuffle = shuffle
        self.motion_mask_root = motion_mask_root
        self.marks_area = marks_area
        self.longest_whole = longest_whole
        self.reduced_decoding = reduced_decoding
        self._has_motion: dict[tuple[int, str], bool] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Keyword arguments of ``__init__`` from a config.

        Raises:
            ConfigError: A key of INPUT has a value that is not known.
        """
        return {
            "is_train": is_train,
            "augmentations": {
                kind: build_clip_augmentation(cfg, is_train, kind)
                for kind in ("box", "mask", "teacher")
            },
            "image_format": cfg.INPUT.FORMAT,
            "supervision": cfg.INPUT.SUPERVISION,
            "num_frames": cfg.INPUT.SAMPLING_FRAME_NUM,
            "frame_range": cfg.INPUT.SAMPLING_FRAME_RANGE,
            "shuffle": cfg.INPUT.SAMPLING_FRAME_SHUFFLE,
            "motion_mask_root": (
                cfg.INPUT.MOTION_MASK_ROOT if cfg.MODEL.SPATIAL_MASK.ENABLED else ""
            ),
            "marks_area": cfg.MODEL.SPATIAL_MASK.ENABLED,
            "longest_whole": None if cfg.TEST.WINDOW.MODE == "off" else cfg.TEST.WINDOW.ABOVE,
            "reduced_decoding": cfg.INPUT.REDUCED_DECODING,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Make one sample; the class docstring lists its keys.

        Args:
            dataset_dict: A video of ``load_ytvis_json``; it is not changed.

        Raises:
            DataError: A frame or motion mask is missing, cannot be read, or has another size than
                the JSON says; or an object has only a box where INPUT.SUPERVISION is "mask".
        """
        indices = self._choose_frames(dataset_dict)
        supervision = clip_supervision(self.supervision, dataset_dict)
        augmentation = self.augmentations[supervision]
        frames: Sequence[np.ndarray] = ()
        if self._is_long(dataset_dict):
            image: Sequence[torch.Tensor] = LazyFrames(
                dataset_dict, augmentation, self.image_format, self.reduced_decoding
            )
        else:
            boxes = None
            if self.is_train and supervision != "mask" and augmentation.cuts:
                boxes = boxes_of_frames(dataset_dict, indices)
            size = (dataset_dict["height"], dataset_dict["width"])
            resize = augmentation.first_resize(size) if self.reduced_decoding else None
            read = self._read_frames(dataset_dict, indices, resize)
            frames, transforms = augmentation(read, boxes, resize)
            image = [to_tensor(frame) for frame in frames]
        sample = {
            "image": image,
            "supervision": supervision,
            "height": dataset_dict["height"],
            "width": dataset_dict["width"],
            "video_id": dataset_dict["video_id"],
            "length": dataset_dict["length"],
            "file_names": [dataset_dict["file_names"][t] for t in indices],
            "frame_indices": list(indices),
        }
        if self.is_train:
            height, width = frames[0].shape[:2]
            same = [transforms] * len(indices)
            sample["tracks"] = build_tracks(
                dataset_dict, indices, same, (height, width), supervision == "mask"
            )
            if supervision == "teacher":
                add_teacher(sample["tracks"], dataset_dict, indices, same, (height, width))
            sample["instances"] = FrameInstances(sample["tracks"], (height, width))
            if self.motion_mask_root:
                sample["motion_masks"] = self._motion_masks(dataset_dict, indices, transforms)
            if self.marks_area:
                sample["valid_area"] = valid_area(dataset_dict, transforms)
        return sample

    def _is_long(self, video: dict[str, Any]) -> bool:
        is_whole = self.longest_whole is None or video["length"] <= self.longest_whole
        return not self.is_train and not is_whole

    def _motion_masks(
        self, video: dict[str, Any], indices: Sequence[int], transforms: T.TransformList
    ) -> list[torch.Tensor | None] | None:
        """Motion masks of the frames, (H, W) bool or None; None for a video without any mask."""
        key = video["video_id"], video["file_names"][0]
        if key not in self._has_motion:
            self._has_motion[key] = any(
                find_motion_mask(self.motion_mask_root, video, t) for t in range(video["length"])
            )
        if not self._has_motion[key]:
            return None
        masks = [read_motion_mask(self.motion_mask_root, video, index) for index in indices]
        return [
            None
            if mask is None
            else torch.from_numpy(
                transforms.apply_segmentation(mask.astype(np.uint8)).astype(bool, order="C")
            )
            for mask in masks
        ]

    def _choose_frames(self, video: dict[str, Any]) -> list[int]:
        if not self.is_train:
            return list(range(video["length"]))
        with_objects = [
            t
            for t, objects in enumerate(video["annotations"])
            if any(not item["iscrowd"] for item in objects)
        ]
        # One draw from the global state, independent of the number of draws in the sampling.
        rng = np.random.RandomState(np.random.randint(2**31 - 1))
        return sample_clip(
            video["length"],
            self.num_frames,
            self.frame_range,
            rng,
            shuffle=self.shuffle,
            object_frames=with_objects,
        )

    def _read_frames(
        self, video: dict[str, Any], indices: Sequence[int], resize: T.ResizeTransform | None
    ) -> list[np.ndarray]:
        least = None if resize is None else (resize.new_h, resize.new_w)
        known = {
            t: read_video_frame(video, t, self.image_format, least) for t in sorted(set(indices))
        }
        return [known[t] for t in indices]


def boxes_of_frames(video: dict[str, Any], indices: Sequence[int]) -> np.ndarray:
    """Boxes of the objects in some frames, crowds aside, (N, 4) float64, xyxy pixels."""
    boxes = [
        BoxMode.convert(item["bbox"], item["bbox_mode"], BoxMode.XYXY_ABS)
        for t in sorted(set(indices))
        for item in video["annotations"][t]
        if not item["iscrowd"]
    ]
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def valid_area(video: dict[str, Any], transforms: T.TransformList) -> torch.Tensor:
    """Pixels of a transformed frame that lie inside the original one, (H, W) bool."""
    whole = np.ones((video["height"], video["width"]), dtype=np.uint8)
    return torch.from_numpy(transforms.apply_segmentation(whole).astype(bool, order="C"))


def build_tracks(
    video: dict[str, Any],
    indices: Sequence[int],
    transforms: Sequence[T.TransformList],
    image_size: tuple[int, int],
    with_masks: bool,
) -> dict[str, torch.Tensor]:
    """Objects of a clip as tensors; ``YTVISDatasetMapper`` explains the fields.

    Args:
        video: Dataset dict.
        indices: The T frames of the clip.
        transforms: The T transforms that were applied to the frames.
        image_size: (H, W) of the transformed frames, pixels.
        with_masks: Add ``masks``.

    Returns:
        ``labels``, ``ids``, ``boxes`` and, if asked for, ``masks`` of N tracks by ascending id.
        Crowds are left out, and so are tracks outside all transformed frames.

    Raises:
        DataError: An object has only a box, and ``with_masks`` is set.
    """
    height, width = image_size
    frames = [
        {item["id"]: item for item in video["annotations"][t] if not item["iscrowd"]}
        for t in indices
    ]
    classes = {key: item["category_id"] for frame in frames for key, item in frame.items()}
    tracks = sorted(classes)
    ids = np.full((len(tracks), len(indices)), -1, dtype=np.int64)
    boxes = np.zeros((len(tracks), len(indices), 4), dtype=np.float32)
    masks = np.zeros((len(tracks), len(indices), height, width), dtype=bool) if with_masks else None
    for t, frame in enumerate(frames):
        for row, track in enumerate(tracks):
            if track not in frame:
                continue
            if masks is not None:
                masks[row, t] = _transform_mask(video, indices[t], frame[track], transforms[t])
                box: Sequence[int] | np.ndarray | None = tight_box(masks[row, t])
            else:
                box = _transform_box(frame[track], transforms[t], height, width)
            if box is not None:
                ids[row, t], boxes[row, t] = track, box
    keep = np.flatnonzero((ids >= 0).any(axis=1))
    labels = np.array([classes[track] for track in tracks], dtype=np.int64)
    arrays: dict[str, np.ndarray] = {"labels": labels, "ids": ids, "boxes": boxes}
    if masks is not None:
        arrays["masks"] = masks
    if len(keep) < len(tracks):
        arrays = {name: values[keep] for name, values in arrays.items()}
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def add_teacher(
    tracks: dict[str, torch.Tensor],
    video: dict[str, Any],
    indices: Sequence[int],
    transforms: Sequence[T.TransformList],
    image_size: tuple[int, int],
) -> None:
    """Add the masks of a video as those of a teacher; ``YTVISDatasetMapper`` explains the fields.

    A mask without a confidence has the confidence 1. An empty one, of an object that has a box, is
    none.

    Args:
        tracks: Tracks of ``build_tracks``, supervised by boxes; changed.
        video: Dataset dict.
        indices: The T frames of the clip.
        transforms: The T transforms that were applied to the frames.
        image_size: (H, W) of the transformed frames, pixels.
    """
    ids = tracks["ids"].numpy()
    masks = np.zeros((*ids.shape, *image_size), dtype=bool)
    confidence = np.zeros(ids.shape, dtype=np.float32)
    for t, index in enumerate(indices):
        items = {item["id"]: item for item in video["annotations"][index]}
        for row in np.flatnonzero(ids[:, t] >= 0):
            item = items[int(ids[row, t])]
            if "segmentation" in item:
                masks[row, t] = _transform_mask(video, index, item, transforms[t])
                confidence[row, t] = item.get("confidence", 1.0) if masks[row, t].any() else 0.0
    tracks["teacher_masks"] = torch.from_numpy(masks)
    tracks["teacher_confidence"] = torch.from_numpy(confidence)


def _transform_box(
    item: dict[str, Any], transforms: T.TransformList, height: int, width: int
) -> np.ndarray | None:
    """Box (4,) xyxy after the transforms, clipped to the frame; None if it lies outside."""
    box = BoxMode.convert(item["bbox"], item["bbox_mode"], BoxMode.XYXY_ABS)
    box = transforms.apply_box(np.asarray([box], dtype=np.float64))[0]
    box = np.clip(box, 0, [width, height, width, height])
    is_left = min(box[2] - box[0], box[3] - box[1]) > _MIN_SIDE
    return box if is_left else None


def _transform_mask(
    video: dict[str, Any], index: int, item: dict[str, Any], transforms: T.TransformList
) -> np.ndarray:
    """Mask (H, W) bool after the transforms."""
    where = f"video {video['video_id']}, frame {index}, annotation {item['id']}"
    if "segmentation" not in item:
        raise DataError(
            f"{where}: INPUT.SUPERVISION is mask, but the object has only a box. Use box or data"
            " instead."
        )
    mask = decode_rle(item["segmentation"], where)
    return transforms.apply_segmentation(mask.astype(np.uint8)).astype(bool)
