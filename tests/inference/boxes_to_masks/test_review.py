"""The page: needs no other file, the first come first, its size has a limit."""

from __future__ import annotations

import re

from maskfreevis_ext.inference.boxes_to_masks import review
from maskfreevis_ext.inference.boxes_to_masks.pictures import Picture
from maskfreevis_ext.inference.boxes_to_masks.review import ReviewEntry, review_page


def _entry(track: int, confidence: float, frames: tuple[int, ...] = ()) -> ReviewEntry:
    pictures = [Picture(t, confidence, bytes(1000)) for t in range(3)]
    return ReviewEntry(
        track, "<v>", "cat & dog", confidence, confidence < 0.5, frames, "box 3", pictures
    )


def test_page_is_self_contained_and_escaped() -> None:
    page = review_page("a<b.json", [_entry(7, 0.2, (1, 2, 3, 9)), _entry(8, 0.9)], 2, 0.5)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "a&lt;b.json" in page
    assert "cat &amp; dog" in page
    assert "&lt;v&gt;" in page
    assert page.index('data-track="7"') < page.index('data-track="8"')
    assert "1\u20133, 9" in page
    assert "2 objects, the least certain first; 1 are doubtful" in page
    assert page.count("<figure") == 6
    assert "$" not in page


def test_size_has_a_limit(monkeypatch) -> None:
    monkeypatch.setattr(review, "MOST_BYTES", 7000)
    page = review_page("a", (_entry(track, 0.5) for track in range(10)), 10, 0.5)
    assert page.count("<section") == 2
    assert "the first 2 of 10 objects" in page
