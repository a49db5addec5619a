"""Samples of several data sets, each with the mapper and the random numbers of its own."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset

from maskfreevis_ext.data.sampler import Draw, hash_numbers
from maskfreevis_ext.errors import DataError


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


def _alike(kinds: Sequence[Hashable]) -> list[np.ndarray]:
    """For each element those of its kind."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for element, kind in enumerate(kinds):
        groups[kind].append(element)
    arrays = {kind: np.asarray(elements) for kind, elements in groups.items()}
    return [arrays[kind] for kind in kinds]


#: Replacements that are tried for a sample before its error is raised.
_REPLACEMENTS = 20


class Samples(Dataset[dict[str, Any]]):
    """Maps a ``Draw`` to a sample, with the name of its data set as ``dataset_name``.

    A sample that replaces others also has ``bad_samples``: the messages of their errors.
    """

    def __init__(
        self,
        names: Sequence[str],
        dataset_dicts: Sequence[list[dict[str, Any]]],
        mappers: Sequence[Callable[[dict[str, Any]], dict[str, Any]]],
        kinds: Sequence[Sequence[Hashable]] | None = None,
    ) -> None:
        """Keep the data sets.

        Args:
            names: Of the data sets.
            dataset_dicts: Of each.
            mappers: Of each: dataset dict -> sample; random numbers of numpy, Python and torch.
            kinds: Of each the kind of each element: a sample that cannot be read is replaced by one
                of the same kind. None: its error is raised.
        """
        self.names, self.mappers = list(names), list(mappers)
        self.datasets = [DatasetFromList(dicts) for dicts in dataset_dicts]
        self._of_kind = None if kinds is None else [_alike(one) for one in kinds]

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Make a sample.

        Raises:
            DataError: It cannot be read, and is not to be replaced, or no replacement can be read.
        """
        messages: list[str] = []
        for element in self._elements(draw):
            try:
                with seeded(draw.seed):
                    sample = self.mappers[draw.dataset](self.datasets[draw.dataset][element])
            except DataError as error:
                if self._of_kind is None:
                    raise
                messages.append(str(error))
                continue
            replaced = {"bad_samples": messages} if messages else {}
            return {**sample, "dataset_name": self.names[draw.dataset], **replaced}
        raise DataError(
            f"{messages[0]} (DATALOADER.ON_BAD_SAMPLE skip: none of {len(messages) - 1} samples in"
            " its place could be read either.)"
        )

    def _elements(self, draw: Draw) -> Iterator[int]:
        """The element of a draw, and those that may take its place: a function of the draw."""
        yield draw.element
        if self._of_kind is not None:
            alike = self._of_kind[draw.dataset][draw.element]
            places = hash_numbers(draw.seed, np.arange(_REPLACEMENTS), 2) % np.uint64(len(alike))
            yield from dict.fromkeys(e for e in alike[places].tolist() if e != draw.element)
