"""Counts what would make a GPU wait, on a machine without one: "meta" stands for the GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operators whose result the CPU needs at once; on a GPU each of them waits.
_SYNCS = (
    "nonzero",
    "item",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
)


class CountTransfers(TorchDispatchMode):
    """Counts copies from the CPU to a device; an operator on it that waits is an error.

    The device is "meta", whose tensors have no values: what needs one fails there as well.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run the operator, and look at the devices of what goes in and comes out."""
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = [x for x in inputs if x.device == self.device]
        name = func.overloadpacket.__name__
        if on_device and name in _SYNCS:
            raise AssertionError(f"{func} on {self.device} waits for the device.")
        has_bool_index = name in ("index", "index_put", "index_put_") and any(
            x.dtype in (torch.bool, torch.uint8) for x in tree_leaves(args[1]) if x is not None
        )
        if on_device and has_bool_index:
            raise AssertionError(f"{func} with a mask on {self.device} waits for the device.")
        out = func(*args, **(kwargs or {}))
        is_copy = name in ("_to_copy", "copy_", "copy")
        results = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        if is_copy and any(x.device == self.device for x in results):
            self.count += any(x.device != self.device for x in inputs)
        return out
