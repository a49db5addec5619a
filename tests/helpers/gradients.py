"""The rule that every public function with a gradient is compared with finite differences."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType

import torch
from torch import Tensor

#: A function, and the tensors (float64) in which its gradient is checked.
GradientCase = tuple[Callable[..., Tensor | tuple[Tensor, ...]], tuple[Tensor, ...]]


def wanting(*shape: int, scale: float = 1.0) -> Tensor:
    """Random float64 numbers with a gradient."""
    return (torch.randn(*shape, dtype=torch.float64) * scale).requires_grad_()


def check(case: GradientCase) -> None:
    """Compare the gradient with finite differences.

    Raises:
        AssertionError: They differ, or there is no gradient.
    """
    function, inputs = case
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6, rtol=1e-4)


def assert_all_have_a_case(
    functions: set[str], cases: Iterable[str], reasons: Iterable[str]
) -> None:
    """Every function has cases (``module.function``, or that and a word) or a reason for none.

    Raises:
        AssertionError: One has neither or both, or is no function of the package.
    """
    checked, without = {name.split(" ")[0] for name in cases}, set(reasons)
    assert functions - checked - without == set()
    assert checked | without <= functions
    assert not checked & without


def public_functions(package: ModuleType, apart_from: Iterable[str] = ()) -> set[str]:
    """``module.function`` of all public functions that the modules of a package define."""
    found = set()
    for item in pkgutil.iter_modules(package.__path__):
        if item.ispkg or item.name in apart_from:
            continue
        module = importlib.import_module(f"{package.__name__}.{item.name}")
        found |= {
            f"{item.name}.{name}"
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    return found
