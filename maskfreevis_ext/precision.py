"""Mixed precision: the types that autocast computes in, and which of them a device is fast in."""

from __future__ import annotations

import torch

from maskfreevis_ext.errors import ConfigError

#: Name in configs → type.
AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

#: Instructions of processors that multiply bfloat16, as PyTorch names them (x86, then ARM).
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16.

    PyTorch runs bfloat16 on any processor; without these instructions it is slower than float32.
    """
    capabilities: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older versions lack it
    return any(capabilities.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


def why_no_amp(name: str, device: str) -> str:
    """Why a type of mixed precision is of no use on a device; "" if it can be used.

    Args:
        name: A key of ``AMP_DTYPES``.
        device: MODEL.DEVICE, such as "cpu" or "cuda:0".

    Example:
        >>> why_no_amp("bfloat16", "cuda")
        ''
        >>> why_no_amp("float16", "cpu")
        'float16 needs a GPU; a CPU with the instructions for it runs bfloat16'
    """
    kind = device.split(":")[0]
    if kind == "cuda":
        return ""
    if name == "float16":
        return "float16 needs a GPU; a CPU with the instructions for it runs bfloat16"
    if kind == "cpu" and cpu_multiplies_bfloat16():
        return ""
    return f"the {kind} device has no instructions for bfloat16"


def amp_dtype_of(key: str, name: str, device: str) -> torch.dtype:
    """The type of mixed precision that a config names.

    Args:
        key: Name of the config key, for the error.
        name: Its value.
        device: MODEL.DEVICE.

    Raises:
        ConfigError: The value is not a type of mixed precision, or the device cannot use it.
    """
    if name not in AMP_DTYPES:
        raise ConfigError(f"{key}: expected one of {', '.join(AMP_DTYPES)}, got {name!r}.")
    reason = why_no_amp(name, device)
    if reason:
        raise ConfigError(
            f"{key}: expected a type that MODEL.DEVICE {device} computes in, got {name}: {reason}."
        )
    return AMP_DTYPES[name]


def is_mixed(device_type: str) -> bool:
    """Whether autocast is on for a type of device; never on those that have none, such as "meta".

    Args:
        device_type: Such as "cpu".
    """
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
