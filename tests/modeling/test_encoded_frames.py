"""Encoded frames joined from parts."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.modeling.encoded_frames import EncodedFrames


def _frames(count: int, form: torch.memory_format) -> EncodedFrames:
    maps = [torch.randn(count, 4, size, size + 1) for size in (8, 4)]
    features, level = (each.contiguous(memory_format=form) for each in maps)
    return EncodedFrames(features, [level])


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_join_keeps_values_and_memory_format(form: torch.memory_format) -> None:
    parts = [_frames(2, form), _frames(1, form), _frames(2, form)]
    joined = EncodedFrames.join(iter(parts), 5)
    assert torch.equal(joined.mask_features, torch.cat([part.mask_features for part in parts]))
    assert torch.equal(joined.maps[0], torch.cat([part.maps[0] for part in parts]))
    assert joined.mask_features.is_contiguous(memory_format=form)
    assert joined.maps[0].is_contiguous(memory_format=form)


@pytest.mark.parametrize("counts", [[], [2], [2, 2]])
def test_join_refuses_another_number_of_frames(counts: list[int]) -> None:
    parts = (_frames(count, torch.contiguous_format) for count in counts)
    with pytest.raises(ValueError, match="3 frames"):
        EncodedFrames.join(parts, 3)
