"""Windows: what they read, what they give, and that one window is the whole clip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError, DataError, NumericError
from maskfreevis_ext.inference.video_model import VideoModel
from maskfreevis_ext.inference.window import (
    WindowSettings,
    encoded_windows,
    iterate_windows,
)
from tests.helpers.color_model import ColorModel, draw_frames
from tests.helpers.configs import tiny_cfg
from tests.helpers.fill import fill_module

HEADS = ("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True)


def _tensors(frames: list[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(frame.transpose(2, 0, 1).copy()) for frame in frames]


def _random_frames(count: int, size: tuple[int, int] = (41, 67)) -> list[Tensor]:
    return list(torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8))


def _moving(count: int) -> list[np.ndarray]:
    """Three squares that cross each other's columns."""
    return draw_frames([(t, 30 - t, (2 * t) % 34) for t in range(count)])


@pytest.fixture(scope="module", params=["plain", "heads"])
def model(request) -> nn.Module:
    """A tiny model whose queries differ, without or with auxiliary heads."""
    built = build_model(tiny_cfg(*(HEADS if request.param == "heads" else ()))).eval()
    fill_module(built)
    return built


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 4), (5, 5), (9, 16)])
def test_one_window_equals_the_whole_clip_bit_for_bit(model, mode, count, size) -> None:
    video = {"image": _random_frames(count), "height": 50, "width": 81, "video_id": 3}
    whole = model([video])[0]
    settings = WindowSettings(mode, size=size, stride=size, above=0)
    windowed = VideoModel(model, settings)([video])[0]

    assert windowed["image_size"] == whole["image_size"]
    assert windowed["pred_scores"] == whole["pred_scores"]
    assert windowed["pred_labels"] == whole["pred_labels"]
    assert len(windowed["pred_masks"]) == len(whole["pred_masks"]) == 10
    for masks, expected in zip(windowed["pred_masks"], whole["pred_masks"], strict=True):
        assert len(masks) == count
        assert all(np.array_equal(masks[t], expected[t]) for t in range(count))
    assert any(expected.any() for expected in whole["pred_masks"])
    assert windowed.keys() == whole.keys()
    if "dynamic_mask" in whole:
        assert torch.equal(windowed["dynamic_mask"], whole["dynamic_mask"])


def test_windows_of_a_model_with_heads_give_every_frame_and_are_deterministic(model) -> None:
    frames = _random_frames(11)
    settings = WindowSettings(size=4, stride=3)
    first, again = (list(iterate_windows(model, frames, (41, 67), settings)) for _ in range(2))

    assert [result.start for result in first] == [0, 4, 7, 10]
    assert sum(result.num_frames for result in first) == 11
    for one, other in zip(first, again, strict=True):
        assert [t.track_id for t in one.tracks] == [t.track_id for t in other.tracks]
        for t in range(one.num_frames):
            assert torch.equal(one.masks(t), other.masks(t))
    if model.heads:
        got = torch.cat([result.extras["dynamic_mask"] for result in first])
        whole = model([{"image": frames}])[0]["dynamic_mask"]
        # the head sees each frame by itself; groups of another size round differently
        assert (got.int() - whole.int()).abs().max() <= 1


def test_videos_up_to_the_threshold_are_processed_at_once(model) -> None:
    for mode, above, is_whole in (("offline", 5, True), ("offline", 4, False), ("off", 0, True)):
        result = VideoModel(model, WindowSettings(mode, above=above))(
            [{"image": _random_frames(5), "video_id": 1}]
        )[0]
        assert isinstance(result["pred_masks"][0], Tensor) is is_whole, (mode, above)


@pytest.mark.parametrize(
    ("count", "size", "stride", "expected"),
    [
        (8, 4, 2, [(0, 4, 4), (2, 4, 2), (4, 4, 2)]),
        (7, 4, 2, [(0, 4, 4), (2, 4, 2), (3, 4, 1)]),  # the last window overlaps more
        (3, 4, 2, [(0, 3, 3)]),
        (3, 1, 1, [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
        (5, 2, 2, [(0, 2, 2), (2, 2, 2), (3, 2, 1)]),
        (0, 4, 2, []),
    ],
)
def test_windows_have_the_frames_they_should(count, size, stride, expected) -> None:
    frames = list(torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 4, 4))
    model = ColorModel()
    found = []
    for encoded, num_new in encoded_windows(model, frames, size, stride):
        numbers = encoded.mask_features[:, 0, 0, 0].int().tolist()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert encoded.maps[0][:, 0, 0, 0].int().tolist() == numbers
        found.append((numbers[0], len(numbers), num_new))
    assert found == expected
    assert model.num_encoded == count  # each frame once


def test_frames_are_read_when_they_are_needed() -> None:
    read = 0

    def source() -> Iterator[Tensor]:
        nonlocal read
        for frame in _tensors(_moving(12)):
            read += 1
            yield frame

    settings = WindowSettings(size=4, stride=2)
    for result in iterate_windows(ColorModel(), source(), (20, 40), settings):
        assert read == result.start + result.num_frames


@pytest.mark.parametrize(
    ("size", "stride", "same_embeddings"),
    [(1, 1, False), (4, 4, False), (4, 2, False), (4, 2, True), (5, 3, True), (3, 1, True)],
)
def test_ids_stay_with_their_objects(size, stride, same_embeddings) -> None:
    """By the embeddings, or by the masks alone where embeddings are equal and windows overlap."""
    frames = _moving(14)
    model = ColorModel(same_embeddings=same_embeddings)
    settings = WindowSettings(size=size, stride=stride)
    by_id: dict[int, set[int]] = {}
    for result in iterate_windows(model, _tensors(frames), (20, 40), settings):
        for tracks in result.frames():
            expected = draw_frames([(tracks.index, 30 - tracks.index, (2 * tracks.index) % 34)])[0]
            seen = tracks.select(0.5)
            assert len(seen) == 3
            for track_id, label, mask in zip(
                seen.track_ids.tolist(), seen.labels.tolist(), seen.masks, strict=True
            ):
                by_id.setdefault(track_id, set()).add(label)
                color = np.zeros(3, np.uint8)
                color[label - 1] = 255
                assert np.array_equal(mask, (expected == color).all(-1))
    assert sorted(map(tuple, by_id.values())) == [(1,), (2,), (3,)]


@pytest.mark.parametrize(("gap", "num_ids"), [(10, 3), (2, 4)])
def test_object_that_comes_back_keeps_its_id_within_the_gap(gap, num_ids) -> None:
    places = [(t, 20, None if 4 <= t < 10 else 30) for t in range(14)]
    settings = WindowSettings(size=2, stride=1, gap=gap)
    ids = set()
    for result in iterate_windows(ColorModel(), _tensors(draw_frames(places)), (20, 40), settings):
        for tracks in result.frames():
            seen = tracks.select(0.5)
            assert len(seen) == (2 if 4 <= tracks.index < 10 else 3)
            ids |= set(seen.track_ids.tolist())
    assert len(ids) == num_ids


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_prediction_joins_the_windows_of_a_track(mode) -> None:
    places = [(t, None if t < 6 else 20, None if t >= 3 else 30) for t in range(12)]
    frames = draw_frames(places)
    settings = WindowSettings(mode, size=4, stride=2, above=0, gap=2)
    model = ColorModel()
    video = {"image": _tensors(frames), "height": 20, "width": 40, "video_id": 7}
    result = VideoModel(model, settings)([video])[0]

    best = [(s, k) for s, k in zip(result["pred_scores"], result["pred_labels"], strict=True)][:3]
    assert sorted(label for _, label in best) == [1, 2, 3]
    assert [score for score, _ in best] == pytest.approx([0.9] * 3, abs=1e-6)
    for label, masks in zip(result["pred_labels"][:3], result["pred_masks"][:3], strict=True):
        for t, frame in enumerate(frames):
            color = np.zeros(3, np.uint8)
            color[label - 1] = 255
            assert np.array_equal(masks[t], (frame == color).all(-1)), (label, t)
    assert result["cells"] == [int((frame.max(-1) == 255).sum()) for frame in frames]


def test_embeddings_that_are_not_finite_are_reported() -> None:
    class Broken(ColorModel):
        def decode(self, *args) -> dict[str, Tensor]:
            outputs = super().decode(*args)
            return {**outputs, "queries": outputs["queries"] * float("nan")}

    def process() -> None:
        list(
            iterate_windows(
                Broken(), _tensors(_moving(4)), (20, 40), WindowSettings(size=2, stride=2)
            )
        )

    with pytest.raises(NumericError, match=r"frames from 2 on.*not finite"):
        process()


def test_model_without_windows_needs_mode_off() -> None:
    video = {"image": _random_frames(3)}
    with pytest.raises(ConfigError, match=r"TEST\.WINDOW\.MODE: expected off .*\(Identity\)"):
        VideoModel(nn.Identity(), WindowSettings(above=2))([video])


def test_frames_before_a_failure_are_given() -> None:
    def source() -> Iterator[Tensor]:
        yield from _tensors(_moving(7))
        raise DataError("video.mp4: frame 7 is damaged.")

    given = []

    def process() -> None:
        settings = WindowSettings(size=4, stride=2)
        for result in iterate_windows(ColorModel(), source(), (20, 40), settings):
            given.extend(tracks.index for tracks in result.frames())

    with pytest.raises(DataError, match="frame 7"):
        process()
    assert given == list(range(7))


def test_only_the_best_of_many_ended_tracks_are_kept() -> None:
    """A new object every frame: the result still has the best, and the memory is bounded."""
    model = ColorModel()
    places = [tuple(10 if k == t % 3 else None for k in range(3)) for t in range(40)]
    settings = WindowSettings(size=1, stride=1, above=0, gap=0)
    result = VideoModel(model, settings)(
        [{"image": _tensors(draw_frames(places)), "height": 20, "width": 40}]
    )[0]
    assert len(result["pred_scores"]) == model.num_tracks
    assert result["pred_scores"] == pytest.approx([0.9] * model.num_tracks, abs=1e-6)
    for masks in result["pred_masks"]:
        assert sum(bool(masks[t].any()) for t in range(40)) == 1
