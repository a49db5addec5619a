"""Data sets by name: how to load them, and facts such as their class names."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any


class _Catalog:
    """Entries by the names of data sets."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def list(self) -> list[str]:
        """Names of all entries."""
        return list(self._entries)

    def remove(self, name: str) -> None:
        """Forget an entry.

        Raises:
            KeyError: There is none of this name.
        """
        del self._entries[name]


class _DatasetCatalog(_Catalog):
    """Names of data sets and the functions that load them."""

    def register(self, name: str, func: Callable[[], list[dict[str, Any]]]) -> None:
        """Give a data set a name.

        Args:
            name: A name that is not taken.
            func: Returns the data set as a list of dicts, the same at every call.

        Raises:
            AssertionError: The name is taken, or ``func`` cannot be called.
        """
        if not callable(func):
            raise AssertionError(f"Data set '{name}': expected a function, got {type(func)}.")
        if name in self:
            raise AssertionError(f"Data set '{name}' is already registered.")
        self._entries[name] = func

    def get(self, name: str) -> list[dict[str, Any]]:
        """Load a data set.

        Raises:
            KeyError: There is none of this name; the message lists those there are.
        """
        if name not in self:
            raise KeyError(
                f"Data set '{name}' is not registered. Registered are: {', '.join(self._entries)}"
            )
        return self._entries[name]()


class Metadata(types.SimpleNamespace):
    """Facts about a data set, as attributes. A fact that was set once cannot be changed."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(
            f"The metadata of data set '{self.name}' has no '{key}', only {sorted(self.__dict__)}."
        )

    def __setattr__(self, key: str, val: Any) -> None:
        if key in self.__dict__:
            if self.__dict__[key] != val:
                raise AssertionError(
                    f"The metadata of '{self.name}' has {key} = {self.__dict__[key]} already, "
                    f"which cannot become {val}."
                )
            return
        super().__setattr__(key, val)

    def set(self, **kwargs: Any) -> Metadata:
        """Set several facts; returns itself."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """A fact, or ``default`` where it is not known."""
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    """Names of data sets and their metadata."""

    def get(self, name: str) -> Metadata:
        """The metadata of a data set; empty at the first call with a new name.

        Raises:
            AssertionError: The name is empty.
        """
        if not name:
            raise AssertionError("A data set's name cannot be empty.")
        return self._entries.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
