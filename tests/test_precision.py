"""Which types of mixed precision a device can use."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.precision import amp_dtype_of, cpu_multiplies_bfloat16, why_no_amp


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, False),  # PyTorch would emulate it
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_needs_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert cpu_multiplies_bfloat16() == expected
    assert (why_no_amp("bfloat16", "cpu") == "") == expected


def test_a_torch_that_cannot_tell_has_no_bfloat16(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not cpu_multiplies_bfloat16()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_float16_is_for_gpus_only(device):
    with pytest.raises(ConfigError, match=rf"A\.KEY.*MODEL\.DEVICE {device}.*got float16"):
        amp_dtype_of("A.KEY", "float16", device)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_gpus_use_both_types(name):
    assert amp_dtype_of("A.KEY", name, "cuda:1") is getattr(torch, name)


def test_unknown_type_is_refused():
    with pytest.raises(ConfigError, match=r"A\.KEY: expected one of float16, bfloat16, got 'half'"):
        amp_dtype_of("A.KEY", "half", "cuda")
