"""Joining the objects of windows: who continues, who is new, who is forgotten, and their scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.inference.linking import (
    PooledScore,
    Track,
    TrackLinker,
    WindowObjects,
    mask_overlap,
)

SIZE = (4, 6)


def _masks(columns: list[list[int | None]]) -> Tensor:
    """Bool (Q, T, 4, 6): query q covers column ``columns[q][t]`` in frame t, None for nothing."""
    masks = torch.zeros(len(columns), len(columns[0]), *SIZE, dtype=torch.bool)
    for query, of_query in enumerate(columns):
        for frame, column in enumerate(of_query):
            if column is not None:
                masks[query, frame, :, column] = True
    return masks


def _axes(*directions: int) -> Tensor:
    """Embeddings along the axes of a space with six dimensions; (Q, 6)."""
    return torch.eye(6)[list(directions)]


def _window(start: int, directions: list[int], columns: list[list[int | None]]) -> WindowObjects:
    return WindowObjects(_axes(*directions), _masks(columns), start)


def _linker(gap: int = 5, max_tracks: int = 20) -> TrackLinker:
    return TrackLinker(gap, max_tracks)


def _ids(found: dict[int, Track]) -> dict[int, int]:
    return {query: track.track_id for query, track in found.items()}


def test_first_window_begins_a_track_for_each_candidate() -> None:
    found = _linker().link(_window(0, [0, 1, 2], [[0], [1], [2]]), [2, 0])
    assert _ids(found) == {0: 2, 2: 1}
    assert list(found) == [0, 2]


def test_embeddings_link_where_no_frame_is_shared() -> None:
    linker = _linker()
    linker.link(_window(0, [0, 1], [[0], [1]]), [0, 1])
    # the masks have changed places, which must not matter
    found = linker.link(_window(1, [1, 0, 3], [[0], [1], [2]]), [0, 1])
    assert _ids(found) == {0: 2, 1: 1}


def test_masks_of_shared_frames_tell_equal_embeddings_apart() -> None:
    linker = _linker()
    linker.link(_window(0, [0, 0], [[0, 1], [5, 4]]), [0, 1])
    found = linker.link(_window(1, [0, 0], [[4, 3], [1, 2]]), [0, 1])
    assert _ids(found) == {0: 2, 1: 1}


def test_query_that_is_no_candidate_continues_a_track_but_begins_none() -> None:
    linker = _linker()
    linker.link(_window(0, [0], [[0]]), [0])
    found = linker.link(_window(1, [4, 0], [[0], [0]]), [])
    assert _ids(found) == {1: 1}


def test_dissimilar_query_begins_a_new_track() -> None:
    linker = _linker()
    linker.link(_window(0, [0], [[0]]), [0])
    assert _ids(linker.link(_window(1, [1], [[0]]), [0])) == {0: 2}


@pytest.mark.parametrize(("gap", "expected"), [(2, 1), (1, 2)])
def test_lost_track_is_remembered_for_the_gap(gap: int, expected: int) -> None:
    linker = _linker(gap)
    (first,) = linker.link(_window(0, [0], [[0]]), [0]).values()
    for frame in (1, 2):  # two frames without it
        linker.link(_window(frame, [5], [[3]]), [])
    (again,) = linker.link(_window(3, [0], [[4]]), [0]).values()
    assert again.track_id == expected
    assert first.is_active is (expected == 1)


def test_embedding_of_a_track_follows_the_object() -> None:
    linker = _linker()
    first, last = _axes(0, 1)
    embeddings = [torch.lerp(first, last, step / 8)[None] for step in range(9)]
    assert float(first @ last) == 0
    for frame, embedding in enumerate(embeddings):
        unit = torch.nn.functional.normalize(embedding, dim=1)
        found = linker.link(WindowObjects(unit, _masks([[None]]), frame), [0])
        assert _ids(found) == {0: 1}


def test_most_similar_pairs_together_are_chosen() -> None:
    # alone, the first track would take query 0, and the second would get nothing
    linker = _linker()
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.6])
    linker.link(WindowObjects(torch.stack([one, two]), _masks([[None], [None]]), 0), [0, 1])
    queries = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.6, -0.8]]), dim=1)
    found = linker.link(WindowObjects(queries, _masks([[None], [None]]), 1), [0, 1])
    assert _ids(found) == {0: 2, 1: 1}


def test_overlap_counts_the_shared_frames_only() -> None:
    tracks = [
        Track(1, _axes(0)[0], _masks([[0, 1, 2]])[0], 3, PooledScore()),  # shares frames 1 and 2
        Track(2, _axes(1)[0], _masks([[0, 3]])[0], 2, PooledScore()),  # shares frame 1
        Track(3, _axes(2)[0], _masks([[4]])[0], 1, PooledScore()),  # shares none
    ]
    window = _window(1, [0, 1], [[1, 5, 0], [3, 2, 0]])
    iou, has_mask = mask_overlap(tracks, window)
    # track 1 is in columns 1, 2; query 0 in 1, 5 and query 1 in 3, 2
    assert iou.tolist() == [[pytest.approx(1 / 3)] * 2, [0.0, 1.0], [0.0, 0.0]]
    assert has_mask.tolist() == [True, True, False]


def test_overlap_without_tracks_or_masks_is_zero() -> None:
    window = _window(0, [0], [[None, None]])
    assert mask_overlap([], window)[0].shape == (0, 1)
    track = Track(1, _axes(0)[0], _masks([[None, None]])[0], 2, PooledScore())
    iou, has_mask = mask_overlap([track], window)
    assert iou.tolist() == [[0.0]]
    assert has_mask.tolist() == [False]


def test_at_most_max_tracks_are_held_and_the_lowest_score_goes() -> None:
    linker = _linker(max_tracks=2)
    found = linker.link(_window(0, [0, 1, 2], [[0], [1], [2]]), [0, 1, 2])
    for track, score in zip(found.values(), (0.5, 0.1, 0.9), strict=True):
        track.pooled.add(torch.tensor([score]), torch.tensor(1.0), 1)
    linker.prune()
    assert [track.track_id for track in linker.tracks] == [1, 3]
    assert [track.is_active for track in found.values()] == [True, False, True]


def test_pooled_score_of_one_window_is_its_value() -> None:
    probs, factor = torch.rand(7), torch.rand(())
    for num_frames in (1, 3, 7, 36):
        score = PooledScore()
        score.add(probs, factor, num_frames)
        for only_known in (False, True):
            mean, mean_factor = score.mean(only_known)
            assert torch.equal(mean, probs)
            assert torch.equal(mean_factor, factor)


def test_pooled_score_is_the_mean_over_frames() -> None:
    score = PooledScore()
    score.add(torch.tensor([1.0, 0.0]), torch.tensor(1.0), 3)
    score.add(torch.tensor([0.0, 1.0]), torch.tensor(0.5), 1)
    probs, factor = score.mean()
    assert probs.tolist() == [0.75, 0.25]
    assert float(factor) == 0.875
    assert score.label_and_score() == (0, 0.75 * 0.875)
    # in the first three frames class 0 was sure, in the fourth its mean was 0.75
    probs, factor = score.mean(only_known=True)
    assert probs.tolist() == [(3 + 0.75) / 4, 0.25 / 4]
    assert float(factor) == (3 + 0.875) / 4
