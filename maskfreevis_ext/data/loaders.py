"""Train and test loaders on top of Detectron2's, with checks of the data before training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)

from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.frame_check import check_frame_files
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.mappers import YTVISDatasetMapper, clip_supervision
from maskfreevis_ext.data.motion_masks import check_motion_masks
from maskfreevis_ext.data.ytvis import DatasetDict
from maskfreevis_ext.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class VisibleErrors:
    """A loader that re-raises the ``DataError`` of a worker process without its traceback."""

    def __init__(self, loader: Any, unpack: bool = False) -> None:
        """Wrap a loader.

        Args:
            loader: A loader of lists of samples.
            unpack: Undo ``_pack_frames`` on every batch.
        """
        self.loader, self._unpack = loader, unpack

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # does not exist yet while an instance is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except DataError as error:
                message = _message_of_worker(error)
                if message is None:
                    raise
                logger.debug("A loader's worker failed: %s", error)
                # The error and its traceback refer to each other, and the traceback refers to the
                # iterator. Without this line the garbage collector would delete the iterator much
                # later, and then wait five seconds for each worker.
                error.__traceback__ = None
                break
            yield _unpack_frames(batch) if self._unpack else batch
        del batches
        raise DataError(message)


def _message_of_worker(error: DataError) -> str | None:
    """Message of an error from a worker process, which torch raises with a traceback as its text.

    None if the error was raised in this process.
    """
    mark = f"{DataError.__module__}.{DataError.__qualname__}: "
    text = str(error)
    return text.rsplit(mark, 1)[1].strip() if mark in text else None


def _pack_frames(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stack the frames of a video: every tensor that a worker sends keeps a file open."""
    return [
        {**sample, "image": torch.stack(sample["image"])}
        if isinstance(sample["image"], list)
        else sample
        for sample in batch
    ]


def _unpack_frames(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**sample, "image": list(sample["image"].unbind(0))}
        if isinstance(sample["image"], torch.Tensor)
        else sample
        for sample in batch
    ]


def load_datasets(
    names: list[str] | tuple[str, ...], key: str, rules: FrameRules = DEFAULT_RULES
) -> list[DatasetDict]:
    """Load registered data sets that have the same classes.

    Args:
        names: Registered names.
        key: Config key that holds the names, for messages.
        rules: How frames are read; the dataset dicts carry them as ``frame_rules``.

    Returns:
        The dataset dicts of all of them, in the order of ``names``.

    Raises:
        ConfigError: There is no name, a name is unknown, a data set is not in YouTube-VIS format,
            or the classes differ.
        DataError: An annotation file cannot be used.
    """
    if not names:
        raise ConfigError(f"{key} is empty. Name at least one data set.")
    known = DatasetCatalog.list()
    videos: list[DatasetDict] = []
    for name in names:
        if name not in known:
            mine = [n for n in known if MetadataCatalog.get(n).get("has_videos")]
            raise ConfigError(
                f"{key}: the data set {name!r} is not registered. Known video data sets:"
                f" {', '.join(sorted(mine))}. Register your own by INPUT.DATASETS \"[['name',"
                " 'annotations.json', 'image/root']]\" or"
                " maskfreevis_ext.register_ytvis_instances. Training on image data sets"
                " beside videos is not part of this version: remove the name."
            )
        if not MetadataCatalog.get(name).get("has_videos"):
            raise ConfigError(
                f"{key}: the data set {name!r} has no videos in YouTube-VIS form. Remove"
                " it, or register its video version by INPUT.DATASETS."
            )
        videos.extend(DatasetCatalog.get(name))
        classes = MetadataCatalog.get(name).get("thing_classes")
        first = MetadataCatalog.get(names[0]).get("thing_classes")
        if list(classes) != list(first):
            raise ConfigError(
                f"{key}: {names[0]!r} and {name!r} have different classes. Data sets that are"
                " trained or tested together need the same list of categories."
            )
    if rules != DEFAULT_RULES:
        for video in videos:
            video["frame_rules"] = rules
    return videos


def _check_class_count(cfg: CfgNode, name: str) -> None:
    count = len(MetadataCatalog.get(name).thing_classes)
    heads = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if count > heads:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {heads}, but {name!r} has {count} classes. Set it"
            f" to {count}."
        )
    if count < heads:
        logger.warning(
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES is %d, but %r has %d classes: the others are never"
            " trained.",
            heads,
            name,
            count,
        )


def check_supervision(setting: str, videos: list[DatasetDict]) -> None:
    """Check that the objects have the masks that INPUT.SUPERVISION asks for.

    With "mask" all of them have one; with "teacher" some.

    Args:
        setting: INPUT.SUPERVISION.
        videos: Dataset dicts.

    Raises:
        DataError: Objects have only a box; the message names the first three.
    """
    if setting not in ("mask", "teacher"):
        return
    missing = [
        f"video {video['video_id']}, annotation {item['id']}, frame {t}"
        for video in videos
        for t, objects in enumerate(video["annotations"])
        for item in objects
        if not item["iscrowd"] and "segmentation" not in item
    ]
    if setting == "teacher":
        count = sum(
            "segmentation" in item
            for video in videos
            for objects in video["annotations"]
            for item in objects
        )
        if count == 0:
            raise DataError(
                f"INPUT.SUPERVISION is teacher, but none of {len(missing)} boxes has a mask. Make"
                " masks with tools/boxes_to_masks.py, or set INPUT.SUPERVISION to box."
            )
        logger.info("%d boxes have a mask of the teacher, %d have none.", count, len(missing))
    elif missing:
        shown = "; ".join(missing[:3]) + ("; ..." if len(missing) > 3 else "")
        raise DataError(
            f"INPUT.SUPERVISION is mask, but {len(missing)} boxes have no mask: {shown}. Set"
            " INPUT.SUPERVISION to box (train from boxes) or data (masks where there are any)."
        )


def _has_objects(video: DatasetDict) -> bool:
    return any(not item["iscrowd"] for objects in video["annotations"] for item in objects)


def _drop_masks(videos: list[DatasetDict]) -> None:
    """Remove the masks from the dataset dicts, in place, to save memory with box supervision."""
    for video in videos:
        for objects in video["annotations"]:
            for item in objects:
                item.pop("segmentation", None)


def load_train_videos(cfg: CfgNode) -> list[DatasetDict]:
    """Load and check the videos of DATASETS.TRAIN.

    Args:
        cfg: The config.

    Returns:
        Dataset dicts; without masks if INPUT.SUPERVISION is "box".

    Raises:
        ConfigError: A key does not fit the data.
        DataError: The data cannot be used, or no video has an object.
    """
    names = list(cfg.DATASETS.TRAIN)
    videos = load_datasets(names, "DATASETS.TRAIN", FrameRules.from_config(cfg))
    _check_class_count(cfg, names[0])
    with_objects = [video for video in videos if _has_objects(video)]
    if not with_objects:
        raise DataError(
            f"DATASETS.TRAIN {names}: none of the {len(videos)} videos has an object. Train on a"
            " JSON with 'annotations'."
        )
    num_empty = len(videos) - len(with_objects)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        logger.info(
            "%d videos to train on; %d without objects left out.", len(with_objects), num_empty
        )
        videos = with_objects
    else:
        logger.info("%d videos to train on; %d of them without objects.", len(videos), num_empty)
    clip_length = cfg.INPUT.SAMPLING_FRAME_NUM
    num_short = sum(video["length"] < clip_length for video in videos)
    if num_short:
        logger.warning(
            "%d of %d videos have fewer frames than a clip (INPUT.SAMPLING_FRAME_NUM %d): their"
            " frames are repeated.",
            num_short,
            len(videos),
            clip_length,
        )
    check_supervision(cfg.INPUT.SUPERVISION, videos)
    check_images(videos)
    check_frame_files(cfg, videos, "DATASETS.TRAIN")
    if cfg.MODEL.SPATIAL_MASK.ENABLED:
        _check_spatial_supervision(cfg, videos)
    if cfg.INPUT.SUPERVISION == "box":
        _drop_masks(videos)
    return videos


def _check_spatial_supervision(cfg: CfgNode, videos: list[DatasetDict]) -> None:
    """Log the supervision of the spatial mask head, and warn if there is none.

    Raises:
        ConfigError: INPUT.MOTION_MASK_ROOT has no mask.
    """
    loss = cfg.MODEL.SPATIAL_MASK.LOSS
    if cfg.INPUT.MOTION_MASK_ROOT:
        check_motion_masks(cfg.INPUT.MOTION_MASK_ROOT, videos)
        return
    num_masks = sum(clip_supervision(cfg.INPUT.SUPERVISION, video) == "mask" for video in videos)
    logger.info("%d of %d videos have masks for the spatial mask head.", num_masks, len(videos))
    if loss.ENABLED and loss.BOX_MODE == "skip" and num_masks == 0:
        logger.warning(
            "Nothing supervises the spatial mask head: no video gives masks (INPUT.SUPERVISION %s),"
            " INPUT.MOTION_MASK_ROOT is empty, and MODEL.SPATIAL_MASK.LOSS.BOX_MODE is skip. It"
            " learns only through the attention that it biases.",
            cfg.INPUT.SUPERVISION,
        )


def build_train_loader(cfg: CfgNode) -> VisibleErrors:
    """Build the infinite loader of training batches: lists of samples of ``YTVISDatasetMapper``.

    It also registers the data sets of INPUT.DATASETS.

    Args:
        cfg: The config.

    Raises:
        ConfigError: A key does not fit the data.
        DataError: The data cannot be used; also while iterating, when a frame cannot be read.
    """
    register_from_config(cfg)
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            "DATALOADER.SAMPLER_TRAIN must be TrainingSampler for videos, got"
            f" {cfg.DATALOADER.SAMPLER_TRAIN!r}."
        )
    mapper = YTVISDatasetMapper(cfg, is_train=True)
    videos = load_train_videos(cfg)
    return VisibleErrors(build_detection_train_loader(cfg, mapper=mapper, dataset=videos))


def load_test_videos(dataset_name: str, rules: FrameRules = DEFAULT_RULES) -> list[DatasetDict]:
    """Load a data set of DATASETS.TEST and check that its frames exist.

    Args:
        dataset_name: A registered data set.
        rules: How frames are read.

    Returns:
        Dataset dicts.

    Raises:
        ConfigError: The data set is not known, or not in YouTube-VIS form.
        DataError: The data cannot be used.
    """
    videos = load_datasets([dataset_name], "DATASETS.TEST", rules)
    check_images(videos)
    return videos


def build_test_loader(cfg: CfgNode, dataset_name: str) -> VisibleErrors:
    """Build the test loader: each video once, one per batch, divided among the processes.

    It also registers the data sets of INPUT.DATASETS.

    Args:
        cfg: The config.
        dataset_name: A registered data set.

    Raises:
        ConfigError: The data set is not known, or not in YouTube-VIS form.
        DataError: The data cannot be used; also while iterating, when a frame cannot be read.
    """
    register_from_config(cfg)
    videos = load_test_videos(dataset_name, FrameRules.from_config(cfg))
    _drop_masks(videos)
    loader = build_detection_test_loader(
        videos,
        mapper=YTVISDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_pack_frames,
    )
    return VisibleErrors(loader, unpack=True)
