"""The weights of a classifier, matched with the classes of a training by their names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.data.json_fields import short
from maskfreevis_ext.data.label_spaces import plain_name
from maskfreevis_ext.errors import NumericError, first_few

logger = logging.getLogger(__name__)

#: Ends of the names of weights whose first axis are the classes, then "no object".
_CLASSIFIER = ("class_embed.weight", "class_embed.bias")


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two lists of class names are equal, case and punctuation aside.

    Args:
        first: Class names.
        second: Class names.
    """
    return [plain_name(name) for name in first] == [plain_name(name) for name in second]


def fitting_classifier(weights: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    """Names of the classifier's weights that are in a file and in a model.

    Args:
        weights: Weights of the file.
        state: State of the model.
    """
    return [
        name
        for name, value in weights.items()
        if name.endswith(_CLASSIFIER)
        and name in state
        and value.ndim > 0
        and value.shape[1:] == state[name].shape[1:]
    ]


def has_classes(state: Mapping[str, Any], count: int) -> bool:
    """Whether the classifiers among some weights have a number of classes, if there are any.

    Args:
        state: State of a model, or weights of a file.
        count: Number of classes, without "no object".
    """
    return all(
        value.ndim > 0 and len(value) == count + 1
        for name, value in state.items()
        if name.endswith(_CLASSIFIER)
    )


def match_classifier(
    weights: MutableMapping[str, Any],
    state: Mapping[str, Tensor],
    names: Sequence[str],
    wanted: Sequence[str],
) -> None:
    """Bring the rows of a classifier into the order of other classes, in place.

    A class that the file does not know keeps the model's initial row.

    Args:
        weights: Weights of the file, changed in place.
        state: State of the model.
        names: Classes of the file.
        wanted: Classes of the model.
    """
    if same_names(names, wanted):
        return
    of_name = {plain_name(name): row for row, name in enumerate(names)}
    pairs = [(row, of_name.get(plain_name(name))) for row, name in enumerate(wanted)]
    known = [(row, source) for row, source in pairs if source is not None]
    for key in fitting_classifier(weights, state):
        value, target = torch.as_tensor(weights[key]), state[key].detach().cpu().clone()
        if len(value) != len(names) + 1 or len(target) != len(wanted) + 1:
            continue
        target[-1] = value[-1]  # "no object"
        for row, source in known:
            target[row] = value[source]
        weights[key] = target
    new = [wanted[row] for row, source in pairs if source is None]
    logger.info(
        "The weights know %d of the %d classes, which are matched by name%s.",
        len(known),
        len(wanted),
        f"; new are {short(new)}" if new else "",
    )


def check_finite(weights: Mapping[str, Tensor], filename: str) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        weights: By name.
        filename: Their file, for the message.

    Raises:
        NumericError: Some are not finite; names the first of them.
    """
    bad = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if bad:
        raise NumericError(
            f"Weights file {filename}: expected finite numbers, got NaN or Inf in {len(bad)} of"
            f" {len(weights)} weights: {first_few(bad, 3)}. Take an earlier checkpoint."
        )
