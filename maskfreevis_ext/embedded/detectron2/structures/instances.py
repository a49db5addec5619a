"""``Instances``: fields of the same length that belong to the objects of one image."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Instances:
    """A table with one row per object of an image.

    Fields are set and read as attributes and must have one entry per object. Indexing selects rows
    of every field.

    Args:
        image_size: (height, width).
        **kwargs: First fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self._image_size

    def __setattr__(self, name: str, val: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, val)
        else:
            self.set(name, val)

    def __getattr__(self, name: str) -> Any:
        # "_fields" itself is missing while pickle or copy builds an empty object.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Instances has no field '{name}'.")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field.

        Raises:
            AssertionError: Its length is not that of the other fields.
        """
        if self._fields and len(value) != len(self):
            raise AssertionError(
                f"Field '{name}' has {len(value)} entries, but there are {len(self)} instances."
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Drop a field."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """A field by name."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields; changing the dict changes this object."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields went through their own ``to``, where they have one."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"Row {item} of {len(self)} instances.")
            item = slice(item, None, len(self))  # a slice keeps the row as a list of one
        selected = Instances(self._image_size)
        for name, value in self._fields.items():
            selected.set(name, value[item])
        return selected

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without a field have no length.")

    def __iter__(self) -> Any:
        raise NotImplementedError("Instances cannot be iterated over; index them.")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        height, width = self._image_size
        count = len(self) if self._fields else 0
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, "
            f"fields=[{fields}])"
        )
