"""Windows around boxes: places, crops, profiles, and the way back into the frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskfreevis_ext.pseudo.windows import pixel_box, place_windows

SIZE = (60, 100)


def test_window_is_a_square_around_the_box() -> None:
    windows = place_windows(np.array([[[10, 20, 50, 40]]]), SIZE, 16, margin=1.5)
    assert windows.places[0, 0].tolist() == [30, 30, 60]
    assert windows.is_present.tolist() == [[True]]


def test_window_of_a_small_box_has_a_least_side() -> None:
    windows = place_windows(np.array([[[10, 20, 14, 22]]]), SIZE, 16, margin=1.5)
    assert windows.places[0, 0].tolist() == [12, 21, 36]


def test_absent_object_has_an_empty_profile() -> None:
    windows = place_windows(np.array([[[0, 0, 0, 0], [10, 20, 50, 40]]]), SIZE, 16, margin=1.5)
    assert windows.is_present.tolist() == [[False, True]]
    profiles = windows.profiles()
    assert profiles[0, 0].sum() == 0
    assert profiles[0, 1].sum() > 0
    assert windows.to_frame(np.ones((16, 16)), 0, 0).sum() == 0


def test_profiles_are_the_shares_of_the_box() -> None:
    # 60 pixels in 20 cells: 3 pixels a cell; the box begins 10 pixels into the window
    windows = place_windows(np.array([[[10, 20, 50, 40]]]), SIZE, 20, margin=1.5)
    rows, cols = windows.profiles()[0, 0]
    assert cols.sum() * 3 == pytest.approx(40)
    assert rows.sum() * 3 == pytest.approx(20)
    assert cols[2] == 0
    assert cols[3] == pytest.approx(2 / 3)
    assert cols[4] == 1


def test_inside_frame_tells_cells_beyond_the_border() -> None:
    windows = place_windows(np.array([[[0, 0, 40, 40]]]), SIZE, 20, margin=1.5)
    inside = windows.inside_frame()[0, 0]
    assert not inside[:3].any()
    assert not inside[:, :3].any()
    assert not inside[4:, 4:].logical_not().any()


def test_crop_and_back_keep_the_place() -> None:
    picture = np.zeros(SIZE, np.float32)
    picture[22:38, 15:45] = 1
    windows = place_windows(np.array([[[12, 20, 48, 40]]]), SIZE, 54, margin=1.5)  # 1 cell a pixel
    crop = windows.crop(picture, 0, 0, 54)
    assert crop.shape == (54, 54)
    np.testing.assert_allclose(windows.to_frame(crop, 0, 0), picture, atol=1e-4)


@pytest.mark.parametrize("grid", [27, 40, 108])
def test_other_scales_do_not_shift(grid: int) -> None:
    ramp = np.tile(np.arange(SIZE[1], dtype=np.float32), (SIZE[0], 1))
    windows = place_windows(np.array([[[32, 20, 68, 40]]]), SIZE, grid, margin=1.5)
    back = windows.to_frame(windows.crop(ramp, 0, 0, grid), 0, 0)
    np.testing.assert_allclose(back[20:40, 32:68], ramp[20:40, 32:68], atol=0.05)


def test_colours_are_cropped_together() -> None:
    picture = np.full((*SIZE, 3), (10, 20, 30), np.uint8)
    windows = place_windows(np.array([[[0, 0, 90, 50]]]), SIZE, 16, margin=1.6)
    assert np.array_equal(windows.crop(picture, 0, 0, 16), picture[:16, :16])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10.4, 5.6, 20.2, 9.7), (10, 6, 20, 10)),
        ((-5, -5, 200, 200), (0, 0, 100, 60)),
        ((99.8, 59.9, 100, 60), (99, 59, 100, 60)),
        ((3.1, 4.2, 3.3, 4.4), (3, 4, 4, 5)),
    ],
)
def test_pixel_box_has_a_pixel(box: tuple, expected: tuple) -> None:
    assert pixel_box(np.array(box, dtype=float), SIZE) == expected


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match=r"\(N, T, 4\)"):
        place_windows(np.zeros((2, 4)), SIZE, 16, 1.5)
    with pytest.raises(ValueError, match="margin"):
        place_windows(np.zeros((1, 2, 4)), SIZE, 16, 1.0)


def test_results_are_float32() -> None:
    windows = place_windows(np.array([[[10, 20, 50, 40]]]), SIZE, 16, margin=1.5)
    assert windows.profiles().dtype == torch.float32
    assert windows.to_frame(np.ones((16, 16)), 0, 0).dtype == np.float32


def test_cells_in_the_boxes_of_other_objects() -> None:
    boxes = np.array([[[10, 10, 34, 34]], [[20, 10, 44, 34]], [[0, 0, 0, 0]]], dtype=float)
    windows = place_windows(boxes, (64, 64), 32, 4 / 3)  # 1 pixel a cell, from (6, 6)
    covered = windows.covered_by_others([0, 2])
    assert covered.shape == (2, 1, 32, 32)
    expected = torch.zeros(32, 32)
    expected[4:28, 14:32] = 1
    torch.testing.assert_close(covered[0, 0], expected)
    assert 0 < covered[1].mean() < 1  # the window of an absent object is the whole frame
