"""A term of the training loss, and how a list of terms becomes one dict of weighted losses.

A term is one class in one file of this folder, registered by its decorator, and one config row with
its weight; ``docs/extending.md`` shows one. Shape letters: K decoder outputs, n counts of a term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, ClassVar

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.ops.reduce import mean_over_ranks

LOSS_TERM_REGISTRY = Registry("LOSS_TERM")
LOSS_TERM_REGISTRY.__doc__ = "Terms of every model, in the order in which their losses are logged."


class LossTerm(ABC):
    """One term: a sum over everything that it looks at, divided by what it counts.

    The counts of all terms are averaged over the processes in one call, so that a process on
    its own part of a batch contributes what it would in one process on the whole batch.

    Attributes:
        name: Key of the term in the loss dict; auxiliary outputs add ``_{i}``.
        row: Config key of the weight.
        num_counts: n. It must not depend on the batch: all processes reduce the same number.
        weight: What the term is multiplied by in the training loss.
    """

    name: ClassVar[str]
    row: ClassVar[str]
    num_counts: int = 1

    def __init__(self, weight: float) -> None:
        """Keep the weight."""
        self.weight = weight

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``; by default the weight, from the key ``row``."""
        return {"weight": attrgetter(cls.row)(cfg)}

    @abstractmethod
    def counts(self, scene: Scene) -> Tensor:
        """What the sums are divided by, as counted on this process, (K, n); zeros without objects.

        K is 1 for a term that has one value for all decoder outputs.
        """

    @abstractmethod
    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Value of the term at each output, not weighted, (K,); a zero with a graph if it is empty.

        Args:
            scene: The batch.
            normalizers: What ``floor`` makes of the mean of ``counts`` over the processes, (K, n).
                Each of the n parts of the sum is divided by its own.
        """

    def floor(self, means: Tensor) -> Tensor:
        """Least normalizers, so that nothing is divided by zero: 1 unless a term says otherwise."""
        return means.clamp(min=1)


def build_terms(cfg: Any) -> list[LossTerm]:
    """Every registered term, with the settings of a config."""
    return [term(**term.from_config(cfg)) for _, term in LOSS_TERM_REGISTRY]


def replace_terms(terms: Sequence[LossTerm], others: Sequence[LossTerm]) -> list[LossTerm]:
    """A list of terms in which further ones take the place of those of the same name.

    Args:
        terms: The list.
        others: Terms that replace one of the list, or are added at its end.
    """
    by_name = {term.name: term for term in terms}
    by_name.update((term.name, term) for term in others)
    return list(by_name.values())


def shared_normalizers(terms: Sequence[LossTerm], scene: Scene) -> dict[str, Tensor]:
    """Normalizers of all terms, (K, n) each by name; one reduction over the processes.

    Raises:
        ValueError: A term counts another number of things than it declares.
    """
    counts = [term.counts(scene).detach() for term in terms]
    for term, count in zip(terms, counts, strict=True):
        if count.shape[1] != term.num_counts:
            raise ValueError(
                f"{term.name}: counts() has the shape {tuple(count.shape)}, but num_counts is "
                f"{term.num_counts}"
            )
    means = mean_over_ranks(torch.cat([count.flatten() for count in counts]))
    parts = means.split([count.numel() for count in counts])
    return {
        term.name: term.floor(part.view_as(count))
        for term, part, count in zip(terms, parts, counts, strict=True)
    }


def weighted_losses(
    terms: Sequence[LossTerm], scene: Scene, normalizers: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The training losses by name: ``name`` of the last output, ``name_{i}`` of auxiliary output i.

    Args:
        terms: The terms.
        scene: The batch.
        normalizers: Those of ``shared_normalizers``.

    Returns:
        Weighted scalars; their sum is the training loss.
    """
    values = {term.name: term.sums(scene, normalizers[term.name]) * term.weight for term in terms}
    num_outputs = max((len(value) for value in values.values()), default=0)
    return {
        name if k == 0 else f"{name}_{k - 1}": value[k]
        for k in range(num_outputs)
        for name, value in values.items()
        if k < len(value)
    }
