"""Samples of several data sets, each with the mapper and the random numbers of its own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset

from maskfreevis_ext.data.sampler import Draw


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of numpy, Python and torch (CPU) for a while, and put them back.

    Args:
        seed: In [0, 2**32).

    Yields:
        Once.
    """
    before = np.random.get_state(), random.getstate(), torch.get_rng_state()
    np.random.seed(seed)
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
        torch.set_rng_state(before[2])


class Samples(Dataset[dict[str, Any]]):
    """Maps a ``Draw`` to a sample, with the name of its data set as ``dataset_name``."""

    def __init__(
        self,
        names: Sequence[str],
        dataset_dicts: Sequence[list[dict[str, Any]]],
        mappers: Sequence[Callable[[dict[str, Any]], dict[str, Any]]],
    ) -> None:
        """Keep the data sets.

        Args:
            names: Of the data sets.
            dataset_dicts: Of each.
            mappers: Of each: dataset dict -> sample; random numbers of numpy, Python and torch.
        """
        self.names, self.mappers = list(names), list(mappers)
        self.datasets = [DatasetFromList(dicts) for dicts in dataset_dicts]

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        with seeded(draw.seed):
            sample = self.mappers[draw.dataset](self.datasets[draw.dataset][draw.element])
        return {**sample, "dataset_name": self.names[draw.dataset]}
