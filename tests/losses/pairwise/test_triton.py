"""Where the Triton sums cannot run, the plain ones are taken and a call says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from maskfreevis_ext.losses.pairwise import triton

CPU = torch.device("cpu")
LOGITS = torch.zeros(1, 1, 2, 3, 4)
BOXES = torch.ones(1, 2, 3, 4)
CASES = {
    "spatial_pairwise_sums": (
        [torch.ones(1, 2, 3, 3, dtype=torch.bool)],
        [(0, 1)],
        BOXES,
    ),
    "temporal_pairwise_sums": (
        torch.ones(1, 1, 1, 3, 4, dtype=torch.bool),
        [(0, 1)],
        [(0, 1)],
        BOXES[:, 0],
    ),
}


def test_import_works_where_triton_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from maskfreevis_ext.losses.pairwise import triton\n"
        "assert not triton.is_available(torch.device('cpu'))\n"
        "assert not triton.is_available(torch.device('cuda'))\n"
        "triton.spatial_pairwise_sums, triton.temporal_pairwise_sums\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", CASES)
def test_without_triton_a_call_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "triton", None)
    assert not triton.is_available(CPU)
    with pytest.raises(RuntimeError, match="needs Triton, which cannot be imported"):
        getattr(triton, name)(LOGITS, *CASES[name])


def test_device_without_a_driver_is_not_available() -> None:
    if torch.cuda.is_available():
        assert not triton.is_available(torch.device("meta"))
    else:
        assert not triton.is_available(torch.device("cuda"))


def test_kernels_whose_gradient_does_not_compile_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ForwardOnly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, *others):
            return logits.sum((2, 3, 4)), logits.new_ones(1)

        @staticmethod
        def backward(ctx, *upstream):
            raise RuntimeError("no compiler")

    monkeypatch.setattr(triton, "_PairSums", ForwardOnly)
    assert not triton._runs_on.__wrapped__(CPU)
