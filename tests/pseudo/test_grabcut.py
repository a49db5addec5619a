"""GrabCut from boxes: an object of its own colour is found, absent frames are empty."""

from __future__ import annotations

import numpy as np

from maskfreevis_ext.pseudo.grabcut import GrabCutMasks


def test_disc_of_its_own_colour_is_found() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    disc = (rows - 30) ** 2 + (columns - 40) ** 2 < 15**2
    colour = np.where(disc[..., None], [200, 40, 40], [60, 90, 160])
    frame = np.clip(colour + rng.normal(0, 6, (60, 80, 3)), 0, 255).astype(np.uint8)
    boxes = np.array([[[26.0, 16, 55, 45], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    masks = GrabCutMasks([frame, frame], boxes)
    found = masks.mask(0, 0)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert masks.confidence(0) > 0.9
    assert not masks.mask(0, 1).any()
    assert masks.confidence(1) == 0.0
