"""A term of the training loss, and how a list of terms becomes one dict of weighted losses.

A term is a class in a file of this folder, registered by its decorator, and a config row with its
weight; ``docs/extending.md`` has an example. Shape letters: K decoder outputs, n counts of a term.
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
LOSS_TERM_REGISTRY.__doc__ = "Loss terms of all models, in the order of logging."


class LossTerm(ABC):
    """One term of the loss: a sum over objects, pixels or pairs, divided by their number.

    The numbers (``counts``) of all terms are averaged over the processes in one collective call.
    With gradients averaged by DDP this equals one process that holds the whole batch.

    Attributes:
        name: Key of the term in the loss dict; auxiliary outputs add ``_{i}``.
        row: Config key of the weight.
        is_optional: Models have the term only with a weight above 0.
        num_counts: n. It must not depend on the batch, as all processes must reduce tensors of the
            same size.
        weight: Factor of the term in the training loss.
    """

    name: ClassVar[str]
    row: ClassVar[str]
    is_optional: ClassVar[bool] = False
    num_counts: int = 1

    def __init__(self, weight: float) -> None:
        """Keep the weight."""
        self.weight = weight

    @classmethod
    def is_enabled(cls, cfg: Any) -> bool:
        """Whether models of this config have the term: an optional one with a weight above 0."""
        return not cls.is_optional or attrgetter(cls.row)(cfg) > 0

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``; in the base class the weight, from the config key ``row``."""
        return {"weight": attrgetter(cls.row)(cfg)}

    @abstractmethod
    def counts(self, scene: Scene) -> Tensor:
        """Numbers of this process that the sums are divided by, (K, n); zeros without objects.

        K is 1 for a term with a single value for all decoder outputs.
        """

    @abstractmethod
    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Value of the term at each decoder output, without its weight, (K,).

        Without objects it must be a zero with a gradient path, so that no parameter is unused.

        Args:
            scene: The batch.
            normalizers: ``floor`` of the mean of ``counts`` over the processes, (K, n). The sum has
                n parts, and each part is divided by its own normalizer.
        """

    def floor(self, means: Tensor) -> Tensor:
        """Limit the normalizers from below, to avoid a division by zero: here to at least 1."""
        return means.clamp(min=1)


def build_terms(cfg: Any) -> list[LossTerm]:
    """All registered terms that a config enables, built with its settings."""
    enabled = [term for _, term in LOSS_TERM_REGISTRY if term.is_enabled(cfg)]
    return [term(**term.from_config(cfg)) for term in enabled]


def replace_terms(terms: Sequence[LossTerm], others: Sequence[LossTerm]) -> list[LossTerm]:
    """Replace terms of a list by others of the same name, and append the rest.

    Args:
        terms: The list.
        others: Terms that replace the one of their name, or are appended.
    """
    by_name = {term.name: term for term in terms}
    by_name.update((term.name, term) for term in others)
    return list(by_name.values())


def shared_normalizers(terms: Sequence[LossTerm], scene: Scene) -> dict[str, Tensor]:
    """Normalizers of all terms by name, (K, n) each, with one reduction over the processes.

    Raises:
        ValueError: ``counts`` of a term has another width than its ``num_counts``.
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
        normalizers: From ``shared_normalizers``.

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
