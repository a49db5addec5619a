"""The mapper's samples: aligned rows, boxes that follow their pixels, errors with a place."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.mappers import YTVISDatasetMapper, clip_supervision
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import HEIGHT, WIDTH, data_cfg, plain_content, write_frames, write_json


@pytest.fixture
def videos(tmp_path):
    """Dataset dicts with frames on disk; masks too."""
    content = plain_content((6, 1), masks=True)
    return load_ytvis_json(write_json(tmp_path, content), write_frames(tmp_path, content))


def _strip(video):
    """The video without its masks."""
    frames = [
        [{k: v for k, v in item.items() if k != "segmentation"} for item in frame]
        for frame in video["annotations"]
    ]
    return {**video, "annotations": frames, "has_masks": False}


def _mapper(*overrides, is_train=True):
    return YTVISDatasetMapper(data_cfg(*overrides), is_train=is_train)


def _check_contract(sample, num_frames, num_rows=None):
    assert len(sample["image"]) == len(sample["instances"]) == num_frames
    assert len(sample["file_names"]) == len(sample["frame_indices"]) == num_frames
    h, w = sample["image"][0].shape[1:]
    rows = len(sample["instances"][0])
    assert num_rows is None or rows == num_rows
    tracks = sample["tracks"]
    assert bool((tracks["ids"] >= 0).any(dim=1).all())
    assert ("masks" in tracks) is (sample["supervision"] == "mask")
    for name in tracks.keys() - {"labels"}:
        assert tracks[name].shape[:2] == (rows, num_frames)
    assert all(value.is_contiguous() for value in tracks.values())
    first = sample["instances"][0].gt_classes
    for image, target in zip(sample["image"], sample["instances"], strict=True):
        assert image.dtype == torch.uint8
        assert image.shape == (3, h, w)
        assert target.image_size == (h, w)
        assert target.gt_classes.dtype == target.gt_ids.dtype == torch.int64
        assert target.gt_classes.shape == target.gt_ids.shape == (rows,)
        assert torch.equal(target.gt_classes, first)
        boxes = target.gt_boxes.tensor
        assert boxes.dtype == torch.float32
        assert boxes.shape == (rows, 4)
        absent = target.gt_ids < 0
        assert bool((boxes[absent] == 0).all())
        assert bool((boxes[~absent][:, 2:] > boxes[~absent][:, :2]).all())
        assert bool((boxes >= 0).all())
        assert bool((boxes <= torch.tensor([w, h, w, h])).all())
        assert target.has("gt_masks") is (sample["supervision"] == "mask")
        if target.has("gt_masks"):
            masks = target.gt_masks.tensor
            assert masks.dtype == torch.bool
            assert masks.shape == (rows, h, w)
            assert not bool(masks[absent].any())


def test_box_sample_follows_the_contract_and_the_json(videos):
    mapper = _mapper("INPUT.SAMPLING_FRAME_NUM", 6)
    sample = mapper(videos[0])
    _check_contract(sample, 6, 2)
    assert sample["supervision"] == "box"
    assert (sample["height"], sample["width"], sample["video_id"]) == (HEIGHT, WIDTH, 1)
    assert sample["length"] == 6
    assert sample["frame_indices"] == [0, 1, 2, 3, 4, 5]
    assert sample["file_names"] == videos[0]["file_names"]
    for t, target in enumerate(sample["instances"]):
        assert target.gt_classes.tolist() == [1, 0]
        assert target.gt_ids.tolist() == ([10, -1] if t == 0 else [10, 11])
        expected = [[2 + t, 3, 10 + t, 9], [15, 5 + t, 25, 12 + t] if t else [0] * 4]
        assert target.gt_boxes.tensor.tolist() == expected
        assert int(sample["image"][t][2, 0, 0]) == 10 * t  # blue says the frame
        assert sample["image"][t][0, 0, :3].tolist() == [0, 8, 16]  # red says x


def test_channels_come_in_the_order_of_the_config(videos):
    sample = _mapper("INPUT.FORMAT", "BGR")(videos[0])
    assert sample["image"][0][2, 0, :3].tolist() == [0, 8, 16]


@pytest.mark.parametrize("num_frames", range(1, 9))
@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_clips_of_any_length_from_videos_of_any_length(videos, num_frames, supervision):
    mapper = _mapper(
        *("INPUT.SAMPLING_FRAME_NUM", num_frames, "INPUT.SUPERVISION", supervision),
        *("INPUT.RANDOM_FLIP", "flip_by_clip", "INPUT.MIN_SIZE_TRAIN", (15, 25)),
    )
    for video in videos:
        for seed in range(3):
            np.random.seed(seed)
            sample = mapper(video)
            _check_contract(sample, num_frames)
            indices = sample["frame_indices"]
            assert indices == sorted(indices)
            assert len(set(indices)) == min(num_frames, video["length"])


def _with_confidences(video, confidence=0.5):
    """The video with a confidence in all frames of track 10, and no mask of it in frame 2."""
    frames = [[dict(item) for item in frame] for frame in video["annotations"]]
    for t, frame in enumerate(frames):
        for item in frame:
            if item["id"] == 10:
                item["confidence"] = confidence
                if t == 2:
                    del item["segmentation"]
    return {**video, "annotations": frames, "has_masks": False, "has_confidences": True}


def test_teacher_sample_has_boxes_masks_and_confidences(videos):
    mapper = _mapper("INPUT.SAMPLING_FRAME_NUM", 6, "INPUT.SUPERVISION", "teacher")
    sample = mapper(_with_confidences(videos[0]))
    assert sample["supervision"] == "teacher"
    tracks, boxes = sample["tracks"], _mapper("INPUT.SAMPLING_FRAME_NUM", 6)(videos[0])["tracks"]
    assert torch.equal(tracks["boxes"], boxes["boxes"])
    assert "masks" not in tracks
    # 0.5 as the file says, 1 where it says nothing, 0 where the object or its mask is absent
    expected = [[0.5, 0.5, 0, 0.5, 0.5, 0.5], [0, 1, 1, 1, 1, 1]]
    assert tracks["teacher_confidence"].tolist() == expected
    has_pixels = tracks["teacher_masks"].any(-1).any(-1)
    assert torch.equal(has_pixels, tracks["teacher_confidence"] > 0)
    frame = sample["instances"][3]
    assert torch.equal(frame.gt_masks.tensor, tracks["teacher_masks"][:, 3])
    assert frame.gt_confidence.tolist() == [0.5, 1]


def test_masks_of_a_teacher_are_flipped_with_their_frames(videos):
    mapper = _mapper(
        *("INPUT.SAMPLING_FRAME_NUM", 6, "INPUT.RANDOM_FLIP", "flip_by_clip"),
        *("INPUT.SUPERVISION", "teacher"),
    )
    flipped = set()
    for seed in range(8):
        np.random.seed(seed)
        tracks = mapper(videos[0])["tracks"]
        flipped.add(float(tracks["boxes"][0, 0, 0]))
        for masks, boxes in zip(tracks["teacher_masks"], tracks["boxes"], strict=True):
            for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
                outside = mask.clone()
                outside[y0:y1, x0:x1] = False
                assert not bool(outside.any())
    assert len(flipped) == 2


@pytest.mark.parametrize("setting", ["box", "mask", "teacher"])
def test_setting_decides_and_data_follows_each_video(videos, setting):
    taught = _with_confidences(videos[0])
    assert clip_supervision(setting, taught) == setting
    found = [clip_supervision("data", video) for video in (taught, videos[0], _strip(videos[0]))]
    assert found == ["teacher", "mask", "box"]


def test_row_of_a_track_that_no_frame_of_the_clip_shows_is_left_out(videos):
    video = {**videos[0]}
    video["annotations"] = [frame[:1] for frame in video["annotations"][:5]]
    video["annotations"].append(videos[0]["annotations"][5])
    mapper = _mapper("INPUT.SAMPLING_FRAME_NUM", 2, "INPUT.SAMPLING_FRAME_RANGE", 1)
    rows = {len(mapper(video)["instances"][0]) for _ in range(40)}
    assert rows == {1, 2}


@pytest.mark.parametrize("supervision", ["box", "mask", "data"])
def test_video_without_objects_gives_empty_rows(videos, supervision):
    video = {**videos[0], "annotations": [[] for _ in range(6)], "has_masks": False}
    sample = _mapper("INPUT.SUPERVISION", supervision)(video)
    _check_contract(sample, 2, 0)


def test_crowds_are_left_out(videos):
    video = {
        **videos[0],
        "annotations": [
            [{**item, "iscrowd": int(item["id"] == 10)} for item in frame]
            for frame in videos[0]["annotations"]
        ],
    }
    sample = _mapper("INPUT.SAMPLING_FRAME_NUM", 6)(video)
    _check_contract(sample, 6, 1)
    assert sample["instances"][3].gt_ids.tolist() == [11]


def _flip_and_resize():
    return (
        *("INPUT.RANDOM_FLIP", "flip_by_clip", "INPUT.MIN_SIZE_TRAIN", (40, 10)),
        *("INPUT.SAMPLING_FRAME_NUM", 4),
    )


def test_boxes_follow_flip_and_resize_in_every_frame(videos):
    mapper = _mapper(*_flip_and_resize())
    seen = set()
    for seed in range(16):
        np.random.seed(seed)
        sample = mapper(_strip(videos[0]))
        h = sample["image"][0].shape[1]
        scale = h / HEIGHT
        red = sample["image"][0][0].float()
        is_flipped = bool(red[0, 0] > red[0, -1])
        seen.add((h, is_flipped))
        for t, target in zip(sample["frame_indices"], sample["instances"], strict=True):
            x1, y1, x2, y2 = (scale * v for v in (2 + t, 3, 10 + t, 9))
            if is_flipped:
                x1, x2 = WIDTH * scale - x2, WIDTH * scale - x1
            row = target.gt_boxes.tensor[target.gt_ids == 10]
            torch.testing.assert_close(row, torch.tensor([[x1, y1, x2, y2]]))
    assert seen == {(10, False), (10, True), (40, False), (40, True)}


def test_masks_follow_flip_and_resize_with_their_boxes(videos):
    mapper = _mapper(*_flip_and_resize(), "INPUT.SUPERVISION", "mask")
    boxes = _mapper(*_flip_and_resize())
    for seed in range(8):
        np.random.seed(seed)
        sample = mapper(videos[0])
        np.random.seed(seed)
        same = boxes(videos[0])
        _check_contract(sample, 4)
        for target, other in zip(sample["instances"], same["instances"], strict=True):
            assert torch.equal(target.gt_ids, other.gt_ids)
            difference = (target.gt_boxes.tensor - other.gt_boxes.tensor).abs()
            assert float(difference.max()) <= 1.0  # half a pixel on each side, of masks scaled down
            for mask, box in zip(target.gt_masks.tensor, target.gt_boxes.tensor, strict=True):
                x1, y1, x2, y2 = (int(v) for v in box)
                assert int(mask.sum()) == (x2 - x1) * (y2 - y1)
                assert bool(mask[y1:y2, x1:x2].all())


def test_crop_without_masks_leaves_half_of_each_box_or_nothing(videos):
    mapper = _mapper(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (12, 15)),
        *("INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.SAMPLING_FRAME_NUM", 3),
    )
    cuts = whole = 0
    for seed in range(40):
        np.random.seed(seed)
        sample = mapper(_strip(videos[0]))
        height, width = sample["image"][0].shape[1:]
        whole += (height, width) == (HEIGHT, WIDTH)
        assert len(sample["tracks"]["ids"]) > 0
        for track, ids in zip(sample["tracks"]["boxes"], sample["tracks"]["ids"], strict=True):
            for box, track_id in zip(track[ids >= 0], ids[ids >= 0], strict=True):
                full = (8, 6) if track_id == 10 else (10, 7)
                sides = (box[2:] - box[:2]).tolist()
                assert all(2 * side >= of for side, of in zip(sides, full, strict=True))
                cuts += sides != list(full)
    assert cuts > 0
    assert whole < 40


def test_boxes_cut_away_by_a_crop_are_absent(videos):
    mapper = _mapper(
        *("INPUT.SUPERVISION", "mask"),
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (8, 9)),
        *("INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.SAMPLING_FRAME_NUM", 6),
    )
    rows, partly = [], 0
    for seed in range(60):
        np.random.seed(seed)
        sample = mapper(videos[0])
        _check_contract(sample, 6)
        rows.append(len(sample["instances"][0]))
        x0, y0 = int(sample["image"][0][0, 0, 0]) // 8, int(sample["image"][0][1, 0, 0]) // 12
        for t, target in enumerate(sample["instances"]):
            x1, x2 = np.clip([2 + t - x0, 10 + t - x0], 0, 9)
            y1, y2 = np.clip([3 - y0, 9 - y0], 0, 8)
            found = target.gt_boxes.tensor[target.gt_ids == 10].tolist()
            assert found == ([[x1, y1, x2, y2]] if x2 > x1 and y2 > y1 else [])
            partly += int(bool(((target.gt_ids < 0) & (target.gt_classes >= 0)).any()))
    assert {0, 1, 2} == set(rows)
    assert partly > 0


def test_supervision_by_data_follows_each_video(videos):
    mapper = _mapper("INPUT.SUPERVISION", "data")
    _check_contract(mapper(videos[0]), 2)
    assert mapper(videos[0])["supervision"] == "mask"
    assert mapper(_strip(videos[0]))["supervision"] == "box"
    assert clip_supervision("box", videos[0]) == "box"


def test_mask_supervision_without_a_mask_is_refused(videos):
    with pytest.raises(DataError, match=r"video 1, frame .*annotation 10.*INPUT\.SUPERVISION"):
        _mapper("INPUT.SUPERVISION", "mask")(_strip(videos[0]))


def test_test_time_gives_the_whole_video_without_targets(videos):
    sample = _mapper(is_train=False)(videos[0])
    assert "instances" not in sample
    assert "tracks" not in sample
    assert sample["frame_indices"] == [0, 1, 2, 3, 4, 5]
    assert [image.shape for image in sample["image"]] == [(3, HEIGHT, WIDTH)] * 6


def test_mapper_repeats_itself_for_a_seed_and_leaves_its_input_alone(videos):
    mapper = _mapper(
        *_flip_and_resize(), "INPUT.AUGMENTATIONS", ["brightness"], "INPUT.SUPERVISION", "mask"
    )
    before = repr(videos)
    runs = []
    for _ in range(2):
        np.random.seed(11)
        runs.append([mapper(video) for video in videos for _ in range(4)])
    for first, second in zip(*runs, strict=True):
        assert first["frame_indices"] == second["frame_indices"]
        for a, b in zip(first["image"], second["image"], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(first["instances"], second["instances"], strict=True):
            assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
            assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
    assert repr(videos) == before
    assert len({tuple(sample["frame_indices"]) for sample in runs[0][:4]}) > 1


def test_shuffle_puts_frames_targets_and_names_in_one_order(videos):
    mapper = _mapper("INPUT.SAMPLING_FRAME_NUM", 5, "INPUT.SAMPLING_FRAME_SHUFFLE", True)
    orders = set()
    for seed in range(5):
        np.random.seed(seed)
        sample = mapper(videos[0])
        orders.add(tuple(sample["frame_indices"]))
        for t, image, target in zip(
            sample["frame_indices"], sample["image"], sample["instances"], strict=True
        ):
            assert int(image[2, 0, 0]) == 10 * t
            assert target.gt_boxes.tensor[target.gt_ids == 10][0, 0] == 2 + t
    assert any(list(order) != sorted(order) for order in orders)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.SUPERVISION", "points"),
        ("INPUT.SAMPLING_FRAME_NUM", 0),
        ("INPUT.SAMPLING_FRAME_RANGE", -1),
        ("INPUT.FORMAT", "L"),
    ],
)
def test_bad_keys_are_refused(key, value):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        _mapper(key, value)


# --- frames that cannot be used ------------------------------------------------------------------


def _cut(path, share):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[: int(len(content) * share)])


def _write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def _bomb(path):
    import struct
    import zlib

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    _write(path, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))


BAD_FRAMES = {
    "absent": (os.remove, "no such image"),
    "a folder": (lambda path: (os.remove(path), os.mkdir(path)), "no such image"),
    "empty": (lambda path: _write(path, b""), "cannot be decoded"),
    "text": (lambda path: _write(path, b"hello world"), "cannot be decoded"),
    "header only": (lambda path: _cut(path, 0.05), "cannot be decoded"),
    "truncated": (lambda path: _cut(path, 0.6), "cannot be decoded"),
    "bomb": (_bomb, "cannot be decoded"),
    "other size": (
        lambda path: Image.new("RGB", (WIDTH + 2, HEIGHT)).save(path, "JPEG"),
        "expected 30 x 20 pixels .* got 32 x 20",
    ),
    "turned by EXIF": (
        lambda path: Image.new("RGB", (WIDTH, HEIGHT)).save(path, "JPEG", exif=_turned()),
        "expected 30 x 20 pixels .* got 20 x 30",
    ),
}


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return exif.tobytes()


@pytest.mark.parametrize("case", BAD_FRAMES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_frame_is_named_with_path_video_and_frame(tmp_path, case):
    spoil, pattern = BAD_FRAMES[case]
    content = plain_content((3,))
    content["videos"][0]["file_names"] = [f"v1/{t}.jpg" for t in range(3)]
    root = write_frames(tmp_path, content)
    video = load_ytvis_json(write_json(tmp_path, content), root)[0]
    path = video["file_names"][1]
    spoil(path)
    mapper = _mapper("INPUT.SAMPLING_FRAME_NUM", 3)
    with pytest.raises(DataError, match=pattern) as error:
        mapper(video)
    assert str(error.value).startswith(f"{path} (video 1, frame 1): ")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_frames_of_other_colour_modes_are_converted(tmp_path, mode):
    name = "frame.tif" if mode == "CMYK" else "frame.png"
    Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9)).convert(mode).save(tmp_path / name)
    video = {
        "file_names": [str(tmp_path / name)],
        "height": HEIGHT,
        "width": WIDTH,
        "video_id": 1,
    }
    image = read_video_frame(video, 0, "RGB")
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8


def test_area_of_the_video_is_told_where_a_head_asks_for_it(videos):
    video = videos[0]
    assert "valid_area" not in _mapper()(video)
    on = ("MODEL.SPATIAL_MASK.ENABLED", True)
    sample = _mapper(*on)(video)
    assert sample["valid_area"].shape == sample["image"][0].shape[1:]
    assert bool(sample["valid_area"].all())
    rotating = ("INPUT.AUGMENTATIONS", ["rotation"], "INPUT.SUPERVISION", "mask")
    np.random.seed(3)
    sample = _mapper(*on, *rotating)(video)
    outside = ~sample["valid_area"]
    assert bool(outside.any())
    for frame in sample["image"]:  # what is turned in is black, but for a border of pixels
        assert frame[:, outside].float().mean() < 0.3 * frame[:, ~outside].float().mean()
    assert "valid_area" not in _mapper(*on, is_train=False)(video)
