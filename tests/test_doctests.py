"""The examples in the docstrings of operators and losses give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

from maskfreevis_ext import losses, ops

#: Packages in which every public function of a module must have an example.
COMPLETE = ("maskfreevis_ext.ops.", "maskfreevis_ext.losses.")

#: Functions that only put the parts of a training step together; the tests of the criterion and
#: docs/extending.md show them at work.
PLUMBING = {
    *("best_by_boxes", "matched_masks", "zero_anchor", "sam2_sums", "require_shape"),
    *("build_terms", "replace_terms", "shared_normalizers", "weighted_losses"),
    *("spatial_inputs", "spatial_terms", "spatial_pairs", "temporal_pairs", "is_available"),
}


def modules_of(package: ModuleType) -> list[str]:
    """Names of a package and of all modules in it."""
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return [package.__name__, *(module.name for module in found)]


@pytest.mark.parametrize("name", [*modules_of(ops), *modules_of(losses)])
def test_examples_are_right_and_present(name: str) -> None:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    with_example = set()
    for test in finder.find(module, name):
        if test.examples:
            with_example.add(test.name)
            runner.run(test)
    assert runner.summarize().failed == 0
    if name.startswith(COMPLETE) and not name.endswith(".triton"):  # as dense
        public = {
            f"{name}.{function_name}"
            for function_name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == name
            and not function_name.startswith("_")
            and function_name not in PLUMBING
        }
        assert public <= with_example, f"no example: {sorted(public - with_example)}"
