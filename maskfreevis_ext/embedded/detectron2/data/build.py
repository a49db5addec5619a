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
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "trivial_batch_collator",
]


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The batch as it is."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed numpy's and python's generators of a worker from torch's."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    prefetch_factor: int = 2,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    """Batches of a data set, in the order of a sampler.

    Args:
        dataset: With an index, or iterable.
        sampler: Indices; None for an iterable data set.
        total_batch_size: Samples of all processes together.
        aspect_ratio_grouping: Put wide and tall images in different batches.
        num_workers: Worker processes.
        collate_fn: List of samples -> batch; by default the list itself.
        drop_last: Drop an incomplete last batch.
        prefetch_factor: Batches that each worker prepares in advance.
        seed: Seed of the workers' seeds.
        **kwargs: Further arguments of torch's ``DataLoader``.

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
    if not isinstance(dataset, IterableDataset):
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    generator = None
    if seed is not None:
        generator = torch.Generator()
        generator.manual_seed(seed)
    shared = {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
        "prefetch_factor": prefetch_factor if num_workers > 0 else None,
        "generator": generator,
        **kwargs,
    }
    if not aspect_ratio_grouping:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=collate_fn or trivial_batch_collator,
            **shared,
        )
    samples = DataLoader(dataset, collate_fn=operator.itemgetter(0), **shared)
    return AspectRatioGroupedDataset(samples, batch_size, collate_fn or trivial_batch_collator)


def _train_loader_from_config(
    cfg: CfgNode,
    mapper: Callable[[dict[str, Any]], Any],
    *,
    dataset: list[dict[str, Any]] | Dataset,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    if sampler is None and not isinstance(dataset, IterableDataset):
        name = cfg.DATALOADER.SAMPLER_TRAIN
        if name != "TrainingSampler":
            raise ValueError(f"DATALOADER.SAMPLER_TRAIN {name!r}, expected 'TrainingSampler'.")
        logging.getLogger(__name__).info("Using training sampler %s", name)
        sampler = TrainingSampler(len(dataset), seed=cfg.SEED)
    return {
        "dataset": dataset,
        "sampler": sampler,
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
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """An endless loader for training.

    With a config as its first argument it needs ``mapper`` and ``dataset`` beside it.

    Args:
        dataset: Dataset dicts, or a torch data set.
        mapper: Dataset dict -> sample.
        sampler: Order of the samples; by default shuffled without end.
        total_batch_size: Samples of all processes together.
        aspect_ratio_grouping: Put wide and tall images in different batches.
        num_workers: Worker processes.
        collate_fn: List of samples -> batch; by default the list itself.
        **kwargs: Of ``build_batch_data_loader``.
    """
    dataset = _as_mapped(dataset, mapper)
    if not isinstance(dataset, IterableDataset) and sampler is None:
        sampler = TrainingSampler(len(dataset))
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def build_detection_test_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """A loader that gives every sample once, divided among the processes.

    Unlike the real one it does not take a config instead of these arguments.

    Args:
        dataset: Dataset dicts, or a torch data set.
        mapper: Dataset dict -> sample.
        sampler: Order of the samples; by default that of the data set.
        batch_size: Samples per batch of this process.
        num_workers: Worker processes.
        collate_fn: List of samples -> batch; by default the list itself.
    """
    dataset = _as_mapped(dataset, mapper)
    if not isinstance(dataset, IterableDataset) and sampler is None:
        sampler = InferenceSampler(len(dataset))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _as_mapped(dataset: list | Dataset, mapper: Callable | None) -> Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)
