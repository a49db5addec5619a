"""Train and test loaders on top of Detectron2's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.utils import comm

from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.image_mapper import CocoClipDatasetMapper
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.registration import refuse_images
from maskfreevis_ext.data.sampler import StatelessSampler
from maskfreevis_ext.data.samples import Samples
from maskfreevis_ext.data.train_sets import drop_masks, load_dataset, load_train_sets, train_ratios
from maskfreevis_ext.data.ytvis import DatasetDict
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.exchange import all_gather_json

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
    """Load registered data sets of videos that have the same classes.

    Args:
        names: Registered names.
        key: Config key that holds the names, for messages.
        rules: How frames are read; the dataset dicts carry them as ``frame_rules``.

    Returns:
        The dataset dicts of all of them, in the order of ``names``.

    Raises:
        ConfigError: There is no name, a name is unknown, a data set has no annotation file, or the
            classes differ.
        DataError: An annotation file cannot be used, or holds images.
    """
    if not names:
        raise ConfigError(f"{key} is empty. Name at least one data set.")
    videos: list[DatasetDict] = []
    for name in names:
        found = load_dataset(name, key, rules)
        refuse_images(name, found, key)
        videos.extend(found)
        classes = MetadataCatalog.get(name).get("thing_classes")
        first = MetadataCatalog.get(names[0]).get("thing_classes")
        if list(classes) != list(first):
            raise ConfigError(
                f"{key}: {names[0]!r} and {name!r} have different classes. Data sets that are"
                " trained or tested together need the same list of categories."
            )
    return videos


class TrainBatches(VisibleErrors):
    """Batches without end; ``start_at`` chooses the first one."""

    def __init__(self, loader: Any, sampler: StatelessSampler) -> None:
        """Keep the loader, and the sampler whose order it follows."""
        super().__init__(loader)
        self.sampler = sampler

    def start_at(self, step: int) -> None:
        """Let the next iteration begin with the batch of a training step, counted from 0."""
        self.sampler.start_at(step)


def build_train_loader(cfg: CfgNode) -> TrainBatches:
    """Build the infinite loader of training batches: lists of samples of the mappers.

    Which samples batch number i has, and what is drawn for them, follows from SEED, the data and
    the config alone. It also registers the data sets of INPUT.DATASETS.

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
    mappers = {
        False: YTVISDatasetMapper(cfg, is_train=True),
        True: CocoClipDatasetMapper(cfg),
    }  # bad keys are found before the data are read
    sets = load_train_sets(cfg)
    ratios = train_ratios(cfg, sets)
    world_size = comm.get_world_size()
    sampler = StatelessSampler(
        [_kinds(cfg, i, one.dataset_dicts) for i, one in enumerate(sets)],
        ratios,
        cfg.SEED if cfg.SEED >= 0 else all_gather_json(int(np.random.randint(2**31)))[0],
        max(cfg.SOLVER.IMS_PER_BATCH // world_size, 1),
        comm.get_rank(),
        world_size,
    )
    samples = Samples(
        [one.name for one in sets],
        [one.dataset_dicts for one in sets],
        [_with_supervision(mappers[one.has_images], one.supervision) for one in sets],
    )
    loader = build_detection_train_loader(
        samples,
        mapper=None,
        sampler=sampler,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,  # the sampler groups
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return TrainBatches(loader, sampler)


def _kinds(cfg: CfgNode, index: int, dataset_dicts: list[DatasetDict]) -> list[Any]:
    """What samples of a batch have in common: the data set, and whether they are wide or tall."""
    dataset = index if cfg.DATALOADER.BATCH == "homogeneous" else 0
    by_aspect = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    return [(dataset, by_aspect and entry["width"] > entry["height"]) for entry in dataset_dicts]


def _with_supervision(mapper: Any, supervision: str) -> Any:
    own = copy.copy(mapper)
    own.supervision = supervision
    return own


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
    drop_masks(videos)
    loader = build_detection_test_loader(
        videos,
        mapper=YTVISDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_pack_frames,
    )
    return VisibleErrors(loader, unpack=True)
