"""Peak memory of this process, or of its GPU."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")  # Linux
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts to watch when it is made.

    On a GPU the allocations of PyTorch count. On the CPU the resident memory of the process; where
    the system cannot forget an old peak, a peak before the start counts too.

    Attributes:
        start: Bytes at the start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
            return
        _give_back_freed()
        try:
            _CLEAR.write_text("5")  # the peak becomes the present value
        except OSError:
            pass
        self.start = _resident("VmRSS")

    def peak_extra(self) -> int:
        """Largest number of bytes since the start, less ``start``."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self.start
        return _resident("VmHWM") - self.start


def _give_back_freed() -> None:
    """Return what was freed to the system: kept by the C library, it would count as the start."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024  # "123 kB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
