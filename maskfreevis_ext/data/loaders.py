"""Train and test loaders on top of Detectron2's."""

from __future__ import annotations

import copy
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
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

from maskfreevis_ext.data.bad_samples import BadSampleCount
from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.image_mapper import CocoClipDatasetMapper
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.registration import refuse_images
from maskfreevis_ext.data.sampler import StatelessSampler
from maskfreevis_ext.data.samples import Samples
from maskfreevis_ext.data.train_sets import drop_masks, load_dataset, load_train_sets, train_ratios
from maskfreevis_ext.data.worker_notes import Noted, WorkerNotes
from maskfreevis_ext.data.worker_watch import WorkerWatch
from maskfreevis_ext.data.ytvis import DatasetDict
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.exchange import all_gather_json

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # of prctl: the signal that a process gets when its parent ends


class VisibleErrors:
    """A loader that gives one clear error for whatever happens to its worker processes."""

    def __init__(
        self,
        loader: Any,
        notes: WorkerNotes | None = None,
        timeout: float = 0,
        unpack: bool = False,
    ) -> None:
        """Wrap a loader.

        Args:
            loader: A loader of lists of samples.
            notes: What its workers are doing; None for a loader without workers.
            timeout: Longest time that is waited for a batch of workers, seconds; 0: for ever.
            unpack: Undo ``_pack_frames`` on every batch.
        """
        self.loader, self._notes, self._timeout, self._unpack = loader, notes, timeout, unpack

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # does not exist yet while an instance is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = iter(self.loader)
        if self._notes is not None:
            batches = _watched(batches, self._notes, self._timeout)
        for batch in batches:
            yield _unpack_frames(batch) if self._unpack else batch


def _watched(batches: Any, notes: WorkerNotes, timeout: float) -> Iterator[Any]:
    done = getattr(batches, "_workers_done_event", None)
    watch = WorkerWatch(getattr(batches, "_workers", ()), notes, timeout, done)
    try:
        while True:
            fault = None
            try:
                with watch.waiting():
                    batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                fault = watch.explain(error)
                if fault is None:
                    raise
                logger.debug("A loader's worker failed: %s", error)
            if fault is not None:
                raise fault
            yield batch
    finally:
        watch.close()


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
    """Batches without end; ``start_at`` chooses the first one.

    Counts the samples that DATALOADER.ON_BAD_SAMPLE replaced, as the metric ``data/bad_samples``.
    """

    def __init__(
        self, loader: Any, sampler: StatelessSampler, notes: WorkerNotes | None, timeout: float
    ) -> None:
        """Keep the loader, and the sampler whose order it follows."""
        super().__init__(loader, notes, timeout)
        self.sampler = sampler
        self.bad_samples = BadSampleCount()

    @property
    def seed(self) -> int:
        """What the order of the samples follows from."""
        return self.sampler.seed

    def start_at(self, step: int, seed: int) -> None:
        """Let the next iteration begin with the batch of a training step, counted from 0.

        Args:
            step: The training step.
            seed: Of the order.
        """
        self.sampler.seed = seed
        self.sampler.start_at(step)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Batch after batch.

        Raises:
            DataError: A sample cannot be read, or too many were replaced.
        """
        for batch in super().__iter__():
            self.bad_samples.add(batch)
            yield batch


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
    workers = cfg.DATALOADER.NUM_WORKERS
    notes = WorkerNotes(workers) if workers else None
    samples = Samples(
        [one.name for one in sets],
        [one.dataset_dicts for one in sets],
        [
            _noted(_with_supervision(mappers[one.has_images], one.supervision), notes)
            for one in sets
        ],
        sampler.kinds if cfg.DATALOADER.ON_BAD_SAMPLE == "skip" else None,
    )
    loader = build_detection_train_loader(
        samples,
        mapper=None,
        sampler=sampler,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,  # the sampler groups
        num_workers=workers,
    )
    # Torch draws a seed for the workers; from the global generator, it would shift the numbers of
    # the step in which a training starts or goes on.
    loader.generator = torch.Generator()
    loader.worker_init_fn = _OfTrainingAlone(loader.worker_init_fn)
    return TrainBatches(loader, sampler, notes, cfg.DATALOADER.TIMEOUT)


class _OfTrainingAlone:
    """Lets a worker end with the training, and by nothing else.

    Its process group is its own: Ctrl-C and the like do not reach it, as a training that stops
    ends its step, and needs the workers for that. Torch's workers look for the process that started
    them, but one whose start was interrupted by its end would not notice.
    """

    def __init__(self, first: Callable[[int], None] | None) -> None:
        self._first, self._training = first, os.getpid()

    def __call__(self, worker: int) -> None:
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._training:  # it has ended already
            os._exit(1)
        if self._first is not None:
            self._first(worker)


def _kinds(cfg: CfgNode, index: int, dataset_dicts: list[DatasetDict]) -> list[Any]:
    """What samples of a batch have in common: the data set, and whether they are wide or tall."""
    dataset = index if cfg.DATALOADER.BATCH == "homogeneous" else 0
    by_aspect = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    return [(dataset, by_aspect and entry["width"] > entry["height"]) for entry in dataset_dicts]


def _noted(mapper: Any, notes: WorkerNotes | None) -> Any:
    return mapper if notes is None else Noted(mapper, notes)


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
    workers = cfg.DATALOADER.NUM_WORKERS
    notes = WorkerNotes(workers) if workers else None
    loader = build_detection_test_loader(
        videos,
        mapper=_noted(YTVISDatasetMapper(cfg, is_train=False), notes),
        num_workers=workers,
        collate_fn=_pack_frames,
    )
    return VisibleErrors(loader, notes, cfg.DATALOADER.TIMEOUT, unpack=True)
