"""A machine without enough memory, faked: one error that names the keys to lower."""

from __future__ import annotations

import cv2
import pytest
import torch

from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import MaskFreeError
from maskfreevis_ext.ops.clip import frame_probabilities
from maskfreevis_ext.out_of_memory import (
    OutOfMemoryError,
    explain_out_of_memory,
    is_out_of_memory,
    once_more,
    prediction_hints,
    training_hints,
)
from tests.helpers.training import CONFIG

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    cv2.error("OpenCV: Insufficient memory (Failed to allocate 9 bytes)"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("training", [False, True])
def test_keys_are_named_with_their_values(error, training):
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", "6"])
    hints = training_hints(cfg) if training else prediction_hints(cfg)
    with pytest.raises(OutOfMemoryError) as raised, explain_out_of_memory(hints):
        raise error
    assert isinstance(raised.value, MaskFreeError)  # the command line prints one line, exit code 2
    text = str(raised.value)
    assert "\n" not in text
    keys = ["SOLVER.IMS_PER_BATCH (6; with 3", f"({cfg.INPUT.SAMPLING_FRAME_NUM}; one less"]
    if not training:
        keys = [f"TEST.WINDOW.SIZE ({cfg.TEST.WINDOW.SIZE} frames", "INPUT.MIN_SIZE_TEST"]
    for key in keys:
        assert key in text


def test_other_errors_pass():
    error = ValueError("out of memory")
    assert not is_out_of_memory(error)
    with pytest.raises(ValueError, match="out of") as raised:
        with explain_out_of_memory([]):
            raise error
    assert raised.value is error


def test_last_steps_of_a_prediction_are_tried_once_more(monkeypatch):
    resize, failures = torch.nn.functional.interpolate, [ERRORS[2]]

    def interpolate(*args, **kwargs):
        if failures:
            raise failures.pop()
        return resize(*args, **kwargs)

    sizes = ((8, 8), (8, 6), (4, 3))
    logits = torch.randn(2, 4, 4)
    expected = frame_probabilities(logits, *sizes)
    monkeypatch.setattr("torch.nn.functional.interpolate", interpolate)
    assert torch.equal(frame_probabilities(logits, *sizes), expected)
    assert not failures
    failures += [ERRORS[2], ERRORS[2]]
    with pytest.raises(RuntimeError, match="allocate"):
        frame_probabilities(logits, *sizes)


def test_other_errors_are_not_tried_again():
    calls = []

    def fail(value):
        calls.append(value)
        raise ValueError("out of range")

    with pytest.raises(ValueError, match="range"):
        once_more(fail)(3)
    assert calls == [3]
