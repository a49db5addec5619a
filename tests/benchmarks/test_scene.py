"""The generated clips: they depend on the seed, and are neither too easy nor too hard."""

from __future__ import annotations

import torch

from benchmarks.options import parse_args
from benchmarks.scene import make_scene, pass_rates


def test_scene_depends_on_the_seed_only_and_fits_the_frame() -> None:
    args = parse_args(["criterion", "--height", "100", "--width", "150"])
    scene, again = make_scene(args), make_scene(args)
    assert torch.equal(scene.images, again.images)
    assert torch.equal(scene.masks, again.masks)
    assert scene.image_size == (128, 160)
    assert not scene.frames[..., 100:, :].any()
    for target in scene.targets:
        assert target["boxes"].amin() >= 0
        assert target["boxes"][..., 2].amax() <= 150
        assert target["boxes"][..., 3].amax() <= 100
        assert target["ids"][-1].tolist() == [4, 4, -1]
        areas = (target["boxes"][..., 2:] - target["boxes"][..., :2]).prod(-1)[:-1]
        assert areas.amin() > 0
        assert areas.amax() > 2 * areas.amin()
    rates = pass_rates(scene, [(0, 1), (0, 2), (1, 2)])
    assert 0.2 < rates["edges"] < 0.9
    assert 0.02 < rates["matches"] < 5 / 9
    other = make_scene(parse_args(["criterion", "--seed", "1"]))
    assert not torch.equal(scene.images[..., :90, :90], other.images[..., :90, :90])
