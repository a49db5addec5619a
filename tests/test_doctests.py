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
COMPLETE = ("maskfreevis_ext.ops.",)


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
    if name.startswith(COMPLETE):
        public = {
            f"{name}.{function_name}"
            for function_name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == name and not function_name.startswith("_")
        }
        assert public <= with_example, f"no example: {sorted(public - with_example)}"
