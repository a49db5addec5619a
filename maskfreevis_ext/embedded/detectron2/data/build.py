"""Loaders for training and testing; a batch is a list of what the mapper returns."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset, Sampler


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The batch as it is."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed numpy's and python's generators of a worker from torch's."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def _train_loader_from_config(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], Any], *, dataset: list[dict[str, Any]]
) -> dict[str, Any]:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name != "TrainingSampler":
        raise ValueError(f"DATALOADER.SAMPLER_TRAIN {name!r}, expected 'TrainingSampler'.")
    logging.getLogger(__name__).info("Using training sampler %s", name)
    return {
        "dataset": dataset,
        "sampler": TrainingSampler(len(dataset), seed=cfg.SEED),
        "mapper": mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
) -> Any:
    """An endless loader for training.

    With a config as its first argument it needs ``mapper`` and ``dataset`` beside it.

    Args:
        dataset: Dataset dicts, or a data set of samples by the indices of the sampler.
        mapper: Dataset dict -> sample.
        sampler: Order of the samples.
        total_batch_size: Samples of all processes together.
        aspect_ratio_grouping: Put wide and tall images in different batches.
        num_workers: Worker processes.

    Raises:
        AssertionError: The batch does not divide among the processes.
    """
    world_size = get_world_size()
    if total_batch_size <= 0 or total_batch_size % world_size:
        raise AssertionError(
            f"The batch size ({total_batch_size}) must be a positive multiple of the number of "
            f"processes ({world_size})."
        )
    batch_size = total_batch_size // world_size
    logging.getLogger(__name__).info("Making batched data loader with batch_size=%d", batch_size)
    samples = ToIterableDataset(_as_mapped(dataset, mapper), sampler, batch_size)
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
    }
    if aspect_ratio_grouping:
        single = DataLoader(samples, collate_fn=operator.itemgetter(0), **options)
        return AspectRatioGroupedDataset(single, batch_size)
    return DataLoader(
        samples, batch_size, drop_last=True, collate_fn=trivial_batch_collator, **options
    )


def build_detection_test_loader(
    dataset: list[dict[str, Any]],
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """A loader that gives every sample once, divided among the processes.

    Unlike the real one it does not take a config instead of these arguments.

    Args:
        dataset: Dataset dicts.
        mapper: Dataset dict -> sample.
        batch_size: Samples per batch of this process.
        num_workers: Worker processes.
        collate_fn: List of samples -> batch; by default the list itself.
    """
    return DataLoader(
        _as_mapped(dataset, mapper),
        batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _as_mapped(
    dataset: list[dict[str, Any]] | Dataset, mapper: Callable[[dict[str, Any]], Any] | None
) -> Dataset:
    packed = DatasetFromList(dataset) if isinstance(dataset, list) else dataset
    return packed if mapper is None else MapDataset(packed, mapper)
