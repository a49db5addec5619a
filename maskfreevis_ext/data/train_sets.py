"""The data sets of a training: loaded, checked, and given the classes that the model predicts."""

from __future__ import annotations

import dataclasses
import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskfreevis_ext.data.frame_check import check_frame_files
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.label_spaces import adapt_classes
from maskfreevis_ext.data.mappers import clip_supervision
from maskfreevis_ext.data.motion_masks import check_motion_masks
from maskfreevis_ext.data.registration import load_registered
from maskfreevis_ext.data.ytvis import DatasetDict
from maskfreevis_ext.errors import ConfigError, DataError, first_few

logger = logging.getLogger(__name__)

#: Relative frequencies of sets of images and of videos in the reference.
_IMAGE_RATIO, _VIDEO_RATIO = 1.0, 0.75


@dataclasses.dataclass
class TrainSet:
    """One of DATASETS.TRAIN.

    Attributes:
        name: Registered name.
        dataset_dicts: Videos, or images.
        has_images: They are images.
        supervision: As INPUT.SUPERVISION.
    """

    name: str
    dataset_dicts: list[DatasetDict]
    has_images: bool
    supervision: str


def load_dataset(name: str, key: str, rules: FrameRules = DEFAULT_RULES) -> list[DatasetDict]:
    """Load a registered data set, of videos or of images.

    Args:
        name: Registered name.
        key: Config key that holds it, for messages.
        rules: How frames are read; the dataset dicts carry them as ``frame_rules``.

    Returns:
        Its dataset dicts.

    Raises:
        ConfigError: The name is unknown, or has no annotation file.
        DataError: The annotation file cannot be used.
    """
    known = DatasetCatalog.list()
    if name not in known:
        mine = [n for n in known if MetadataCatalog.get(n).get("has_videos")]
        raise ConfigError(
            f"{key}: the data set {name!r} is not registered. Known data sets:"
            f" {', '.join(sorted(mine))}. Register your own by INPUT.DATASETS \"[['name',"
            " 'annotations.json', 'image/root']]\" or"
            " maskfreevis_ext.register_ytvis_instances."
        )
    found = load_registered(name, key)
    if rules != DEFAULT_RULES:
        for entry in found:
            entry["frame_rules"] = rules
    return found


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
        shown = first_few(missing, 3, "; ")
        raise DataError(
            f"INPUT.SUPERVISION is mask, but {len(missing)} boxes have no mask: {shown}. Set"
            " INPUT.SUPERVISION to box (train from boxes) or data (masks where there are any)."
        )


def _has_objects(video: DatasetDict) -> bool:
    return any(not item["iscrowd"] for objects in video["annotations"] for item in objects)


def drop_masks(videos: list[DatasetDict]) -> None:
    """Remove the masks from dataset dicts, in place, to save memory.

    Args:
        videos: The dataset dicts.
    """
    for video in videos:
        for objects in video["annotations"]:
            for item in objects:
                item.pop("segmentation", None)


def load_train_sets(cfg: CfgNode) -> list[TrainSet]:
    """Load and check the data sets of DATASETS.TRAIN.

    All have the classes of the last one: objects of other classes are dropped.

    Args:
        cfg: The config.

    Returns:
        The data sets; without masks where the supervision is "box".

    Raises:
        ConfigError: A key does not fit the data.
        DataError: The data cannot be used, or a data set has no object.
    """
    names = list(cfg.DATASETS.TRAIN)
    if not names:
        raise ConfigError("DATASETS.TRAIN is empty. Name at least one data set.")
    if len(set(names)) < len(names):
        raise ConfigError(f"DATASETS.TRAIN names a data set twice: {names}. See TRAIN_RATIOS.")
    map_files = _class_maps(cfg, names)
    sets = [_load_set(cfg, name) for name in names]
    _check_class_count(cfg, names[-1])
    _check_clip_lengths(cfg, sets)
    target = MetadataCatalog.get(names[-1]).thing_classes
    for one in sets:
        source = MetadataCatalog.get(one.name).thing_classes
        adapt_classes(
            one.name, one.dataset_dicts, source, names[-1], target, map_files.get(one.name)
        )
        _keep_useful(cfg, one)
        check_supervision(one.supervision, one.dataset_dicts)
        check_images(one.dataset_dicts)
        check_frame_files(cfg, one.dataset_dicts, f"DATASETS.TRAIN {one.name}")
        if one.supervision == "box":
            drop_masks(one.dataset_dicts)
    if cfg.MODEL.SPATIAL_MASK.ENABLED:
        _check_spatial_supervision(cfg, sets)
    return sets


def load_train_videos(cfg: CfgNode) -> list[DatasetDict]:
    """The videos and images of all data sets of ``load_train_sets`` in one list.

    Args:
        cfg: The config.

    Raises:
        ConfigError: A key does not fit the data.
        DataError: The data cannot be used.
    """
    return [entry for one in load_train_sets(cfg) for entry in one.dataset_dicts]


def _class_maps(cfg: CfgNode, names: list[str]) -> dict[str, str]:
    maps = {str(name): str(path) for name, path in cfg.DATASETS.CLASS_MAPS}
    for name in maps:
        if name not in names:
            raise ConfigError(
                f"DATASETS.CLASS_MAPS: expected names of DATASETS.TRAIN {names}, got {name!r}."
            )
    return maps


def _load_set(cfg: CfgNode, name: str) -> TrainSet:
    dataset_dicts = load_dataset(name, "DATASETS.TRAIN", FrameRules.from_config(cfg))
    has_images = bool(dataset_dicts) and bool(dataset_dicts[0].get("is_image"))
    default = cfg.INPUT.PSEUDO.SUPERVISION if has_images else cfg.INPUT.SUPERVISION
    supervision = MetadataCatalog.get(name).get("supervision") or default
    return TrainSet(name, dataset_dicts, has_images, supervision)


def _keep_useful(cfg: CfgNode, one: TrainSet) -> None:
    """Leave out what has no objects, and say how much of it there is, and of short videos."""
    what = "images" if one.has_images else "videos"
    total = len(one.dataset_dicts)
    with_objects = [entry for entry in one.dataset_dicts if _has_objects(entry)]
    if not with_objects:
        raise DataError(
            f"DATASETS.TRAIN {one.name}: none of the {total} {what} has an object. Train on a"
            " JSON with 'annotations'."
        )
    num_empty = total - len(with_objects)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        one.dataset_dicts = with_objects
        text = "%s: %d %s to train on; %d without objects left out."
    else:
        text = "%s: %d %s to train on; %d of them without objects."
    logger.info(text, one.name, len(one.dataset_dicts), what, num_empty)
    clip_length = cfg.INPUT.SAMPLING_FRAME_NUM
    num_short = sum(entry["length"] < clip_length for entry in one.dataset_dicts)
    if num_short and not one.has_images:
        logger.warning(
            "%d of %d videos have fewer frames than a clip (INPUT.SAMPLING_FRAME_NUM %d): their"
            " frames are repeated.",
            num_short,
            len(one.dataset_dicts),
            clip_length,
        )


def _check_clip_lengths(cfg: CfgNode, sets: list[TrainSet]) -> None:
    """With mixed batches, clips of videos and of images must have the same number of frames.

    Raises:
        ConfigError: They have not.
    """
    of_videos, of_images = cfg.INPUT.SAMPLING_FRAME_NUM, cfg.INPUT.PSEUDO.SAMPLING_FRAME_NUM
    kinds = {one.has_images for one in sets}
    if cfg.DATALOADER.BATCH == "mixed" and len(kinds) == 2 and of_videos != of_images:
        raise ConfigError(
            "DATALOADER.BATCH is mixed, and clips of a batch have the same number of frames: set"
            f" INPUT.PSEUDO.SAMPLING_FRAME_NUM ({of_images}) to INPUT.SAMPLING_FRAME_NUM"
            f" ({of_videos}), or DATALOADER.BATCH to homogeneous."
        )


def train_ratios(cfg: CfgNode, sets: list[TrainSet]) -> list[float]:
    """How often samples come from each data set, relative to the others.

    Args:
        cfg: The config.
        sets: The data sets.

    Raises:
        ConfigError: DATASETS.TRAIN_RATIOS has another length than DATASETS.TRAIN.
    """
    ratios = [float(ratio) for ratio in cfg.DATASETS.TRAIN_RATIOS]
    if not ratios:
        ratios = [_IMAGE_RATIO if one.has_images else _VIDEO_RATIO for one in sets]
    if len(ratios) != len(sets):
        raise ConfigError(
            f"DATASETS.TRAIN_RATIOS: expected {len(sets)} numbers, one for each of DATASETS.TRAIN,"
            f" got {ratios}."
        )
    if len(sets) > 1:
        parts = [
            f"{one.name} {ratio / sum(ratios):.1%} ({one.supervision},"
            f" {len(one.dataset_dicts)} {'images' if one.has_images else 'videos'})"
            for one, ratio in zip(sets, ratios, strict=True)
        ]
        logger.info("Training on %s; %s batches.", ", ".join(parts), cfg.DATALOADER.BATCH)
    return ratios


def _check_spatial_supervision(cfg: CfgNode, sets: list[TrainSet]) -> None:
    """Log the supervision of the spatial mask head, and warn if there is none.

    Raises:
        ConfigError: INPUT.MOTION_MASK_ROOT has no mask.
    """
    loss = cfg.MODEL.SPATIAL_MASK.LOSS
    if cfg.INPUT.MOTION_MASK_ROOT:
        videos = [v for one in sets if not one.has_images for v in one.dataset_dicts]
        check_motion_masks(cfg.INPUT.MOTION_MASK_ROOT, videos)
        return
    kinds = [clip_supervision(one.supervision, v) for one in sets for v in one.dataset_dicts]
    num_masks = kinds.count("mask")
    logger.info("%d of %d videos have masks for the spatial mask head.", num_masks, len(kinds))
    if loss.ENABLED and loss.BOX_MODE == "skip" and num_masks == 0:
        logger.warning(
            "Nothing supervises the spatial mask head: no video gives masks (INPUT.SUPERVISION %s),"
            " INPUT.MOTION_MASK_ROOT is empty, and MODEL.SPATIAL_MASK.LOSS.BOX_MODE is skip. It"
            " learns only through the attention that it biases.",
            cfg.INPUT.SUPERVISION,
        )
