"""Drawing: which pixels change, and where labels stand."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.inference.drawing import (
    SheetRow,
    _put_text,
    color_of,
    contact_sheet,
    draw_items,
    resize_frame,
    spread_indices,
)
from maskfreevis_ext.tracks import Item


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (120, 160, 3)).astype(np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((120, 160), dtype=bool)
    mask[30:80, 40:100] = True
    mask[50:60, 60:70] = False  # a hole
    return mask


def changed(frame: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return (frame != picture).any(-1)


def test_only_pixels_inside_the_mask_change(frame, mask):
    picture = draw_items(frame, [Item(1, mask=mask)])

    assert not changed(frame, picture)[~mask].any()
    assert changed(frame, picture)[mask].mean() > 0.98  # the rest had the colour already
    assert picture.dtype == np.uint8


def test_inside_is_a_blend_and_the_contour_is_the_colour(frame, mask):
    picture = draw_items(frame, [Item(4, mask=mask)], alpha=0.5)

    assert picture[30, 40].tolist() == list(color_of(4))  # corner
    assert picture[49, 65].tolist() == list(color_of(4))  # edge of the hole
    expected = 0.5 * frame[70, 80] + 0.5 * np.array(color_of(4))
    np.testing.assert_allclose(picture[70, 80], expected, atol=0.51)


def test_mask_that_fills_the_frame_has_its_contour_on_the_border(frame):
    picture = draw_items(frame, [Item(2, mask=np.ones((120, 160), dtype=bool))])

    assert (picture[0] == color_of(2)).all()
    assert (picture[:, -1] == color_of(2)).all()


def test_frame_stays_as_it_is(frame, mask):
    before = frame.copy()

    draw_items(frame[:, :, ::-1], [Item(1, "fish #1", mask)])  # not contiguous either

    assert (frame == before).all()


@pytest.mark.parametrize("item", [Item(1, "fish"), Item(1, "fish", np.zeros((120, 160), bool))])
def test_absent_object_draws_nothing(frame, item):
    assert (draw_items(frame, [item]) == frame).all()


def test_box_is_drawn_as_an_outline(frame):
    picture = draw_items(frame, [Item(3, box=(20.0, 30.0, 60.0, 70.0))])

    where = np.argwhere(changed(frame, picture))
    assert where.min(0).tolist() == [30, 20]
    assert where.max(0).tolist() == [69, 59]
    assert not changed(frame, picture)[33:67, 23:57].any()


def test_label_stands_beside_the_mask_inside_the_frame(frame, mask):
    plain = draw_items(frame, [Item(1, mask=mask)])
    labelled = draw_items(frame, [Item(1, "fish #1 0.90", mask)])

    rows, columns = np.nonzero(changed(plain, labelled))
    assert rows.max() < 30  # above the object, which starts at row 30
    assert 40 <= columns.mean() <= 100
    assert (labelled[rows.min(), columns.min() + 1] == color_of(1)).all()


@pytest.mark.parametrize("rows", [slice(0, 5), slice(110, 120), slice(0, 120)])
def test_label_at_the_edge_is_still_drawn(frame, rows):
    mask = np.zeros((120, 160), dtype=bool)
    mask[rows, 150:] = True

    plain, labelled = (draw_items(frame, [Item(1, text, mask)]) for text in ("", "fish"))

    assert changed(plain, labelled).sum() > 100


def test_labels_do_not_cover_each_other(mask):
    black = np.zeros((120, 160, 3), np.uint8)
    one, other = Item(1, "fish #1", mask), Item(2, "fish #2", mask)

    alone = changed(draw_items(black, [Item(1, "", mask)]), draw_items(black, [one]))
    both = changed(
        draw_items(black, [Item(1, "", mask), Item(2, "", mask)]), draw_items(black, [one, other])
    )

    assert both.sum() > 1.8 * alone.sum()


def test_long_label_on_a_tiny_frame_does_not_fail():
    tiny = np.zeros((9, 7, 3), np.uint8)

    picture = draw_items(tiny, [Item(1, "a very long name #1", np.ones((9, 7), bool))])

    assert picture.shape == tiny.shape


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
)
def test_frame_of_another_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a frame uint8"):
        draw_items(wrong, [])


def test_own_colour_and_outline(frame, mask):
    picture = draw_items(frame, [Item(1, "x", mask, color=(1, 2, 3), is_filled=False)])

    assert picture[30, 40].tolist() == [1, 2, 3]
    assert (picture[70, 80] == frame[70, 80]).all()
    assert not (picture == color_of(1)).all(-1).any()


def test_mask_of_another_size_is_refused(frame):
    with pytest.raises(ValueError, match=r"mask of size \[120, 160\], got \[5, 5\]"):
        draw_items(frame, [Item(1, mask=np.ones((5, 5), bool))])


def test_colours_are_stable_and_distinct():
    colours = [color_of(index) for index in range(30)]

    assert colours == [color_of(index) for index in range(30)]
    near = [np.abs(np.subtract(colours[i], colours[j])).max() for i in range(12) for j in range(i)]
    assert min(near) > 30


def test_resize_scales_mask_and_box(frame, mask):
    larger, items = resize_frame(frame, [Item(1, "x", mask, (1.0, 2.0, 3.0, 4.0)), Item(2)], 2)

    assert larger.shape == (240, 320, 3)
    assert items[0].mask.sum() == pytest.approx(4 * mask.sum(), rel=0.02)
    assert items[0].box == (2.0, 4.0, 6.0, 8.0)
    assert items[1].mask is None


def test_sheet_holds_every_cell(frame):
    small = np.full((60, 40, 3), (10, 200, 30), np.uint8)
    rows = [
        SheetRow("one", [frame, frame], ["frame 0", "frame 7"]),
        SheetRow("two", [small], ["frame 0"]),
        SheetRow("none", []),
    ]

    sheet = contact_sheet(rows, cell_height=60)

    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 6 + 2 * (80 + 6)  # the widest cell is 160 x 60 / 120 wide
    green = (sheet == (10, 200, 30)).all(-1)
    assert green.sum() == small[..., 0].size
    assert (sheet[-1] == 255).all()


def test_legend_stands_above_the_rows(frame):
    rows = [SheetRow("one", [frame])]

    plain, with_legend = contact_sheet(rows), contact_sheet(rows, legend="word " * 40)

    added = with_legend.shape[0] - plain.shape[0]
    assert (with_legend[added + 6 :] == plain[6:]).all()
    assert (with_legend[: added // 2] != 255).any()
    assert (with_legend[added // 2 : added] != 255).any()


def test_sheet_without_cells_is_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        contact_sheet([SheetRow("empty", [])])


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [
        (10, 4, [0, 3, 6, 9]),
        (3, 6, [0, 1, 2]),
        (1, 6, [0]),
        (0, 6, []),
        (5, 1, [0]),
        (5, 0, []),
        (2, 2, [0, 1]),
    ],
)
def test_spread_indices(length, count, expected):
    assert spread_indices(length, count) == expected


@pytest.mark.parametrize("letters", ["车狗人", "ЖЯф", "همق", "가한국", "かなカ", "αβω", "éßł"])
def test_letters_of_other_scripts_are_drawn(letters: str) -> None:
    def drawn(text: str) -> bytes:
        picture = np.zeros((60, 80, 3), np.uint8)
        _put_text(picture, text, (5, 45), 1.0, (255, 255, 255))
        return picture.tobytes()

    # OpenCV draws a question mark for what it has no glyph for.
    pictures = [drawn(letter) for letter in [*letters, "?", " "]]
    assert len(set(pictures)) == len(pictures)
