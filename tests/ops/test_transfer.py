"""Many tensors in one copy: values, shapes, dtypes, and that nothing is shared with the input."""

from __future__ import annotations

import torch

from maskfreevis_ext.ops.transfer import send_together
from tests.helpers.transfers import CountTransfers

CPU, META = torch.device("cpu"), torch.device("meta")


def _tensors() -> list[torch.Tensor]:
    return [
        torch.tensor([True, False, True]),
        torch.tensor([[2**53, -1]]),
        torch.zeros(0, 3, dtype=torch.int64),
        torch.linspace(0, 1, 7).view(7, 1),
        torch.ones(2, 3, 5, dtype=torch.bool).transpose(0, 2),
        torch.tensor(4.5, dtype=torch.float64),
    ]


def test_values_shapes_and_dtypes_are_those_of_the_input() -> None:
    for sent, given in zip(send_together(_tensors(), CPU), _tensors(), strict=True):
        assert sent.dtype == given.dtype
        assert torch.equal(sent, given)


def test_result_does_not_share_memory_with_the_input() -> None:
    (given,) = torch.ones(1, 3)
    (sent,) = send_together([given], CPU)
    sent.zero_()
    assert given.tolist() == [1, 1, 1]


def test_there_is_one_transfer_whatever_the_count() -> None:
    with CountTransfers(META) as transfers:
        sent = send_together(_tensors(), META)
    assert transfers.count == 1
    assert [x.shape for x in sent] == [x.shape for x in _tensors()]
    assert all(x.device == META for x in sent)


def test_no_tensors_need_no_transfer() -> None:
    with CountTransfers(META) as transfers:
        assert send_together([], META) == []
    assert transfers.count == 0


def test_expanded_tensor_of_one_element() -> None:
    given = torch.tensor([[5, 7]])[:, 1].expand(1, 1)
    (sent,) = send_together([given], CPU)
    assert sent.tolist() == [[7]]
